"""Media files in: sound at 16 kHz and pictures, each at its time.

For: everything that reads a file of sound or video: sources, `sample`,
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
import struct
import time
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np

from tml_jax.data import source
from tml_jax.streams import clock
from tml_jax.streams.timeline import VideoFrame

# FFmpeg's names of demuxers. What they open they find by the data, but G.722.
FORMATS = (
  *("aac", "aiff", "amr", "asf", "au", "avi", "caf", "flac", "flv", "g722"),
  *("matroska", "mov", "mp3", "mpeg", "mpegts", "nistsphere", "ogg", "w64"),
  *("wav", "wv"),
)
CONTAINER_OPTIONS = {
  "format_whitelist": ",".join(FORMATS),
  "protocol_whitelist": "none",  # Python reads the file
}
# Hz. The resampler's filter grows with the ratio of rates.
_RATES = range(1_000, 768_001)
_MAX_PIXELS = 2**26  # of a coded picture: 8192 x 8192
# Seconds by which a time may differ from the sum of the samples before it:
# containers round to 1 ms, browsers' recordings jitter by some ms more.
_JITTER = 0.04
_RUNS_BACK = 1.0  # seconds of overlap that are no longer a cut
_MOST = 10.0  # peak, at full scale 1: floats of a loud mix are below
_BLOCK = 1 << 16  # samples that are resampled at once
# Bytes below 2^31 and 2^32 that mean "to the end" in a WAV written to a pipe:
# espeak-ng and sox write 0x7ffff000, others the largest less their header.
_STREAMED = 1 << 16
_MOST_CHUNKS = 1000


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
  with _regular(path) as file:
    # The extension names the format where the data do not.
    extension = os.path.splitext(file.name)[1].lower()
    return _sound(
      file,
      container="g722" if extension == ".g722" else None,
      name=_shown(path),
      limits=limits,
    )


def sound_of_bytes(
  data: bytes, *, name: str, limits: Limits = LIMITS
) -> np.ndarray:
  """The same of a file in memory; `name` is for messages."""
  return _sound(io.BytesIO(data), container=None, name=name, limits=limits)


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
  name = _shown(path)
  kept: list[VideoFrame] = []
  with (
    _regular(path) as file,
    _open(file, container=None, name=name, limits=limits) as opened,
  ):
    streams = _moving(opened.container)
    if not streams:
      raise source.BadRecording(
        source.Reason.UNREADABLE, f"{name} has no video stream"
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
      file.raw.name = os.fspath(path)
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

  def frames(self, stream: av.stream.Stream) -> Iterator[av.frame.Frame]:
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


def _moving(container: av.container.InputContainer) -> list:
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
  is_declared = _check_wav_length(file, name=name)
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
    if is_declared and stream.duration is not None:
      declared = float(stream.duration * stream.time_base)
    _check_seconds(declared, name=name, limits=limits)
    placed = _Placed(declared, name=name, limits=limits)
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


def _check_seconds(seconds: float, *, name: str, limits: Limits) -> None:
  if seconds > limits.seconds:
    raise source.BadRecording(
      source.Reason.TOO_LONG,
      f"{name}: {seconds:.1f} s, over {limits.seconds} s",
    )


class _Placed:
  """Samples that were resampled and put in their places as they came.

  Attributes:
    seconds: from the first sample to the last.
  """

  def __init__(self, declared: float, *, name: str, limits: Limits):
    self._name, self._limits = name, limits
    self._size = int((declared + 1) * clock.SAMPLE_RATE)  # room at first
    self._samples = np.zeros((0, 0), np.float32)  # [channels, room]
    self._start: int | None = None
    self._end = 0
    self._run: _Run | None = None

  @property
  def seconds(self) -> float:
    return (self._end - (self._start or 0)) / clock.SAMPLE_RATE

  def add(self, samples: np.ndarray, *, rate: int, at: float | None) -> None:
    """Appends [channels, n] at `rate` Hz, or puts them at `at` seconds."""
    if self._run is None:
      self._begin(samples, rate=rate, at=at or 0.0)
    elif rate != self._run.rate or len(samples) != len(self._samples):
      raise ValueError(
        f"its sound changes from {len(self._samples)} channels at"
        f" {self._run.rate} Hz to {len(samples)} at {rate} Hz"
      )
    elif at is not None and abs(at - self._run.end) > _JITTER:
      if at < self._run.end - _RUNS_BACK:
        raise ValueError(
          f"its time goes back from {self._run.end:.2f} to {at:.2f} s"
        )
      _check_seconds(at, name=self._name, limits=self._limits)
      self._put(self._run.finish())
      self._begin(samples, rate=rate, at=at)
    self._put(self._run.push(samples))

  def finish(self) -> np.ndarray:
    """[channels, n] of everything."""
    if self._run is not None:
      self._put(self._run.finish())
    samples = self._samples[:, : self._end]
    # What is declared may be far more than what came.
    return samples if 2 * self._end > self._size else samples.copy()

  def _begin(self, samples: np.ndarray, *, rate: int, at: float) -> None:
    if rate not in _RATES:
      raise ValueError(
        f"{rate} Hz is not between {_RATES[0]} and {_RATES[-1]} Hz"
      )
    if self._run is None:
      self._samples = np.zeros((len(samples), self._room(len(samples))), "f4")
    self._run = _Run(rate, channels=len(samples), at=at)

  def _put(self, samples: np.ndarray) -> None:
    """Writes the run's next [channels, n] at 16 kHz."""
    start = self._run.place
    end = start + samples.shape[1]
    self._run.place = end
    self._start = start if self._start is None else self._start
    _check_seconds(
      end / clock.SAMPLE_RATE, name=self._name, limits=self._limits
    )
    if end > self._size:
      self._size = end + end // 2
      room = self._room(len(samples))
      if end > room:
        raise source.BadRecording(
          source.Reason.TOO_LARGE,
          f"{self._name}: {len(samples)} channels of"
          f" {end / clock.SAMPLE_RATE:.1f} s are over {self._limits.bytes}"
          " bytes",
        )
      larger = np.zeros((len(samples), room), np.float32)
      larger[:, : self._end] = self._samples[:, : self._end]
      self._samples = larger
    self._samples[:, start:end] = samples
    self._end = max(self._end, end)

  def _room(self, channels: int) -> int:
    """Samples a channel that are allocated, at most what limits allow."""
    self._size = min(
      self._size,
      int(self._limits.seconds * clock.SAMPLE_RATE) + 1,
      self._limits.bytes // (4 * channels),
    )
    return self._size


