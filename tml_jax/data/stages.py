"""When which entries of a mixture are drawn: weights that change, and limits.

For: `mixture`. Not for: what an entry is. Start reading at `plan`.

The mixture is cut into stages. In a stage every entry is drawn in one
proportion; the next begins where `data.schedule` gives other weights or where
an entry has been drawn `data.max_epochs` times. Each entry goes on in its own
order from stage to stage. A stage begins at an element, and a schedule names
steps: a step counts as full sequences, so padding makes a change come later by
as much.
"""

import bisect
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain

from tml_jax import errors
from tml_jax.config import Config
from tml_jax.data import shares


@dataclasses.dataclass(frozen=True)
class Begin:
  """Where a mixture begins, if not at its beginning: after a change of it.

  Attributes:
    element: the first one.
    drawn: items of each entry that were drawn before.
  """

  element: int = 0
  drawn: Mapping[str, int] = dataclasses.field(default_factory=dict)


BEGIN = Begin()


@dataclasses.dataclass(frozen=True)
class Stage:
  """Elements that are drawn in one proportion.

  Attributes:
    first: element.
    draws: share of the elements by entry; entries that are not drawn are left
      out.
    drawn: items of each entry that were drawn before.
  """

  first: int
  draws: dict[str, float]
  drawn: dict[str, int]

  def drawn_at(self, element: int) -> dict[str, int]:
    """Items of each entry that are drawn before an element of this stage."""
    mixed = mix(self, of={name: _Numbers(name) for name in self.draws})
    found = dict(self.drawn)
    left = {*self.draws}
    # The last item of an entry before it says how many there were.
    for place in range(element - self.first - 1, -1, -1):
      name, number = mixed[place]
      if name in left:
        found[name] = number + 1
        left.remove(name)
        if not left:
          break
    return found


def mix(stage: Stage, *, of: Mapping[str, grain.MapDataset]) -> Any:
  """What is drawn in a stage from endless datasets, each where it stands."""
  parts = [of[name][stage.drawn[name] :] for name in stage.draws]
  return grain.MapDataset.mix(parts, [*stage.draws.values()])


class _Numbers:
  """An endless dataset of its name and each element's number."""

  def __init__(self, name: str):
    self._name = name

  def __getitem__(self, rest: slice) -> grain.MapDataset:
    endless = grain.MapDataset.range(rest.start, sys.maxsize)
    return endless.map(functools.partial(_named, self._name))


def _named(name: str, number: int) -> tuple[str, int]:
  return name, number


def plan(
  config: Config,
  *,
  weights: Mapping[str, float],
  temper: Callable[[Mapping[str, float]], Mapping[str, float]],
  sizes: Mapping[str, shares.Size],
  lengths: Mapping[str, int],
  begin: Begin,
) -> tuple[Stage, ...]:
  """The stages of a mixture, in order.

  Args:
    config: `data.schedule` and `data.max_epochs`.
    weights: by entry, before the schedule.
    temper: `shares.tempered`, of the weights of the schedule, too.
    sizes: of an item of each entry; none where there is one entry alone.
    lengths: items of each entry in an epoch.
    begin: where the mixture begins.

  Raises:
    errors.UserError: the schedule or the limits name no entry of the mixture,
      or nothing is left to be drawn.
  """
  changes = _changes(config, names=[*weights])
  limits = _limits(config, names=[*weights])
  now, current = dict(weights), begin.element
  drawn = {name: begin.drawn.get(name, 0) for name in weights}
  per_step = config.train.global_batch_size * config.streams.seq_len
  stages: list[Stage] = []
  # Positions before `begin` are counted with the draws of the first stage.
  positions = 0.0
  while True:
    for name, limit in limits.items():
      if drawn[name] >= limit * lengths[name]:
        now[name] = 0.0
    while changes and changes[0][0] * per_step <= positions:
      _, name, weight = changes.pop(0)
      if drawn[name] < limits.get(name, float("inf")) * lengths[name]:
        now[name] = weight
    alive = {name: weight for name, weight in temper(now).items() if weight > 0}
    if not alive:
      raise errors.UserError(
        f"data.mixture has nothing left after {current:,} elements:"
        f" data.max_epochs = {','.join(config.data.max_epochs) or '()'} and"
        f" data.schedule = {','.join(config.data.schedule) or '()'} end every"
        " entry; leave one without a limit"
      )
    draws = dict.fromkeys(alive, 1.0)
    if len(weights) > 1:
      draws = shares.draws(alive, sizes=sizes)
    stages.append(Stage(current, draws, dict(drawn)))
    mean = sum(
      share * (sizes[name].positions if sizes else per_step)
      for name, share in draws.items()
    )
    if not positions and current:
      positions = current * mean
    left = [
      (limits[name] * lengths[name] - drawn[name]) / share
      for name, share in draws.items()
      if name in limits
    ]
    due = changes[0][0] * per_step if changes else float("inf")
    if not left and not changes:
      return tuple(stages)
    count = max(1, math.ceil(min([*left, (due - positions) / mean])))
    drawn = stages[-1].drawn_at(current + count)
    current += count
    positions += count * mean


def _changes(
  config: Config, *, names: Sequence[str]
) -> list[tuple[int, str, float]]:
  """Of data.schedule: step, entry and its weight from there on."""
  found = []
  for entry in config.data.schedule:
    step, name, weight = entry.split(":")
    _check_name(name, names=names, field="schedule", entry=entry)
    found.append((int(step), name, float(weight)))
  return sorted(found)


def _limits(config: Config, *, names: Sequence[str]) -> dict[str, float]:
  """Of data.max_epochs."""
  found = {}
  for entry in config.data.max_epochs:
    name, _, epochs = entry.rpartition(":")
    _check_name(name, names=names, field="max_epochs", entry=entry)
    found[name] = float(epochs)
  return found


def _check_name(
  name: str, *, names: Sequence[str], field: str, entry: str
) -> None:
  if name not in names:
    raise errors.UserError(
      f"data.{field} has {entry!r}, and data.mixture has no {name!r}; it has"
      f" {', '.join(names)}"
    )


class Joined:
  """The elements of stages, one after the other; the last has no end."""

  def __init__(self, stages: Sequence[Stage], *, make: Callable[[Stage], Any]):
    """Makes what is drawn in each stage, whose element 0 is its first."""
    self._firsts = [stage.first for stage in stages]
    self._parts = [make(stage) for stage in stages]

  def __getitem__(self, element: int) -> Any:
    number = max(0, bisect.bisect_right(self._firsts, element) - 1)
    return self._parts[number][element - self._firsts[number]]
