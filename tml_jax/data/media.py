"""Media files in: sound at 16 kHz and pictures, each at its time.

For: everything that reads a file of sound, video or a still: sources, `sample`,
benchmark folders. Not for: measuring sound (`audio`) or judging a corpus'
recordings (`utterance`). Start reading at `sound` and `pictures`.

Time 0 is where the file's first stream begins, in both: a click and a flash
that were recorded together stay together, whatever the container. Files come
from strangers. FFmpeg may use the demuxers of `FORMATS` alone and open nothing
besides the file: its others bind ports, read other files or record screens.
"""

import contextlib
import dataclasses
import io
import os
import stat
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np
import PIL.Image
import PIL.ImageOps

from tml_jax.data import placing, source, wav_header
from tml_jax.streams.timeline import VideoFrame

# FFmpeg's names of demuxers. What they open they find by the data, but G.722.
FORMATS = (
  *("aac", "aiff", "amr", "asf", "au", "avi", "caf", "flac", "flv", "g722"),
  *("matroska", "mov", "mp3", "mpeg", "mpegts", "nistsphere", "ogg", "w64"),
  *("wav", "wv"),
)
STILLS = ("JPEG", "PNG", "WEBP", "BMP")  # Pillow's names
CONTAINER_OPTIONS = {
  "format_whitelist": ",".join(FORMATS),
  "protocol_whitelist": "none",  # Python reads the file
}
_MAX_PIXELS = 2**26  # of a coded picture: 8192 x 8192
_MOST = 10.0  # peak, at full scale 1: floats of a loud mix are below


@dataclasses.dataclass(frozen=True)
class Limits:
  """How much of a file is decoded before it is refused.

  Attributes:
    seconds: of sound, gaps included.
    bytes: of samples or pictures that are kept.
    patience: seconds that reading and decoding may take.
  """

  seconds: float = 2 * 3600.0
  bytes: int = 1 << 30
  patience: float = 600.0


LIMITS = Limits()


def sound(
  path: str | os.PathLike[str], *, limits: Limits = LIMITS
) -> np.ndarray:
  """[channels, n] float32 at 16 kHz of a file's first stream of sound.

  Gaps in it are silent and its start is that of the file (see above). Without
  gaps, n is the file's length times the ratio of rates, rounded.

  Raises:
    source.BadRecording: unreadable, empty, truncated, over a limit, or not
      sound (`check`).
  """
  name = _shown(path)
  with _regular(path) as file:
    return _sound(file, container=_container(name), name=name, limits=limits)


def sound_of_bytes(
  data: bytes, *, name: str, limits: Limits = LIMITS
) -> np.ndarray:
  """The same of a file in memory, which had this name."""
  container = _container(name)
  return _sound(io.BytesIO(data), container=container, name=name, limits=limits)


def sound_of_file(
  file: BinaryIO, *, name: str, limits: Limits = LIMITS
) -> np.ndarray:
  """The same of a file that is open and can seek; it is never held whole."""
  container = _container(name)
  return _sound(file, container=container, name=name, limits=limits)


def pictures(
  path: str | os.PathLike[str],
  *,
  fps: float,
  seconds: float,
  height: int,
  width: int,
  limits: Limits = LIMITS,
) -> tuple[VideoFrame, ...]:
  """Upright frames of a clip's first `seconds`, by capture time.

  Of the frames in each 1 / `fps` seconds the first is kept, so that a variable
  frame rate brings no bursts.

  Raises:
    source.BadRecording: unreadable, without a picture or over a limit.
  """
  with _regular(path) as file:
    return _pictures(
      file,
      name=_shown(path),
      fps=fps,
      seconds=seconds,
      height=height,
      width=width,
      limits=limits,
    )


def pictures_of_file(
  file: BinaryIO,
  *,
  name: str,
  fps: float,
  seconds: float,
  height: int,
  width: int,
  limits: Limits = LIMITS,
) -> tuple[VideoFrame, ...]:
  """The same of a file that is open and can seek."""
  return _pictures(
    file,
    name=name,
    fps=fps,
    seconds=seconds,
    height=height,
    width=width,
    limits=limits,
  )


