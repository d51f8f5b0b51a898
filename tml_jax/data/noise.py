"""Background noise for the user's microphone.

For: stationary noise of three colours by offset into a loop. Not for: babble,
which is made of the corpus itself (`scenarios.reply`).
"""

import enum
import functools

import numpy as np

from tml_jax.streams import clock

_LOOP = 1 << 19  # samples, 33 s
_LOWEST = 20.0  # Hz, below which pink and brown noise stop rising


class Colour(enum.StrEnum):
  WHITE = "white"
  PINK = "pink"  # power falls by 3 dB an octave
  BROWN = "brown"  # by 6 dB


_EXPONENTS = {Colour.WHITE: 0.0, Colour.PINK: 0.5, Colour.BROWN: 1.0}


def take(colour: Colour, *, count: int, offset: int) -> np.ndarray:
  """[count] float32 of unit RMS, starting `offset` samples into the loop."""
  loop = _loop(colour)
  return np.resize(np.roll(loop, -offset) if offset else loop, count)


@functools.cache
def _loop(colour: Colour) -> np.ndarray:
  """One period; the spectrum is shaped, so its ends meet without a click."""
  random = np.random.Generator(np.random.Philox(list(Colour).index(colour)))
  spectrum = np.fft.rfft(random.standard_normal(_LOOP))
  frequencies = np.fft.rfftfreq(_LOOP, 1 / clock.SAMPLE_RATE)
  spectrum /= np.maximum(frequencies, _LOWEST) ** _EXPONENTS[colour]
  spectrum[0] = 0
  samples = np.fft.irfft(spectrum, n=_LOOP)
  return (samples / samples.std()).astype(np.float32)
