"""The summary score: one number that a reader can quote.

For: what an agent is worth on a set of users, 0 to 100. Not for: finding out
what is wrong with it (`panel`). Start at `summary`.
"""

import numpy as np

from tml_jax.evals.metrics import chances, floor
from tml_jax.streams.annotation import Kind

# Unasked speech a minute that halves what an agent gets for being quiet: a
# tenth of the time. People who talk that much unasked are left by everybody.
HALF_SECONDS = 6.0
_HOLDS = ("yielded", *floor.SELECTIVE.values())
_TAKES = ("takeover",)  # of these, less is better
_QUIET = "unasked_seconds"


def series(kinds: tuple[Kind, ...]) -> tuple[str, ...]:
  """What a score counts, of which kinds of what is due."""
  words = (f"right_{kind}" for kind in kinds)
  return (*events(kinds), *words, *_HOLDS, *_TAKES, _QUIET)


def events(kinds: tuple[Kind, ...]) -> tuple[str, ...]:
  """Of the series, those whose events a score is said to count."""
  return tuple(f"done_{kind}" for kind in kinds)


def summary(
  shares: dict[str, np.ndarray], *, kinds: tuple[Kind, ...] = chances.DUE
) -> np.ndarray:
  """The harmonic mean, times 100, of four sides of an agent.

    acts    the share of what was due that was done in time, kind by kind
            (`done_KIND`)
    words   the share that was done in time and with the right words, kind by
            kind (`right_KIND`)
    holds   yields to a barge-in; unmoved by backchannels, vocal tics, side talk
            and background; no taking over in a pause: the mean of their shares
    quiet   1 / (1 + u / `HALF_SECONDS`), u the seconds of unasked speech a
            minute

  Within acts and words every kind counts alike, however many events it has: a
  table with more turns is no reason to count without ability. A side without
  events is left out, of all agents alike but for yields and backchannels, which
  ask for speech to be interrupted. Without anything due there is no score:
  recorded conversations have none, as nothing says what is due in them. Of 16
  calls an energy echo took 99 % of the recorded changes of floor, and a clock
  all.

  Why harmonic, as F1 is of precision and recall: it is never above four times
  the least side, so that no agent wins by one side alone. Silence is
  quiet and holds, and does nothing: 0. Talking always, or on a clock, leaves
  nothing in time, as what is spoiled by earlier speech is not done: 0, or
  almost. Speech at the right times without words stays near 0, and right words
  a second late are not in time. The recorded agent has 100 by definition,
  within what the families ask of it.

  Args:
    shares: [R] of each of `series(kinds)`, a row a resample; NaN without
      events.
    kinds: of what is due; `chances.EITHER` compares an interaction model with
      one behind a turn detector by what both can have.

  Returns:
    [R] scores; NaN where nothing was due.
  """
  found = sides(shares, kinds=kinds)
  with np.errstate(divide="ignore"):
    mean = 1 / _mean([1 / np.maximum(side, 0.0) for side in found.values()])
  return np.where(np.isnan(found["acts"]), np.nan, 100 * mean)


def sides(
  shares: dict[str, np.ndarray], *, kinds: tuple[Kind, ...] = chances.DUE
) -> dict[str, np.ndarray]:
  """[R] acts, words, holds and quiet of `summary`, 0 to 1; NaN without any."""
  return {
    "acts": _mean([shares[f"done_{kind}"] for kind in kinds]),
    "words": _mean([shares[f"right_{kind}"] for kind in kinds]),
    "holds": _mean(
      [shares[name] for name in _HOLDS] + [1 - shares[name] for name in _TAKES]
    ),
    # Where nobody says what is unasked, nothing is.
    "quiet": 1 / (1 + np.nan_to_num(shares[_QUIET]) / HALF_SECONDS),
  }


def _mean(rows: list[np.ndarray]) -> np.ndarray:
  """[R] mean of the rows that are there; NaN where none is."""
  stacked = np.stack(rows)
  there = ~np.isnan(stacked)
  with np.errstate(invalid="ignore"):
    return np.where(there, stacked, 0.0).sum(0) / there.sum(0)
