"""Media files for tests: a click and a flash at known times.

For: `tests/data/test_media.py` and tests of what reads files. Not for: speech.
Start at `write`.
"""

import dataclasses
import fractions
import struct

import av
import numpy as np

FPS = 25
CLICK = 2.0  # seconds after the start of the file, and the flash's
SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Kind:
  """A container and its codecs."""

  extension: str
  video: str
  audio: str
  rate: int = 48_000


KINDS = (
  Kind("mp4", "mpeg4", "aac"),
  Kind("mp4", "libx264", "aac", 44_100),
  Kind("mov", "mpeg4", "pcm_s16le"),
  Kind("mov", "mpeg4", "aac", 22_050),
  Kind("mkv", "mpeg4", "aac"),
  Kind("mkv", "libx264", "flac"),
  Kind("webm", "libvpx", "libopus"),
  Kind("ts", "mpeg2video", "mp2"),
  Kind("ts", "libx264", "aac"),
)


def write(
  path,
  kind: Kind,
  *,
  start: float = 0.0,
  sound_from: float = 0.0,
  pictures_from: float = 0.0,
  gap: tuple[float, float] | None = None,
) -> str:
  """Writes a clip; all times are seconds of the file, but `start`.

  Args:
    path: of the file.
    kind: of the file.
    start: what the file calls its first moment.
    sound_from, pictures_from: when these begin.
    gap: from when to when nothing was recorded, without the click.
  """
  with av.open(str(path), "w") as file:
    video = file.add_stream(kind.video, rate=FPS)
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    video.time_base = fractions.Fraction(1, FPS)
    sound = file.add_stream(kind.audio, rate=kind.rate, layout="mono")
    both = [*_pictures(start, pictures_from), *_sound(kind, start, sound_from)]
    for at, frame in sorted(both, key=lambda pair: pair[0]):
      if gap is None or not gap[0] <= at < gap[1]:
        stream = sound if isinstance(frame, av.AudioFrame) else video
        file.mux(stream.encode(frame))
    for stream in (video, sound):
      file.mux(stream.encode(None))
  return str(path)


def _pictures(start, begin):
  for i in range(round(begin * FPS), round(SECONDS * FPS)):
    shade = 235 if abs(i / FPS - CLICK) < 0.02 else 16
    image = np.full((48, 64, 3), shade, np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    frame.pts = i + round(start * FPS)
    frame.time_base = fractions.Fraction(1, FPS)
    yield i / FPS, frame


def _sound(kind, start, begin):
  size = 1024
  for i in range(
    -(-round(begin * kind.rate) // size), round(SECONDS * kind.rate) // size
  ):
    times = (np.arange(size) + i * size) / kind.rate
    inside = (times >= CLICK) & (times < CLICK + 0.02)
    samples = 0.8 * np.sin(2 * np.pi * 1000 * (times - CLICK)) * inside
    frame = av.AudioFrame.from_ndarray(
      samples[None].astype(np.float32), format="fltp", layout="mono"
    )
    frame.sample_rate = kind.rate
    frame.pts = i * size + round(start * kind.rate)
    frame.time_base = fractions.Fraction(1, kind.rate)
    yield i * size / kind.rate, frame


def turn(path, degrees: int) -> None:
  """Writes into an mp4's header by how much it is shown turned clockwise."""
  data = bytearray(open(path, "rb").read())
  at = data.index(b"tkhd") + 4 + 40  # of version 0: before the matrix
  one = 1 << 16
  a, b = {0: (one, 0), 90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
  data[at : at + 36] = struct.pack(">9i", a, b, 0, -b, a, 0, 0, 0, 1 << 30)
  open(path, "wb").write(data)


def _crc(data: bytes, *, bits: int, polynomial: int) -> int:
  value, top = 0, 1 << (bits - 1)
  for byte in data:
    value ^= byte << (bits - 8)
    for _ in range(8):
      value = (value << 1) ^ (polynomial if value & top else 0)
      value &= (1 << bits) - 1
  return value


def flac_of_silence(seconds: float, *, declared: bool, rate: int) -> bytes:
  """Twelve hours take 70 kB: a frame of 65,535 equal samples takes 14 bytes."""
  size = 65_535
  count = round(seconds * rate / size)
  total = count * size if declared else 0
  info = struct.pack(">HH", size, size) + bytes(6)
  info += (rate << 44 | 15 << 36 | total).to_bytes(8, "big") + bytes(16)
  parts = [b"fLaC\x80\0\0\x22", info]
  code = {8_000: 4, 48_000: 10}[rate]
  for i in range(count):
    header = bytes([0xFF, 0xF8, 0x70 | code, 0x08]) + _utf8(i)
    header += struct.pack(">H", size - 1)
    frame = header + bytes([_crc(header, bits=8, polynomial=0x07)]) + bytes(3)
    frame += struct.pack(">H", _crc(frame, bits=16, polynomial=0x8005))
    parts.append(frame)
  return b"".join(parts)


def _utf8(number: int) -> bytes:
  """As FLAC numbers its frames; surrogates are numbers too."""
  return chr(number).encode("utf-8", "surrogatepass")


def write_floats(path, samples, *, rate: int = 16_000) -> None:
  """A WAV of 32-bit floats, one channel."""
  data = np.asarray(samples, "<f4").tobytes()
  path.write_bytes(
    struct.pack(
      "<4sI4s4sIHHIIHH4sI",
      *(b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1),
      *(rate, 4 * rate, 4, 32, b"data", len(data)),
    )
    + data
  )
