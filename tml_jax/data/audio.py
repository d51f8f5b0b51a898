"""Decoding and measuring mono speech: files in, 16 kHz samples out.

For: sources that read audio files. Not for: features (`streams.dmel`). Start
reading at `decode`, then `utterance.build`.
"""

import dataclasses
import io
import os
import struct
from collections.abc import Sequence

import av
import numpy as np

from tml_jax.data import source
from tml_jax.streams import clock
from tml_jax.streams.timeline import Span

_ACTIVITY_FRAME = clock.SAMPLE_RATE // 100  # 10 ms
_FLOOR_DB = -120.0
_STREAMED = 0xFFFFFFFF  # bytes; what FFmpeg declares when it writes to a pipe


@dataclasses.dataclass(frozen=True)
class Recording:
  """Decoded audio as it was stored.

  Attributes:
    samples: [channels, samples] float32; full scale is 1.
    sample_rate: Hz.
  """

  samples: np.ndarray
  sample_rate: int


def decode(path: str | os.PathLike[str]) -> Recording:
  """Decodes an audio file of any format that FFmpeg knows.

  Raises:
    source.BadRecording: unreadable, empty or truncated.
  """
  name = os.path.basename(path)
  try:
    with open(path, "rb") as file:
      data = file.read()
  except OSError as error:
    raise source.BadRecording(
      source.Reason.UNREADABLE, f"{path}: {error.strerror}"
    ) from error
  if not data:
    raise source.BadRecording(source.Reason.EMPTY, f"{name} has 0 bytes")
  _check_wav_length(data, name=name)
  # The extension names the format where the data do not (G.722).
  extension = os.path.splitext(name)[1].lstrip(".").lower()
  return decode_bytes(
    data, container="g722" if extension == "g722" else None, name=name
  )


def decode_bytes(data: bytes, *, container: str | None, name: str) -> Recording:
  """Decodes a file in memory; `container` is FFmpeg's name for headerless data.

  Raises:
    source.BadRecording: unreadable, empty or truncated.
  """
  chunks = []
  try:
    with av.open(io.BytesIO(data), mode="r", format=container) as file:
      if not file.streams.audio:
        raise source.BadRecording(
          source.Reason.UNREADABLE, f"{name} has no audio stream"
        )
      stream = file.streams.audio[0]
      if stream.codec_context is None:
        raise source.BadRecording(
          source.Reason.UNREADABLE, f"{name} has a coding that nobody knows"
        )
      rate, channels = stream.rate, stream.layout.nb_channels
      declared = 0.0
      if stream.duration is not None and stream.time_base is not None:
        declared = float(stream.duration * stream.time_base)
      for frame in file.decode(stream):
        chunks.append(_to_float(frame.to_ndarray(), channels=channels))
  except (av.error.FFmpegError, ValueError) as error:
    if isinstance(error, source.BadRecording):
      raise
    raise source.BadRecording(
      source.Reason.UNREADABLE, f"{name}: {error}"
    ) from error
  if not chunks or not sum(chunk.shape[1] for chunk in chunks):
    raise source.BadRecording(source.Reason.EMPTY, f"{name} decodes to nothing")
  samples = np.concatenate(chunks, axis=1)
  seconds = samples.shape[1] / rate
  # Compressed formats round the length to a frame; 0.1 s covers all of them.
  if seconds < declared * 0.98 - 0.1:
    raise source.BadRecording(
      source.Reason.TRUNCATED,
      f"{name} declares {declared:.2f} s and holds {seconds:.2f} s",
    )
  return Recording(samples=samples, sample_rate=rate)


def _to_float(samples: np.ndarray, *, channels: int) -> np.ndarray:
  """FFmpeg frame (planar or interleaved) to [channels, n] float32."""
  if samples.shape[0] != channels:
    samples = samples.reshape(-1, channels).T
  if samples.dtype == np.uint8:
    return (samples.astype(np.float32) - 128) / 128
  if np.issubdtype(samples.dtype, np.integer):
    return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
  return samples.astype(np.float32)


