"""What a run of the agent's speech is: the one definition of all metrics.

For: activity in ticks as runs, with short gaps closed. Not for: what a run
was asked for by (`heard`). Start reading at `closed`.
"""

import numpy as np

from tml_jax.streams import clock

# A shorter silence parts no runs: what Full-Duplex-Bench v1.5 (arXiv
# 2507.23159) joins of a model's speech. Two ticks.
GAP_SECONDS = 0.5
GAP_TICKS = int(GAP_SECONDS / clock.TICKS.seconds)


def runs_of(active: np.ndarray) -> list[tuple[int, int]]:
  """[first, stop) of every row of true values. `active` is [ticks] bool."""
  edges = np.diff(np.concatenate([[0], active.astype(int), [0]]))
  starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
  return list(zip(starts.tolist(), stops.tolist(), strict=True))


def closed(active: np.ndarray) -> np.ndarray:
  """[ticks] bool, `active` with gaps of at most `GAP_TICKS` filled."""
  result = active.copy()
  runs = runs_of(active)
  for (_, stop), (first, _) in zip(runs[:-1], runs[1:], strict=True):
    if first - stop <= GAP_TICKS:
      result[stop:first] = True
  return result
