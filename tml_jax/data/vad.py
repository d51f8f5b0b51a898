"""Voice-activity detection: is somebody speaking, every few milliseconds?

For: the turn-based baseline, its data (`data.turns`) and its sessions
(`evals.turn_based`). Not for: an interaction model, which decides itself, or
for annotating recordings (`data.audio`). Start at `Vad`; `VADS` has them by
name.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from tml_jax.config import Detector
from tml_jax.data import audio as audio_lib
from tml_jax.data import silero
from tml_jax.streams import clock

# Bounds of the noise, dBFS in its band: digital silence, and a room in which
# speech as loud as the corpora's is still heard.
_LOWEST, _HIGHEST = -70.0, -35.0


class Vad(Protocol):
  """Hears one stream of sound, in order.

  Attributes:
    hop: samples from frame to frame.
  """

  hop: int

  def push(self, samples: np.ndarray) -> np.ndarray:
    """[n] bool of the frames that `samples` completed.

    Args:
      samples: [any] float32 at 16 kHz.
    """


class EnergyVad:
  """Level above the noise, with hysteresis.

  Levels are of 10 ms, from 300 to 3,400 Hz: there is less of rooms and as much
  of speech. The noise is the lowest mean level of `_SMOOTH` frames in
  the last `_MEMORY` (minimum statistics: R. Martin, IEEE Trans. Speech Audio
  Process. 9, 2001), within bounds; it rises slowly, so that a long sentence
  does not become the noise. Speech starts `START_DB` above it and goes
  on `KEEP_DB` above it; it lasts `HANGOVER` frames longer, over stops in words.
  """

  hop = clock.SAMPLE_RATE // 100
  START_DB = 13.0
  KEEP_DB = 6.0
  HANGOVER = 10
  _SMOOTH = 40
  _MEMORY = 300
  _RISE_DB = 3.0  # a second
  _BAND = slice(3, 35)  # of 100 Hz each

  def __init__(self) -> None:
    self._rest = np.zeros(0, np.float32)
    self._powers = np.zeros(0)
    self._means = np.zeros(0)
    self._noise = _HIGHEST
    self._left = 0  # frames for which speech goes on by itself

  def push(self, samples: np.ndarray) -> np.ndarray:
    frames, self._rest = _frames(self._rest, samples, self.hop)
    window = np.hanning(self.hop)
    band = np.fft.rfft(frames * window, axis=1)[:, self._BAND]
    powers = 2 * np.square(np.abs(band)).sum(axis=1)
    powers /= self.hop * np.square(window).sum()
    known = len(self._powers)
    self._powers = np.concatenate([self._powers, powers])
    sums = np.cumsum(np.concatenate([[0.0], self._powers]))
    ends = np.arange(known, len(self._powers)) + 1
    starts = np.maximum(ends - self._SMOOTH, 0)
    means = (sums[ends] - sums[starts]) / (ends - starts)
    self._powers = self._powers[-self._SMOOTH :]
    self._means = np.concatenate([self._means, means])[-self._MEMORY :]
    lowest = float(audio_lib.decibels(self._means.min(initial=np.inf)))
    most = self._noise + self._RISE_DB * len(samples) / clock.SAMPLE_RATE
    self._noise = min(max(min(lowest, most), _LOWEST), _HIGHEST)
    above = audio_lib.decibels(powers) - self._noise
    return np.array([self._is_speech(level) for level in above], bool)

  def _is_speech(self, above: float) -> bool:
    if above >= self.START_DB or (self._left and above >= self.KEEP_DB):
      self._left = self.HANGOVER
    else:
      self._left = max(0, self._left - 1)
    return self._left > 0


class SileroVad:
  """Threshold on the speech probability of Silero's network, 32 ms a frame."""

  hop = silero.HOP

  def __init__(self) -> None:
    """Loads the network.

    Raises:
      errors.UserError: the package that holds it is not installed.
    """
    self._network = silero.Network(
      flag="--config.turns.vad=silero", instead="take --config.turns.vad=energy"
    )
    self._rest = np.zeros(0, np.float32)

  def push(self, samples: np.ndarray) -> np.ndarray:
    frames, self._rest = _frames(self._rest, samples, self.hop)
    return np.array([self._network.push(frame) for frame in frames], bool)


VADS: dict[Detector, Callable[[], Vad]] = {
  Detector.ENERGY: EnergyVad,
  Detector.SILERO: SileroVad,
}


def create(detector: Detector) -> Vad:
  """A new one.

  Raises:
    errors.UserError: its package is missing.
  """
  return VADS[detector]()


def _frames(
  rest: np.ndarray, samples: np.ndarray, hop: int
) -> tuple[np.ndarray, np.ndarray]:
  """Whole frames [n, hop] of what was left and what came, and what is left."""
  both = np.concatenate([rest, np.asarray(samples, np.float32)])
  whole = len(both) // hop * hop
  return both[:whole].reshape(-1, hop), both[whole:]
