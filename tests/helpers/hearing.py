"""A detector without errors, for tests of turns at the precision of a tick."""

import numpy as np

from tml_jax.streams.timeline import Role, Timeline


class Spans:
  """Hears what the spans of a recording say, to 10 ms."""

  hop = 160

  def __init__(self, timeline: Timeline):
    tracks = [t for t in timeline.tracks if t.role != Role.AGENT]
    self._spans = [span for track in tracks for span in track.spans]
    self._window = 0

  def push(self, samples: np.ndarray) -> np.ndarray:
    del samples
    times = 0.2 * self._window + 0.01 * np.arange(20) + 0.005
    self._window += 1
    inside = [(times > s.start) & (times < s.end) for s in self._spans]
    return np.any(inside, axis=0) if inside else np.zeros(20, bool)
