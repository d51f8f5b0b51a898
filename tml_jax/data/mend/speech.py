"""Spans of speech by Silero's network, for tracks that have none of their own.

For: `prepare --annotate=speech`. Not for: spans by level (`audio`), which every
importer measures where the format has none. Start reading at `spans`.
"""

import functools

import numpy as np

from tml_jax.data import silero
from tml_jax.streams import clock
from tml_jax.streams.timeline import Span

# As Silero's own `get_speech_timestamps` has them by default.
_LEAST_GAP = 0.1  # seconds of silence that end a span
_LEAST = 0.25  # seconds of a span
_PAD = 0.03  # seconds before and after


def check() -> None:
  """Loads the network.

  Raises:
    errors.UserError: its package is not installed.
  """
  _network()


def spans(audio: np.ndarray) -> tuple[Span, ...]:
  """When somebody speaks in [n] float32 at 16 kHz, to 32 ms."""
  network = _network()
  network.reset()
  whole = -(-len(audio) // silero.HOP) * silero.HOP
  frames = np.pad(audio, (0, whole - len(audio))).reshape(-1, silero.HOP)
  active = np.array([network.push(frame) for frame in frames], np.int8)
  edges = np.diff(np.concatenate([[0], active, [0]]))
  step, end = silero.HOP / clock.SAMPLE_RATE, len(audio) / clock.SAMPLE_RATE
  merged: list[list[float]] = []
  for first, last in zip(
    np.flatnonzero(edges == 1) * step,
    np.flatnonzero(edges == -1) * step,
    strict=True,
  ):
    if merged and first - merged[-1][1] < _LEAST_GAP:
      merged[-1][1] = float(last)
    else:
      merged.append([float(first), float(last)])
  return tuple(
    Span(max(0.0, first - _PAD), min(last + _PAD, end))
    for first, last in merged
    if last - first >= _LEAST
  )


@functools.cache
def _network() -> silero.Network:
  return silero.Network(
    flag="--annotate=speech", instead="leave speech out of it"
  )
