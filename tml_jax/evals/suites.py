"""What an evaluation consists of: its items, by name.

For: `--suite`. Not for: running the model (`run`) or the numbers (`panel`).
Start reading at `Suite`. Another suite is a subclass (`full_duplex_bench`,
`game_time`), a name in `SUITES` and a line of `evaluate`.
Nothing here imports jax.
"""

import abc
import collections
import dataclasses
import functools
import hashlib
import itertools
import pathlib
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from absl import logging

from tml_jax import errors, registry
from tml_jax.config import Config
from tml_jax.data import corpus, mixture, scenarios, source
from tml_jax.data.splits import Split
from tml_jax.evals import agents as agents_lib
from tml_jax.evals import conditions, excerpt
from tml_jax.evals.metrics import panel
from tml_jax.evals.metrics.floor import Series
from tml_jax.live.reacting import Users
from tml_jax.logs import ticks
from tml_jax.streams import annotation, clock
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import Role, Timeline

# Conversations of an evaluation inside training, of all families together,
# and the fewest of a family.
QUICK_COUNT, QUICK_OF_FAMILY = 16, 2


@dataclasses.dataclass(frozen=True)
class Item:
  """One conversation to hold.

  Attributes:
    family: whose numbers it counts in.
    seed: of the session; with the family it names the item.
    load: makes the timeline; called more than once, so that not all of an
      evaluation lies in memory.
    digest: of the files that it is made of; "" where the seed says all.
    digest_of: the same, of what `load` made; None where `digest` says it.
    recorded: makes it with the agent on the model's grid, to be predicted; None
      where `load` does.
  """

  family: str
  seed: int
  load: Callable[[], Timeline]
  digest: str = ""
  digest_of: Callable[[Timeline], str] | None = None
  recorded: Callable[[], Timeline] | None = None


class Clip(Protocol):
  """A clip of a benchmark, under a name of its own, in a task."""

  @property
  def name(self) -> str: ...

  @property
  def task(self) -> str: ...


_Clip = TypeVar("_Clip", bound=Clip)


def by_name(clips: Iterable[_Clip], *, count: int | None) -> dict[str, _Clip]:
  """Clips by name, at most the first `count` of each task."""
  seen: collections.Counter[str] = collections.Counter()
  found = {}
  for clip in clips:
    seen[clip.task] += 1
    if count is None or seen[clip.task] <= count:
      found[clip.name] = clip
  return found


class Suite(abc.ABC):
  """Items, and what is done with each when it is over.

  Attributes:
    users: whether they react to the agent; all agents meet the same.
    agents: without a model, by name, that are scored beside it.
    left_out: what could not be read, and why.
  """

  users: Users = Users.SCRIPTED
  agents: Mapping[str, Callable[[Timeline], ticks.Log]] = agents_lib.AGENTS
  left_out: Mapping[str, str] = types.MappingProxyType({})

  @property
  def metrics(self) -> tuple[panel.Metric, ...]:
    """Rows of its tables."""
    return panel.metrics()

  @abc.abstractmethod
  def items(self) -> list[Item]:
    """All of them, those of a family together.

    Raises:
      errors.UserError: there are none, or their data are broken.
    """

  def asks(self, timeline: Timeline) -> bool:
    """Whether there is anything to score in an item."""
    return bool(annotation.of(timeline))

  @property
  def corpora(self) -> tuple[str, ...]:
    """Families that are recorded corpora: each has numbers of its own."""
    return ()

  def measure(self, log: ticks.Log) -> Series:
    """The series of one log, for `metrics`."""
    return panel.measure(log)

  def keep(
    self,
    timeline: Timeline,
    *,
    frames: list[Frame],
    log: ticks.Log,
    family: str,
  ) -> None:
    """Called with every session that was held, before its log is written.

    So a log that is there says that this was done, too.
    """
    del timeline, frames, log  # the log says all

  def is_kept(self, log: ticks.Log, *, family: str) -> bool:
    """Whether what `keep` has left of a session is still there."""
    del log
    return True


