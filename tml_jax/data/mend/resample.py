"""Sound at other times: shifted, and stretched by any factor.

For: channels that run at another rate or begin at another time. Not for: files
of common rates (`placing`). Start reading at `warped`.
"""

import functools

import numpy as np

from tml_jax.streams import clock

_ZEROS = 16  # of the sinc to each side
_PHASES = 512  # of the table, between which is interpolated
_BETA = 9.0  # of the Kaiser window: what is folded back is below -85 dB
_PART = 1 << 15  # samples that are made at once


def warped(
  audio: np.ndarray, *, factor: float, shift: float, samples: int
) -> np.ndarray:
  """[samples] float32: the sound at times t * factor + shift.

  Windowed sinc interpolation (J. O. Smith, "Digital Audio Resampling"); above
  a factor of 1 the sinc is stretched, so that nothing is folded back.

  Args:
    audio: [n] float32 at 16 kHz; silence before and after it.
    factor: above 0.
    shift: seconds.
    samples: to make.
  """
  table = _table(max(1.0, round(factor, 2)))
  half = table.shape[1] // 2
  padded = np.concatenate(
    [np.zeros(half, np.float32), audio, np.zeros(half, np.float32)]
  )
  result = np.zeros(samples, np.float32)
  taps = np.arange(2 * half)
  for first in range(0, samples, _PART):
    number = np.arange(first, min(first + _PART, samples))
    at = number * factor + shift * clock.SAMPLE_RATE
    whole = np.floor(at).astype(np.int64)
    inside = (whole > -half) & (whole < len(audio) + half - 1)
    at, whole = at[inside], whole[inside]
    if not len(at):
      continue
    place = (at - whole) * _PHASES
    phase = np.minimum(place.astype(np.int64), _PHASES - 1)
    part = (place - phase).astype(np.float32)[:, None]
    weights = table[phase] * (1 - part) + table[phase + 1] * part
    # Tap k stands at whole - half + 1 + k, of the padded at one half more.
    where = np.clip(whole[:, None] + 1 + taps, 0, len(padded) - 1)
    result[number[inside]] = np.einsum("nk,nk->n", padded[where], weights)
  return result


@functools.lru_cache(8)
def _table(stretch: float) -> np.ndarray:
  """[phases + 1, taps] float32 of sinc(x / stretch) under a Kaiser window."""
  half = int(np.ceil(_ZEROS * stretch))
  phase = np.arange(_PHASES + 1)[:, None] / _PHASES
  away = np.arange(2 * half)[None] - half + 1 - phase
  inside = np.clip(1 - np.square(away / half), 0, None)
  window = np.i0(_BETA * np.sqrt(inside)) / np.i0(_BETA)
  found = np.sinc(away / stretch) * window
  return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)
