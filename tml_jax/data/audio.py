"""Measuring mono speech: levels, and where somebody speaks.

For: the spans of recordings and their loudness. Not for: files (`media`) or
features (`streams.dmel`). Start reading at `speech_spans`.
"""

import numpy as np

from tml_jax.streams import clock
from tml_jax.streams.timeline import Span

_ACTIVITY_FRAME = clock.SAMPLE_RATE // 100  # 10 ms
_FLOOR_DB = -120.0


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
  peaks = np.maximum.reduceat(level, starts) if len(starts) else []
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


def active_level(audio: np.ndarray, spans: list[Span]) -> float:
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