class _Run:
  """Sound without a gap, resampled block by block.

  Attributes:
    rate: Hz of what is pushed.
    place: sample at 16 kHz where what comes next is put.
  """

  def __init__(self, rate: int, *, channels: int, at: float):
    self.rate, self._at = rate, at
    self.place = self._first = max(0, round(at * clock.SAMPLE_RATE))
    self._pushed = 0
    self._waiting: list[np.ndarray] = []
    self._resamplers = [
      av.AudioResampler(format="fltp", layout="mono", rate=clock.SAMPLE_RATE)
      for _ in range(channels)
    ]

  @property
  def end(self) -> float:
    """Seconds, by the number of samples."""
    return self._at + self._pushed / self.rate

  def push(self, samples: np.ndarray) -> np.ndarray:
    """[channels, n] at `rate` in, what is ready of it at 16 kHz out."""
    self._pushed += samples.shape[1]
    if self.rate == clock.SAMPLE_RATE:
      return samples
    self._waiting.append(samples)
    if sum(block.shape[1] for block in self._waiting) < _BLOCK:
      return samples[:, :0]
    return self._resample(is_last=False)

  def finish(self) -> np.ndarray:
    """The rest; with it the run is as long as what was pushed, rounded."""
    channels = len(self._resamplers)
    count = round(self._pushed * clock.SAMPLE_RATE / self.rate)
    count = max(count, 1) + self._first - self.place
    rest = np.zeros((channels, count), np.float32)
    if self.rate != clock.SAMPLE_RATE:
      found = self._resample(is_last=True)[:, :count]
      rest[:, : found.shape[1]] = found
    return rest

  def _resample(self, *, is_last: bool) -> np.ndarray:
    both = np.concatenate(self._waiting, axis=1) if self._waiting else None
    self._waiting = []
    return np.stack(
      [
        self._channel(i, None if both is None else both[i], is_last=is_last)
        for i in range(len(self._resamplers))
      ]
    )

  def _channel(
    self, i: int, samples: np.ndarray | None, *, is_last: bool
  ) -> np.ndarray:
    found = [np.zeros(0, np.float32)]
    if samples is not None:
      frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples[None]), format="fltp", layout="mono"
      )
      frame.sample_rate = self.rate
      found += [f.to_ndarray()[0] for f in self._resamplers[i].resample(frame)]
    if is_last:
      found += [f.to_ndarray()[0] for f in self._resamplers[i].resample(None)]
    return np.concatenate(found)


def _to_float(samples: np.ndarray, *, channels: int) -> np.ndarray:
  """FFmpeg frame (planar or interleaved) to [channels, n] float32."""
  if samples.shape[0] != channels:
    samples = samples.reshape(-1, channels).T
  if samples.dtype == np.uint8:
    return (samples.astype(np.float32) - 128) / 128
  if np.issubdtype(samples.dtype, np.integer):
    return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
  return samples.astype(np.float32)


def _check_wav_length(file: BinaryIO, *, name: str) -> bool:
  """Refuses a WAV file shorter than its header says; FFmpeg reads on.

  Programs that write to a pipe cannot know the size: they declare 0 or about
  the most, and the samples go to the end. Some recorders count the header in.

  Returns:
    Whether the header's length is one: always of other formats.
  """
  whole = file.seek(0, os.SEEK_END)
  file.seek(0)
  try:
    riff, wave = file.read(8), file.read(4)
    if riff[:4] != b"RIFF" or wave != b"WAVE":
      return True
    for _ in range(_MOST_CHUNKS):
      header = file.read(8)
      if len(header) < 8:
        break
      tag, size = struct.unpack("<4sI", header)
      if tag == b"data":
        start = file.tell()
        return _is_data_size(
          size,
          held=whole - start,
          start=start,
          is_riff_whole=struct.unpack("<I", riff[4:])[0] + 8 == whole,
          name=name,
        )
      file.seek(size + size % 2, os.SEEK_CUR)
  finally:
    file.seek(0)
  raise source.BadRecording(
    source.Reason.TRUNCATED, f"{name} ends before its samples"
  )


def _is_data_size(
  size: int, *, held: int, start: int, is_riff_whole: bool, name: str
) -> bool:
  """Whether a data chunk has the size that is declared; see above."""
  if not size:
    if is_riff_whole or not held:
      raise source.BadRecording(source.Reason.EMPTY, f"{name} has no samples")
    return False
  if size <= held:
    return True
  streamed = any(top - _STREAMED <= size < top for top in (1 << 31, 1 << 32))
  if streamed or size - held in (start, start - 8):
    return False
  raise source.BadRecording(
    source.Reason.TRUNCATED,
    f"{name} declares {size} bytes of samples and holds {held}",
  )
