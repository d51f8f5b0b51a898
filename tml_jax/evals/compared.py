"""Arms over the same users, from archives alone.

For: `results`. Not for: tables of it (`results_tables`) or one evaluation
(`report`). Start at `Compared`. An arm is a row of an experiment file that was
trained with some seeds; `BASE` is the interaction model, `RIVAL` the same
behind a turn detector.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tml_jax import errors
from tml_jax.evals import conditions
from tml_jax.evals.archive import Archive
from tml_jax.evals.metrics import panel, seeds, statistics
from tml_jax.evals.metrics.panel import Better, Metric
from tml_jax.evals.metrics.statistics import Difference, Value
from tml_jax.evals.sweep_picture import X, Y

BASE, RIVAL = "base", "turns"  # rows of experiments/ablations.py
ENOUGH = 3  # seeds of an arm, before anything is said of it
CERTAIN = 0.05  # p, corrected, below it
BIAS = "sample.onset_bias"  # that moves what is traded


@dataclasses.dataclass(frozen=True)
class Results:
  """All that is committed.

  Attributes:
    agents: of agents without a model; None where there is none.
    arms: by row, the evaluation of each seed.
    sweeps: the same of sweeps.
  """

  agents: Archive | None
  arms: Mapping[str, Sequence[Archive]]
  sweeps: Mapping[str, Sequence[Archive]]

  @property
  def has_rivals(self) -> bool:
    return bool(self.arms.get(BASE) and self.arms.get(RIVAL))

  def __iter__(self) -> Iterator[Archive]:
    """All archives."""
    yield from [self.agents] if self.agents else []
    for found in (self.arms, self.sweeps):
      for each in found.values():
        yield from each


@dataclasses.dataclass(frozen=True)
class Compared:
  """Two arms over the same users.

  Attributes:
    ours: numbers of the first.
    theirs: of the other.
    less: the first less the other.
    rows: that both have and of which one side is better: first those in which
      the first arm loses most, last those that need duplex.
    seeds: of each arm.
  """

  ours: Mapping[str, Value]
  theirs: Mapping[str, Value]
  less: Mapping[str, Difference]
  rows: Sequence[Metric]
  seeds: tuple[int, int]

  @classmethod
  def of(
    cls,
    ours: Sequence[Archive],
    theirs: Sequence[Archive],
    *,
    metrics: Iterable[str] = (),
    part: str = conditions.PLAIN,
    beside: int = 1,
  ) -> "Compared":
    """Of archives of all seeds; `metrics` are all if not given.

    `beside` is how many such comparisons p will be corrected for together.

    Raises:
      errors.UserError: they have met other users.
    """
    same_users([*ours, *theirs], part=part)
    rows = tuple(
      m
      for m in panel.metrics()
      if m.better is not Better.NEITHER
      and (not metrics or m.name in tuple(metrics))
    )
    first, second = (series_of(arm, part=part) for arm in (ours, theirs))
    resamples = statistics.resamples_for(beside * len(rows))
    apart = seeds.compare(first, second, metrics=rows, resamples=resamples)
    less = statistics.holm({"": apart})[""]
    found = [
      seeds.summarise(arm, metrics=tuple(m for m in rows if m.name in less))
      for arm in (first, second)
    ]
    shown = [m for m in rows if m.name in less]
    shown.sort(
      key=lambda m: (
        m.needs_duplex,
        -statistics.lost(m, *(f[m.name] for f in found)),
      )
    )
    return cls(*found, less, shown, (len(first), len(second)))

  def carries(self, name: str, *, less: Difference | None = None) -> bool:
    """Whether a row says which arm is better.

    Its corrected p is small, its interval is on one side, and it is of enough
    events of enough seeds.

    Args:
      name: of the metric.
      less: its difference, where p is corrected for more than these rows.
    """
    less = less or self.less[name]
    events = min(self.ours[name].events, self.theirs[name].events)
    return (
      less.p_holm < CERTAIN
      and not less.low <= 0 <= less.high
      and events >= panel.FEW_EVENTS
      and min(self.seeds) >= ENOUGH
    )


def same_users(archives: Sequence[Archive], *, part: str) -> None:
  """Refuses evaluations that cannot be compared user by user.

  Raises:
    errors.UserError: a part is missing, or its users are others.
  """
  first, users = archives[0], None
  for each in archives:
    if part not in each.parts:
      raise errors.UserError(
        f"{each.path} has no part {part!r}, which others have: evaluate it with"
        " the same flags"
      )
    fix = (
      f"than {first.path}; evaluate both with the same --split, --count,"
      " --families and --users"
    )
    for name in ("suite", "split", "users"):
      ours, theirs = (a.head.numbers.get(name) for a in (each, first))
      if ours != theirs:
        raise errors.UserError(
          f"{each.path}: {name} is {ours!r}, not {theirs!r}: other users {fix}"
        )
    found = {
      item.log.id: (item.family, dict(item.of))
      for item in each.parts[part].report.scored
    }
    users = found if users is None else users
    for name in [*users, *found]:
      if users.get(name) != found.get(name):
        raise errors.UserError(
          f"{each.path}, {part}, {name}: another user {fix}"
        )
    if list(users) != list(found):
      raise errors.UserError(
        f"{each.path}, {part}: its users come in another order {fix}"
      )


def series_of(arm: Sequence[Archive], *, part: str) -> seeds.Arm:
  """The series of every seed."""
  return [
    [item.series[panel.MODEL] for item in each.parts[part].report.scored]
    for each in arm
  ]


@dataclasses.dataclass(frozen=True)
class Traded:
  """A point of a sweep, over the seeds of an arm.

  Attributes:
    changes: of the config.
    asked: turns answered, `Y`.
    unasked: seconds of speech a minute that nobody asked for, `X`.
  """

  changes: Mapping[str, Any]
  asked: Value
  unasked: Value

  @property
  def label(self) -> str:
    return f"{self.changes[BIAS]:g}"


def traded(results: Results) -> dict[str, list[Traded]]:
  """By arm, points that all its seeds have, in order.

  Raises:
    errors.UserError: seeds have met other users, or something else was swept.
  """
  rows = tuple(m for m in panel.METRICS if m.name in (X, Y))
  found: dict[str, list[Traded]] = {}
  for arm, swept in results.sweeps.items():
    for each in swept:
      for part in each.parts.values():
        if part.changes.keys() != {BIAS}:
          raise errors.UserError(
            f"{each.path} is a sweep of {', '.join(part.changes) or 'nothing'};"
            f" what is traded is swept by {BIAS} alone"
          )
    for name, part in swept[0].parts.items():
      if not all(name in each.parts for each in swept):
        continue
      same_users(swept, part=name)
      values = seeds.summarise(series_of(swept, part=name), metrics=rows)
      if X in values and Y in values:
        point = Traded(part.changes, asked=values[Y], unasked=values[X])
        found.setdefault(arm, []).append(point)
  return found
