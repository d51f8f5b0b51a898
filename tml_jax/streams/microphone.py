"""What the microphone of a session hears of a recording.

For: frames, alternating turns and live users. Not for: dMel (`dmel`). Start at
`hear`.
"""

import numpy as np

from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline


def hear(
  timeline: Timeline, *, grid: clock.Grid, windows: range | None = None
) -> np.ndarray:
  """[windows, samples] float32: every track but the agent's own, added up.

  Args:
    timeline: the recording.
    grid: of the windows.
    windows: neighbours; those of the whole recording if not given. Where it
      has ended there is silence.
  """
  if windows is None:
    windows = range(grid.num_windows(timeline.duration))
  first, stop = windows.start * grid.samples, windows.stop * grid.samples
  audio = np.zeros(stop - first, np.float32)
  for track in timeline.tracks:
    if track.role != Role.AGENT:
      part = track.audio[first:stop]
      audio[: len(part)] += part
  return audio.reshape(len(windows), grid.samples)
