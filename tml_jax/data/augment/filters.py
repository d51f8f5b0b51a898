"""Filters whose output depends on the place in the recording alone.

For: rooms, microphones and bands. Not for: what is drawn. Start at `convolve`.
Rounding of an FFT depends on everything in its block. So blocks begin at
multiples of their length in the recording: a stretch gives the bits of the
whole, `reach` seconds from where its sound begins.
"""

import numpy as np

from tml_jax.streams import clock

_SMALLEST = 4096


def _fft_size(taps: int) -> int:
  return max(_SMALLEST, 1 << (4 * taps - 1).bit_length())


def reach(taps: int) -> float:
  """Seconds around a moment on whose sound the bits of it depend."""
  return _fft_size(taps) / clock.SAMPLE_RATE


def convolve(
  samples: np.ndarray, *, taps: np.ndarray, first: int, centre: int
) -> np.ndarray:
  """[n] float32: `samples` through a filter, by overlap-save.

  Args:
    samples: [n] float32, silent before and behind.
    taps: [m] of the filter.
    first: number in the recording of sample 0.
    centre: the tap that lies on the sample itself: the delay that is taken off.
  """
  count = len(taps)
  size = _fft_size(count)
  block = size - count + 1
  spectrum = np.fft.rfft(taps.astype(np.float32), size)
  result = np.empty(len(samples), np.float32)
  begin = first // block * block
  for at in range(begin, first + len(samples), block):
    # Outputs [at, at + block) need inputs from so many samples earlier.
    start = at - first + centre - (count - 1)
    piece = np.zeros(size, np.float32)
    low, high = max(0, start), min(len(samples), start + size)
    if low < high:
      piece[low - start : high - start] = samples[low:high]
    out = np.fft.irfft(np.fft.rfft(piece) * spectrum, size)[count - 1 :]
    low, high = max(0, at - first), min(len(samples), at - first + block)
    result[low:high] = out[low - (at - first) : high - (at - first)]
  return result


def band(low: float, high: float, *, taps: int, rate: int) -> np.ndarray:
  """[taps] float64, odd and symmetric: passes `low` to `high` Hz.

  A windowed sinc (Blackman): -6 dB at both edges, 5.5 * rate / taps Hz from
  passing to -74 dB.
  """
  times = np.arange(taps) - taps // 2
  ideal = 2 * high / rate * np.sinc(2 * high / rate * times)
  if low > 0:
    ideal -= 2 * low / rate * np.sinc(2 * low / rate * times)
  return ideal * np.blackman(taps)


def shaped(
  frequencies: np.ndarray, *, decibels: np.ndarray, taps: int
) -> np.ndarray:
  """[taps] float64, odd and symmetric, with these gains at 16 kHz.

  Args:
    frequencies: [k] Hz, ascending, above 0.
    decibels: [k]; between them it is linear in octaves.
    taps: odd.
  """
  bins = np.fft.rfftfreq(2 * _SMALLEST, 1 / clock.SAMPLE_RATE)
  octaves = np.log2(np.maximum(bins, frequencies[0]))
  gains = np.interp(octaves, np.log2(frequencies), decibels)
  response = np.fft.irfft(10 ** (gains / 20))
  centred = np.roll(response, taps // 2)[:taps]
  return centred * np.hanning(taps + 2)[1:-1]
