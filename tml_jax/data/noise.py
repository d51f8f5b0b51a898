"""Background noise for the user's microphone.

For: stationary noise of three colours by offset into a loop, and babble of
recordings that are given. Not for: how loud it is. Start at `take`.
"""

import enum
import functools
from collections.abc import Callable

import numpy as np

from tml_jax.streams import clock

_LOOP = 1 << 19  # samples, 33 s
_BABBLE_VOICES = 4
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


def babble(
  count: int,
  *,
  utterance: Callable[[], np.ndarray],
  random: np.random.Generator,
) -> np.ndarray:
  """[count] float32 of unit RMS: a few people at once.

  Args:
    count: samples.
    utterance: draws [n] float32 of somebody, from `random`.
    random: says where each of them begins.
  """
  total = np.zeros(count, np.float32)
  for _ in range(_BABBLE_VOICES):
    pieces, length = [], -int(random.integers(clock.SAMPLE_RATE))
    while length < count:
      pieces.append(utterance())
      length += len(pieces[-1])
    talk = np.concatenate(pieces)
    total += talk[len(talk) - count :]
  return total / np.sqrt(np.mean(np.square(total)))


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