def subtitles_of_file(
  file: BinaryIO, *, name: str, limits: Limits = LIMITS
) -> list[tuple[float, float, bytes]]:
  """Start, end and text of a clip's first stream of subtitles that are text.

  Raises:
    source.BadRecording: unreadable.
  """
  found: list[tuple[float, float, bytes]] = []
  with _open(file, container=None, name=name, limits=limits) as opened:
    streams = opened.container.streams.subtitles
    if not streams or streams[0].codec_context is None:
      return found
    zero = opened.zero or 0.0
    for packet in opened.container.demux(streams[0]):
      if packet.pts is None or not packet.time_base or not packet.duration:
        continue
      start = max(0.0, float(packet.pts * packet.time_base) - zero)
      end = start + float(packet.duration * packet.time_base)
      for each in packet.decode():
        text = getattr(each, "dialogue", b"")
        if text:
          found.append((start, end, text))
  return found


def clip_of_bytes(
  data: bytes,
  *,
  name: str,
  fps: float,
  seconds: float,
  height: int,
  width: int,
  limits: Limits = LIMITS,
) -> tuple[tuple[VideoFrame, ...], np.ndarray | None]:
  """`pictures` and `sound` of a clip in memory; None where it has no sound.

  Raises:
    source.BadRecording: as those two.
  """
  frames = _pictures(
    io.BytesIO(data),
    name=name,
    fps=fps,
    seconds=seconds,
    height=height,
    width=width,
    limits=limits,
  )
  file = io.BytesIO(data)
  with _open(file, container=None, name=name, limits=limits) as opened:
    has_sound = bool(opened.container.streams.audio)
  if not has_sound:
    return frames, None
  return frames, sound_of_bytes(data, name=name, limits=limits)


def picture_of_bytes(
  data: bytes,
  *,
  name: str,
  height: int,
  width: int,
  pixels: int = _MAX_PIXELS,
) -> np.ndarray:
  """[height, width, 3] uint8, upright, of a still; transparent is white.

  More than `pixels` of a coded picture are not decoded.

  Raises:
    source.BadRecording: no picture in a format of `STILLS`, broken or too
      large.
  """
  try:
    with PIL.Image.open(io.BytesIO(data), formats=STILLS) as image:
      if image.width * image.height > pixels:
        raise source.BadRecording(
          source.Reason.TOO_LARGE,
          f"{name}: {image.width} x {image.height} pixels",
        )
      image.load()
      upright = PIL.ImageOps.exif_transpose(image).convert("RGBA")
  except source.BadRecording:
    raise
  except (MemoryError, PIL.Image.DecompressionBombError) as error:
    raise source.BadRecording(
      source.Reason.TOO_LARGE, f"{name}: {error or 'no memory'}"
    ) from error
  # Whatever Pillow's readers raise for a broken file, which is many things.
  except Exception as error:
    raise source.BadRecording(
      source.Reason.UNREADABLE,
      f"{name}: {error!r:.200}; formats that are read: {', '.join(STILLS)}",
    ) from error
  paper = PIL.Image.new("RGBA", upright.size, "white")
  paper.alpha_composite(upright)
  resized = paper.convert("RGB").resize((width, height))
  return np.asarray(resized)


