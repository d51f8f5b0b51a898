"""Agents without a model, scored like one: what the numbers of a model mean.

For: columns beside a model's in the table of `evaluate`. Not for: baselines
that listen.
"""

import numpy as np

from tml_jax.evals import reply
from tml_jax.streams import clock, framing
from tml_jax.streams.timeline import Role, Timeline


def silent(timeline: Timeline) -> np.ndarray:
  """Never says anything."""
  return np.zeros(clock.num_windows(timeline.duration), bool)


def always_talking(timeline: Timeline) -> np.ndarray:
  """Talks from the first window it can to the last."""
  return np.arange(clock.num_windows(timeline.duration)) > 0


def recorded(timeline: Timeline) -> np.ndarray:
  """Says what the recorded agent says: the best there is."""
  result = silent(timeline)
  windows = framing.speech_windows(timeline.track(Role.AGENT))
  result[[w for w in windows if w < len(result)]] = True
  return result


AGENTS = {
  "recorded": recorded,
  "silent": silent,
  "always talking": always_talking,
}


def summaries(timelines: list[Timeline]) -> dict[str, dict[str, float]]:
  """`reply.summarise` of every dummy."""
  return {
    name: reply.summarise(
      [
        reply.score(agent(t), exchanges=t.metadata["exchanges"])
        for t in timelines
      ]
    )
    for name, agent in AGENTS.items()
  }