def _check_wav_length(data: bytes, *, name: str) -> None:
  """Refuses a WAV file shorter than its header says; FFmpeg reads on."""
  if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
    return
  position = 12
  while position + 8 <= len(data):
    tag, size = struct.unpack_from("<4sI", data, position)
    if tag == b"data":
      held = len(data) - position - 8
      if size > held and size != _STREAMED:
        raise source.BadRecording(
          source.Reason.TRUNCATED,
          f"{name} declares {size} bytes of samples and holds {held}",
        )
      return
    position += 8 + size + size % 2
  raise source.BadRecording(
    source.Reason.TRUNCATED, f"{name} ends before its samples"
  )


def resample(samples: np.ndarray, *, sample_rate: int) -> np.ndarray:
  """[n] float32 at `sample_rate` to 16 kHz, with FFmpeg's resampler."""
  if sample_rate == clock.SAMPLE_RATE:
    return samples
  resampler = av.AudioResampler(
    format="flt", layout="mono", rate=clock.SAMPLE_RATE
  )
  frame = av.AudioFrame.from_ndarray(
    np.ascontiguousarray(samples[None], np.float32),
    format="flt",
    layout="mono",
  )
  frame.sample_rate = sample_rate
  frames = [*resampler.resample(frame), *resampler.resample(None)]
  return np.concatenate([f.to_ndarray()[0] for f in frames])


def decibels(power: np.ndarray | float) -> np.ndarray:
  """10 log10 with a floor of -120 dB."""
  return 10 * np.log10(np.maximum(power, 10 ** (_FLOOR_DB / 10)))


def speech_spans(audio: np.ndarray, *, min_gap: float = 0.2) -> list[Span]:
  """Speech activity by energy with hysteresis, to 10 ms.

  A frame starts speech when it is within 32 dB of the loud frames (their 95th
  percentile) and keeps it up within 40 dB; both thresholds rise with the noise
  floor of the recording. A gap shorter than `min_gap` seconds does not split,
  and 30 ms alone are a click, not speech.

  Args:
    audio: [n] float32 at 16 kHz.
    min_gap: seconds.
  """
  count = -(-len(audio) // _ACTIVITY_FRAME)
  if not count:
    return []
  padded = np.zeros(count * _ACTIVITY_FRAME, np.float32)
  padded[: len(audio)] = audio
  power = np.square(padded.reshape(count, -1)).mean(axis=1)
  level = decibels(power)
  loud = np.percentile(level, 95)
  if loud < -60:  # dBFS: nothing but noise of the coder
    return []
  floor = min(np.percentile(level, 5), loud - 34)
  keep = max(loud - 40, floor + 6)
  starts, ends = _runs(level > keep)
  if not len(starts):
    return []
  peaks = np.maximum.reduceat(level, starts)
  runs = [
    (start, end)
    for start, end, peak in zip(starts, ends, peaks, strict=True)
    if peak > keep + 8 and end - start > 3
  ]
  merged: list[tuple[int, int]] = []
  for start, end in runs:
    if merged and (start - merged[-1][1]) * 0.01 < min_gap - 1e-9:
      merged[-1] = (merged[-1][0], end)
    else:
      merged.append((start, end))
  limit = len(audio) / clock.SAMPLE_RATE
  return [Span(s * 0.01, min(e * 0.01, limit)) for s, e in merged]


def _runs(active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Starts and ends (exclusive) of the runs of True."""
  edges = np.diff(np.concatenate([[0], active.astype(np.int8), [0]]))
  return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def active_level(audio: np.ndarray, spans: Sequence[Span]) -> float:
  """RMS level in dBFS of the samples inside `spans`."""
  parts = [
    audio[
      round(span.start * clock.SAMPLE_RATE) : round(
        span.end * clock.SAMPLE_RATE
      )
    ]
    for span in spans
  ]
  return float(decibels(np.square(np.concatenate(parts)).mean()))
