"""Windows of the user's sound that never come, or too late.

For: `data.augment=lost:...` and `late:...`. Start at `Lost`. An absent window
is one without a microphone, `Timeline.muted`, which is not silence. The clock
runs on: what comes too late is not heard later.
"""

import dataclasses

import numpy as np

from tml_jax.data import options as options_lib
from tml_jax.data.augment import TRANSFORMS, transform
from tml_jax.streams import clock
from tml_jax.streams.timeline import Span, Timeline


@TRANSFORMS.register("lost")
class Lost(transform.Transform):
  """A share `rate` of the windows is absent, each by itself."""

  OPTIONS = {"rate": "0.01..0.05"}

  def __init__(self, options: options_lib.Options):
    self._rate = options.range("rate", low=0, high=1)

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    count = around.grid.num_windows(timeline.duration)
    rate = self._rate.draw(random)
    return _absent(timeline, random.random(count) < rate, grid=around.grid)


@TRANSFORMS.register("late")
class Late(transform.Transform):
  """The line stalls `rate` times a minute, for `stall` seconds each time.

  The windows of a stall come too late and are absent. Stalls begin at random
  (a Poisson process).
  """

  OPTIONS = {"rate": "0.5..2", "stall": "0.4..2"}

  def __init__(self, options: options_lib.Options):
    self._rate = options.range("rate", low=0, high=60)
    self._stall = options.range("stall", low=0, high=60)

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    grid = around.grid
    count = grid.num_windows(timeline.duration)
    stalls = random.poisson(self._rate.draw(random) * timeline.duration / 60)
    absent = np.zeros(count, bool)
    for start in random.uniform(0, timeline.duration, stalls):
      first = grid.window_of(start)
      absent[first : first + grid.num_windows(self._stall.draw(random))] = True
    return _absent(timeline, absent, grid=grid)


def _absent(
  timeline: Timeline, absent: np.ndarray, *, grid: clock.Grid
) -> Timeline:
  """The timeline without a microphone in [windows] of `grid`, too."""
  transform.microphone(timeline)  # or nothing is heard anyway
  edges = np.flatnonzero(np.diff(np.concatenate([[0], absent, [0]])))
  spans = [
    Span(
      float(first * grid.seconds),
      min(float(stop * grid.seconds), timeline.duration),
    )
    for first, stop in edges.reshape(-1, 2)
  ]
  merged: list[Span] = []
  for span in sorted([*timeline.muted, *spans], key=lambda span: span.start):
    if merged and span.start <= merged[-1].end:
      end = max(merged[-1].end, span.end)
      merged[-1] = Span(merged[-1].start, end)
    else:
      merged.append(span)
  return dataclasses.replace(timeline, muted=tuple(merged))