class Interactivity(Suite):
  """Scenarios of the mixture, or of the families that are named.

  Of recorded conversations, which have no annotations, the beginning is held
  and compared with what the recorded agent did. Documents are left out.
  """

  def __init__(
    self,
    config: Config,
    *,
    data_dir: str,
    split: Split,
    count: int,
    families: tuple[str, ...] = (),
    condition: conditions.Opened | None = None,
    users: Users = Users.REACTING,
  ):
    """Finds what is missing without composing anything.

    Args:
      config: of the run.
      data_dir: the prepared data.
      split: whose conversations.
      count: of each family.
      families: scenario families or folders of recorded conversations in
        `data_dir`; none for those of config.data.mixture.
      condition: of users unlike those of training. Recorded conversations,
        which nobody can make again, are left out.
      users: whether they react; recorded ones, of whom nobody says what they
        wait for, never do.

    Raises:
      errors.UserError: a family is unknown or named twice, or data are
        missing.
    """
    mixed = tuple(mixture.weights(config))
    known = list(dict.fromkeys([*scenarios.FAMILIES, *mixed]))
    for family in families:
      if families.count(family) > 1:
        raise errors.UserError(
          f"--families={','.join(families)} names {family!r} twice, and its"
          " conversations would count twice: leave out one"
        )
      index = pathlib.Path(data_dir, family, corpus.INDEX)
      if family not in known and not index.is_file():
        raise errors.UserError(
          f"--families={family}: no scenario family, nor in data.mixture; "
          + registry.nearest(family, names=known)
        )
    self._arguments = {"config": config, "data_dir": data_dir, "split": split}
    self._count, self.users = count, users
    self.agents = agents_lib.among(users)
    self.families = families or mixed
    self.condition = condition
    if condition:
      self.families = tuple(f for f in self.families if f in scenarios.FAMILIES)
      if not self.families:
        raise errors.UserError(
          f"--conditions={condition.condition.kind} asks for scenario families,"
          " as recorded conversations cannot be made again: name one in"
          " --families, or leave --conditions out"
        )

  def items(self) -> list[Item]:
    return self._items

  def asks(self, timeline: Timeline) -> bool:
    return asks(timeline)

  @property
  def corpora(self) -> tuple[str, ...]:
    return tuple(f for f in self.families if f not in scenarios.FAMILIES)

  @functools.cached_property
  def _items(self) -> list[Item]:
    """Opening families looks through all voices: once is enough."""
    result = []
    config, data_dir = self._arguments["config"], self._arguments["data_dir"]
    # Recorded calls need no voices, which may not even be there.
    composed = set(self.families) - set(self.corpora)
    voices = mixture.open_voices(config, data_dir=data_dir) if composed else {}
    grid = clock.of(config.streams)
    for family in self.families:
      open_on = functools.partial(
        mixture.open_entry,
        family,
        voices=voices,
        shift=self.condition.shift if self.condition else None,
        **self._arguments,
      )
      opened = open_on(grid=clock.TICKS)  # users are the same for all models
      recorded = None if grid == clock.TICKS else open_on(grid=grid)
      held = itertools.islice(mixture.conversations(opened), self._count)
      for i in held:
        item = Item(
          family,
          seed=i,
          load=self._loader(opened, i),
          recorded=None if recorded is None else self._loader(recorded, i),
          digest=self.condition.digest if self.condition else "",
          digest_of=recording_digest if family in self.corpora else None,
        )
        result.append(item)
    return result

  def _loader(self, opened: source.Source, index: int) -> "_Loader":
    change = self.condition.change if self.condition else excerpt.beginning
    return _Loader(opened, index=index, change=change)


def recording_digest(timeline: Timeline) -> str:
  """Names what is heard and said in a recording.

  After it was mended, or prepared anew, it may have the same id.
  """
  digest = hashlib.sha256()
  for track in timeline.tracks:
    digest.update(repr((track.role, track.words, track.spans)).encode())
    digest.update(track.audio.tobytes())
  digest.update(repr((timeline.muted, timeline.events)).encode())
  return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class _Loader:
  """Item `index` of a source, changed."""

  opened: source.Source
  index: int
  change: Callable[[Timeline], Timeline]

  def __call__(self) -> Timeline:
    return self.change(self.opened[self.index])


SUITES = ("interactivity", "fdb", "game_time")


def check_name(name: str) -> None:
  """Refuses a suite that there is not.

  Raises:
    errors.UserError: with the nearest name.
  """
  if name not in SUITES:
    near = registry.nearest(name, names=[*SUITES])
    raise errors.UserError(f"--suite={name}: no such suite; {near}")


@functools.cache  # a run asks again and again
def quick(config: Config, *, data_dir: str) -> Interactivity:
  """A few conversations of every family, for inside training.

  Of the dev split where the run has one: what is chosen by them is not tested
  by them. A warning says where it has none.
  """
  if not config.data.dev_share:
    logging.warning(
      "data.dev_share = 0: the panel inside training is of held-out"
      " conversations; choose no checkpoint by it, or train with"
      " --config.data.dev_share=0.05"
    )
  families = len(mixture.weights(config))
  return Interactivity(
    config,
    data_dir=data_dir,
    split=Split.DEV if config.data.dev_share else Split.HELDOUT,
    count=max(QUICK_OF_FAMILY, QUICK_COUNT // families),
  )


def check_annotations(items: list[Item]) -> None:
  """Refuses a suite in which no family says what is due.

  Raises:
    errors.UserError: naming the families.
  """
  first = {item.family: item for item in reversed(items)}
  if not any(asks(item.load()) for item in first.values()):
    raise nothing_due(sorted(first))


def asks(timeline: Timeline) -> bool:
  """Whether annotations or a recorded agent say when to speak."""
  if annotation.of(timeline):
    return True
  tracks = (timeline.track(role) for role in (Role.USER, Role.AGENT))
  return all(track is not None and track.spans for track in tracks)


def nothing_due(families: list[str]) -> errors.UserError:
  return errors.UserError(
    f"no item of {', '.join(families) or 'the suite'} says what is due and"
    " when: evaluate scenario families, for instance --families=reply, or set"
    " train.evaluate_every = 0"
  )