def _pictures(
  file: BinaryIO,
  *,
  name: str,
  fps: float,
  seconds: float,
  height: int,
  width: int,
  limits: Limits,
) -> tuple[VideoFrame, ...]:
  """See `pictures`."""
  kept: list[VideoFrame] = []
  with _open(file, container=None, name=name, limits=limits) as opened:
    streams = _moving(opened.container)
    if not streams:
      raise source.BadRecording(
        source.Reason.UNREADABLE, f"{name} has no video stream"
      )
    if streams[0].codec_context is None:
      raise source.BadRecording(
        source.Reason.UNREADABLE, f"{name} has a coding that nobody knows"
      )
    streams[0].codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
    zero, due = opened.zero, 0
    for frame in opened.frames(streams[0]):
      if frame.time is None:
        continue
      zero = frame.time if zero is None else zero
      at = max(0.0, frame.time - zero)
      if at >= seconds:
        break
      # A millisecond, because capture times are rounded.
      slot = int((at + 1e-3) * fps)
      if slot >= due:
        due = slot + 1
        kept.append(VideoFrame(at, _upright(frame, height=height, width=width)))
        if len(kept) * height * width * 3 > limits.bytes:
          raise source.BadRecording(
            source.Reason.TOO_LARGE,
            f"{name} has over {limits.bytes} bytes of pictures",
          )
  if not kept:
    raise source.BadRecording(
      source.Reason.EMPTY, f"{name} has no frame to show"
    )
  return tuple(kept)


def _container(name: str) -> str | None:
  """The format that the extension names where the data do not."""
  return "g722" if name.lower().endswith(".g722") else None


def check(samples: np.ndarray, *, name: str) -> None:
  """Refuses [channels, n] samples that are numbers and no sound.

  Raises:
    source.BadRecording: not finite, or as large as integers.
  """
  peak = max(float(samples.max()), -float(samples.min()))
  if not np.isfinite(peak):
    bad = int(np.count_nonzero(~np.isfinite(samples)))
    raise source.BadRecording(
      source.Reason.NOT_FINITE, f"{name}: {bad} of {samples.size} samples"
    )
  if peak > _MOST:
    raise source.BadRecording(
      source.Reason.NOT_SCALED,
      f"{name}: peak {peak:.0f}, full scale is 1: divide float samples by the"
      " largest integer, or write the file again as 16-bit PCM",
    )


def _shown(path: str | os.PathLike[str]) -> str:
  """The file's name as text that can be printed."""
  return os.fsencode(os.path.basename(path)).decode("utf-8", "replace")


@contextlib.contextmanager
def _regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
  """A file that is one: no pipe, device or directory, which may never end."""
  name = _shown(path)
  try:
    # Not blocking, as the opening of a pipe waits for who writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
      found = os.fstat(descriptor)
      if not stat.S_ISREG(found.st_mode):
        raise source.BadRecording(
          source.Reason.UNREADABLE, f"{name} is not a regular file"
        )
      if not found.st_size:
        raise source.BadRecording(source.Reason.EMPTY, f"{name} has 0 bytes")
      yield file
  except OSError as error:
    raise source.BadRecording(
      source.Reason.UNREADABLE, f"{name}: {error.strerror or error}"
    ) from error


class _Opened:
  """A container that is read within limits.

  Attributes:
    container: PyAV's.
    zero: time in seconds at which the first of several streams begins; None
      where there is one stream, whose first frame is at 0.
  """

  def __init__(self, file: BinaryIO, *, limits: Limits):
    self.seek, self.tell = file.seek, file.tell  # for FFmpeg
    self._file = file
    self._end = time.monotonic() + limits.patience
    self.container: av.container.InputContainer
    self.zero: float | None = None

  def read(self, size: int) -> bytes:
    """For FFmpeg, which probes before there is a frame to count."""
    self._check_time()
    return self._file.read(size)

  def frames(self, stream: av.stream.Stream) -> Iterator[Any]:
    """Of the stream's kind, which PyAV's types do not tell."""
    for frame in self.container.decode(stream):
      self._check_time()
      yield frame

  def _check_time(self) -> None:
    if time.monotonic() > self._end:
      raise TimeoutError


