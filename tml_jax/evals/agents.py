"""Agents without a model, scored like one: what the numbers of a model mean.

For: columns beside a model's in every report: a metric that rewards nonsense
shows there. Not for: baselines that listen. Start reading at `AGENTS`.
"""

from collections.abc import Callable

import numpy as np

from tml_jax.logs import observe, ticks
from tml_jax.streams import annotation, clock
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Timeline


def recorded(timeline: Timeline) -> ticks.Log:
  """Says what the recorded agent says: the best there is."""
  return observe.from_activity(
    timeline, agent=observe.recorded_activity(timeline), says_recording=True
  )


def silent(timeline: Timeline) -> ticks.Log:
  """Never says anything."""
  count = clock.TICKS.num_windows(timeline.duration)
  return observe.from_activity(timeline, agent=np.zeros(count, bool))


def always_talking(timeline: Timeline) -> ticks.Log:
  """Talks from the first window it can to the last."""
  count = clock.TICKS.num_windows(timeline.duration)
  return observe.from_activity(timeline, agent=np.arange(count) > 0)


AGENTS: dict[str, Callable[[Timeline], ticks.Log]] = {
  "recorded": recorded,
  "silent": silent,
  "always talking": always_talking,
}


def oracle(timeline: Timeline) -> ticks.Log:
  """Does what is asked as soon as a model could, where nothing is recorded.

  Speaks from the window after a turn's end up to the end of the window after
  the one in which the user takes the floor again; nothing else moves it.
  """
  count = clock.TICKS.num_windows(timeline.duration)
  agent = np.zeros(count, bool)
  asked = annotation.of(timeline)
  taken = [a.start for a in asked if a.kind in (Kind.TURN, Kind.BARGE_IN)]
  for turn in (a for a in asked if a.kind == Kind.TURN):
    later = [start for start in taken if start >= turn.end]
    stop = clock.TICKS.window_of(min(later)) + 1 if later else count
    agent[clock.TICKS.num_windows(turn.end) : stop] = True
  return observe.from_activity(timeline, agent=agent)
