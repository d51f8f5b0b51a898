"""Coded sound of clients <-> 16-bit samples at 16 kHz, as it streams.

For: `Decoder` and `Encoder`, one of each for a connection. Not for: when the
samples are heard (`ear`). Rates are changed by FFmpeg's swresample (PyAV), in
which a stream may be cut anywhere; G.711 is a table (ITU-T G.711, 1988).
Start at `Format`.
"""

import dataclasses

import av
import numpy as np

from tml_jax.streams import clock

_BIAS = 132  # of u-law, in 16-bit samples
_CLIP = 32635


@dataclasses.dataclass(frozen=True)
class Format:
  """How a client codes sound, mono.

  Attributes:
    name: `audio/pcm` (16 bits, little endian), `audio/pcmu` or `audio/pcma`.
    rate: samples a second.
  """

  name: str
  rate: int

  @property
  def width(self) -> int:
    """Bytes of a sample."""
    return 2 if self.name == "audio/pcm" else 1

  def to_json(self) -> dict[str, str | int]:
    if self.name == "audio/pcm":
      return {"type": self.name, "rate": self.rate}
    return {"type": self.name}


PCM_24, PCM_16 = Format("audio/pcm", 24_000), Format("audio/pcm", 16_000)
PCMU, PCMA = Format("audio/pcmu", 8_000), Format("audio/pcma", 8_000)
FORMATS = (PCM_24, PCM_16, PCMU, PCMA)


def of_json(value: dict[str, str | int]) -> Format:
  """The format whose `to_json` this is.

  Raises:
    ValueError: there is none.
  """
  for form in FORMATS:
    if form.to_json() == value:
      return form
  raise ValueError(f"{value!r:.80} is no format")


def _ulaw_table() -> np.ndarray:
  """[256] int16, the sample of each byte of u-law."""
  code = ~np.arange(256, dtype=np.int32) & 0xFF
  exponent, mantissa = (code >> 4) & 7, code & 15
  size = (((mantissa << 3) + _BIAS) << exponent) - _BIAS
  return np.where(code & 0x80, -size, size).astype(np.int16)


def _alaw_table() -> np.ndarray:
  """[256] int16, the sample of each byte of A-law."""
  code = np.arange(256, dtype=np.int32) ^ 0x55
  exponent, mantissa = (code >> 4) & 7, code & 15
  size = np.where(
    exponent == 0,
    (mantissa << 4) + 8,
    ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0),
  )
  return np.where(code & 0x80, size, -size).astype(np.int16)


def _inverse(table: np.ndarray) -> np.ndarray:
  """[65536] uint8, the byte whose sample is nearest; the index is unsigned."""
  order = np.argsort(table, kind="stable")
  levels = table[order].astype(np.int32)
  middles = (levels[1:] + levels[:-1] + 1) // 2
  samples = np.arange(-32768, 32768)
  codes = order[np.searchsorted(middles, samples, side="right")]
  return np.roll(codes.astype(np.uint8), -32768)


_TABLES = {PCMU.name: _ulaw_table(), PCMA.name: _alaw_table()}
_INVERSES = {name: _inverse(table) for name, table in _TABLES.items()}


class Resampler:
  """16-bit samples of one rate to another; the stream may be cut anywhere."""

  def __init__(self, *, rate_in: int, rate_out: int):
    self._rate_in = rate_in
    self._inner: av.AudioResampler | None = None
    if rate_in != rate_out:
      self._inner = av.AudioResampler(
        format="s16", layout="mono", rate=rate_out
      )

  def push(self, samples: np.ndarray) -> np.ndarray:
    """[m] int16 that are known after [n] int16 more."""
    if self._inner is None or not len(samples):
      return samples
    frame = av.AudioFrame.from_ndarray(
      samples[None], format="s16", layout="mono"
    )
    frame.sample_rate = self._rate_in
    return _joined(self._inner.resample(frame))

  def flush(self) -> np.ndarray:
    """[m] int16: the rest, as if silence followed; then it starts anew."""
    if self._inner is None:
      return np.zeros(0, np.int16)
    rest = _joined(self._inner.resample(None))
    self._inner = av.AudioResampler(
      format="s16", layout="mono", rate=self._inner.rate
    )
    return rest


def _joined(frames: list[av.AudioFrame]) -> np.ndarray:
  parts = [np.zeros(0, np.int16)]
  return np.concatenate(parts + [frame.to_ndarray()[0] for frame in frames])


class Decoder:
  """A client's bytes to samples that a session can hear."""

  def __init__(self, form: Format):
    self.form = form
    self._resampler = Resampler(rate_in=form.rate, rate_out=clock.SAMPLE_RATE)

  def push(self, data: bytes) -> np.ndarray:
    """[n] int16 at 16 kHz.

    Raises:
      ValueError: half a sample.
    """
    if len(data) % self.form.width:
      raise ValueError(
        f"{len(data)} bytes are no whole samples of {self.form.width} bytes"
      )
    if self.form.name in _TABLES:
      samples = _TABLES[self.form.name][np.frombuffer(data, np.uint8)]
    else:
      samples = np.frombuffer(data, "<i2").astype(np.int16)
    return self._resampler.push(samples)


class Encoder:
  """The agent's samples to a client's bytes."""

  def __init__(self, form: Format):
    self.form = form
    self._resampler = Resampler(rate_in=clock.SAMPLE_RATE, rate_out=form.rate)

  def push(self, samples: np.ndarray) -> bytes:
    """Bytes that are known after [n] float more, -1..1 at 16 kHz."""
    return self._code(self._resampler.push(to_pcm(samples)))

  def flush(self) -> bytes:
    """The rest of a stretch of sound."""
    return self._code(self._resampler.flush())

  def _code(self, samples: np.ndarray) -> bytes:
    if self.form.name in _INVERSES:
      codes = _INVERSES[self.form.name][samples.view(np.uint16)]
      return bytes(codes.tobytes())
    return samples.astype("<i2").tobytes()


def to_pcm(samples: np.ndarray) -> np.ndarray:
  """[n] int16 of floats in -1..1; `to_float` gives back what is a step."""
  return np.clip(np.round(samples * 32768.0), -32768, 32767).astype(np.int16)


def to_float(samples: np.ndarray) -> np.ndarray:
  """[n] float32 of int16, as files of sound are read."""
  return samples.astype(np.float32) / np.float32(32768)