@contextlib.contextmanager
def _open(
  file: BinaryIO, *, container: str | None, name: str, limits: Limits
) -> Iterator[_Opened]:
  """Opens a container; every fault of it becomes a `source.BadRecording`."""
  opened = _Opened(file, limits=limits)
  try:
    with av.open(
      opened,
      mode="r",
      format=container,
      container_options=CONTAINER_OPTIONS,
      metadata_errors="replace",
    ) as opened.container:
      several = _moving(opened.container) and opened.container.streams.audio
      if several and opened.container.start_time is not None:
        opened.zero = opened.container.start_time / av.time_base
      yield opened
  except source.BadRecording:
    raise
  except MemoryError as error:
    raise source.BadRecording(
      source.Reason.TOO_LARGE, f"{name}: the memory does not suffice"
    ) from error
  except TimeoutError as error:
    raise source.BadRecording(
      source.Reason.TIMED_OUT, f"{name}: over {limits.patience:.0f} s"
    ) from error
  except EOFError as error:  # a header and nothing behind it
    raise source.BadRecording(
      source.Reason.EMPTY, f"{name} decodes to nothing"
    ) from error
  except av.error.FFmpegError as error:
    raise source.BadRecording(
      source.Reason.UNREADABLE,
      f"{name}: {error.strerror}; formats that are read: {', '.join(FORMATS)}",
    ) from error
  except ValueError as error:
    raise source.BadRecording(
      source.Reason.UNREADABLE, f"{name}: {error}"
    ) from error


def _moving(container: av.container.InputContainer) -> list[av.VideoStream]:
  """Streams of video that are not the cover of an album."""
  cover = av.stream.Disposition.attached_pic
  return [s for s in container.streams.video if not s.disposition & cover]


def _upright(frame: av.VideoFrame, *, height: int, width: int) -> np.ndarray:
  """[height, width, 3] uint8, turned as the file says."""
  turns = round(frame.rotation / 90) % 4  # counterclockwise
  if turns % 2:
    height, width = width, height
  image = frame.reformat(width=width, height=height, format="rgb24")
  return np.ascontiguousarray(np.rot90(image.to_ndarray(), turns))


def _sound(
  file: BinaryIO, *, container: str | None, name: str, limits: Limits
) -> np.ndarray:
  """See `sound`."""
  is_declared = wav_header.check(file, name=name)
  with _open(file, container=container, name=name, limits=limits) as opened:
    if not opened.container.streams.audio:
      raise source.BadRecording(
        source.Reason.UNREADABLE, f"{name} has no audio stream"
      )
    stream = opened.container.streams.audio[0]
    if stream.codec_context is None:
      raise source.BadRecording(
        source.Reason.UNREADABLE, f"{name} has a coding that nobody knows"
      )
    declared = 0.0
    if is_declared and stream.duration and stream.time_base:
      declared = float(stream.duration * stream.time_base)
    placed = placing.Placed(
      declared, name=name, seconds=limits.seconds, bytes=limits.bytes
    )
    zero = opened.zero
    for frame in opened.frames(stream):
      if zero is None:
        zero = frame.time or 0.0
      at = None if frame.time is None else max(0.0, frame.time - zero)
      placed.add(
        _to_float(frame.to_ndarray(), channels=frame.layout.nb_channels),
        rate=frame.sample_rate,
        at=at,
      )
    samples = placed.finish()
    held = placed.seconds
  if not samples.size:
    raise source.BadRecording(source.Reason.EMPTY, f"{name} decodes to nothing")
  # Compressed formats round the length to a frame; 0.1 s covers all of them.
  if held < declared * 0.98 - 0.1:
    raise source.BadRecording(
      source.Reason.TRUNCATED,
      f"{name} declares {declared:.2f} s and holds {held:.2f} s",
    )
  check(samples, name=name)
  return samples


def _to_float(samples: np.ndarray, *, channels: int) -> np.ndarray:
  """FFmpeg frame (planar or interleaved) to [channels, n] float32."""
  if samples.shape[0] != channels:
    samples = samples.reshape(-1, channels).T
  if samples.dtype == np.uint8:
    return (samples.astype(np.float32) - 128) / 128
  if np.issubdtype(samples.dtype, np.integer):
    return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
  return samples.astype(np.float32)
