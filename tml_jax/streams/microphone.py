"""What the microphone of a session hears of a recording.

For: frames, alternating turns and live users. Not for: dMel (`dmel`). Start at
`hear`.
"""

import numpy as np

from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline


def hear(timeline: Timeline, *, grid: clock.Grid) -> np.ndarray:
  """[windows, samples] float32: every track but the agent's own, added up."""
  count = grid.num_windows(timeline.duration)
  audio = np.zeros(count * grid.samples, np.float32)
  for track in timeline.tracks:
    if track.role != Role.AGENT:
      audio[: len(track.audio)] += track.audio
  return audio.reshape(count, grid.samples)
