"""Batches of packed sequences, resumable at any step on any number of hosts.

For: what the train loop iterates over. Not for: what is in the data
(`mixture`). Start reading at `Loader`.

The data is cut into L = config.data.logical_shards streams, fixed for a run.
Each gives groups of packed sequences (`groups`). What comes next is a pure
function of (shard, group, first element of a part, offset), and that is the
whole state: no trace of hosts, workers or Grain. Each shard gives B / L
neighbouring rows of a global batch of B, in order. A process yields the rows
that lie on its devices, which must be all rows of some shards; processes whose
devices hold copies of the same rows make the same.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import grain
from absl import flags, logging

from tml_jax import errors, plugins
from tml_jax.config import Config, Layout, OnChange, TurnsConfig
from tml_jax.data import corpus, groups, mixture, source
from tml_jax.data import stages as stages_lib
from tml_jax.data import workers as workers_lib
from tml_jax.data.splits import Split
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import packing, tokenizer
from tml_jax.streams.batch import Batch

_VERSION = 3
# Groups of sequences that may wait for their turn before the prefetching
# starts anew: shards drift apart as groups pack into different numbers.
_MAX_WAITING = 4
_THREADS = 2
# What may be another in a state with `data.on_change=go_on`.
_MAY_CHANGE = frozenset(
  ("mixture", "schedule", "max_epochs", "stages", "corpora", "augment")
)
_BUFFERED_GROUPS = 4


@dataclasses.dataclass
class Position:
  """The next sequence of one logical shard."""

  group: int
  offset: int
  first: int = 0  # element of the group where the part begins


# A sequence with what its segments are of, and the position after it.
_Waiting = tuple[Position, Batch, tuple[groups.Origin, ...]]


class Loader:
  """An endless iterator over local batches.

  A batch has the rows of this process.

  Attributes:
    origins: of each row of the last batch, what its segments are of.
  """

  def __init__(
    self,
    config: Config,
    *,
    data_dir: str | os.PathLike[str],
    split: Split,
    rows: Sequence[int] | None = None,
    tokenizer_file: str = "",
  ):
    """Opens the data and starts at the beginning.

    Args:
      config: the experiment.
      data_dir: prepared data.
      split: which part of it.
      rows: of the global batch, in ascending order; all if not given.
      tokenizer_file: of the tokenizer; that of `data_dir` if not given.

    Raises:
      errors.UserError: the rows are not whole logical shards, or the prepared
        data is missing or broken.
    """
    if rows is None:
      rows = range(config.train.global_batch_size)
    self._config = config
    self._shards = shards_of(rows, config=config)
    per_shard = config.train.global_batch_size // config.data.logical_shards
    self._rows = [row // per_shard for row in rows]
    file = tokenizer.path(data_dir, given=tokenizer_file)
    self._tokenizer_path = file
    self._data_dir, self._split = data_dir, split
    self._open(stages_lib.BEGIN)
    tokenizer.load(file, config=config.streams)  # before a worker does
    self._drawn: collections.Counter[str] = collections.Counter()
    self._groups, self._log_at = 0, 1
    self._positions = {shard: Position(0, 0) for shard in self._shards}
    self._empty = packing.empty_sequence(config.streams)
    self._largest_group = 1
    self.origins: list[tuple[groups.Origin, ...]] = []
    self._stream: Any = None
    self._restart()

  def __iter__(self) -> "Loader":
    return self

  def __next__(self) -> Batch:
    rows = [self._next_of(shard) for shard in self._rows]
    self.origins = [origins for _, origins in rows]
    longest = max(map(len, self._waiting.values()))
    if longest > _MAX_WAITING * self._largest_group:
      self._restart()
    return batch_lib.stack([each for each, _ in rows], like=self._empty)

  def _open(self, begin: stages_lib.Begin) -> None:
    """Opens the mixture where it begins; positions are the caller's."""
    self._begin = begin
    self._mixture = mixture.open_mixture(
      self._config,
      data_dir=self._data_dir,
      split=self._split,
      tokenizer_file=self._tokenizer_path,
      begin=begin,
      in_stretches=True,
    )
    self._identity = _identity(
      self._config,
      data_dir=self._data_dir,
      split=self._split,
      stages=self._mixture.stages,
      tokenizer_file=self._tokenizer_path,
    )

  @property
  def identity(self) -> dict[str, Any]:
    """What gives positions their meaning, as JSON values."""
    return self._identity

  def get_state(self) -> dict[str, Any]:
    """JSON values that say where the shards of this process stand."""
    return {
      "identity": self._identity,
      "begin": dataclasses.asdict(self._begin),
      "shards": {
        str(shard): dataclasses.asdict(position)
        for shard, position in self._positions.items()
      },
    }

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on bit for bit from a state, of any process count.

    Args:
      state: from `get_state`, or from `merge_states` after a run on several
        processes; shards of other processes are ignored.

    With `data.on_change=go_on` the mixture may be another one. All shards then
    go on with the group after the last that any of them has begun: each entry
    that was there goes on in its own order where it stood, one whose corpus has
    changed begins anew, and a new one at its beginning.

    Raises:
      errors.UserError: the state is of other data, or lacks a shard.
    """
    begin = stages_lib.Begin(**state.get("begin", {}))
    if begin != self._begin:
      self._open(begin)
    then = {"augment": []} | state["identity"]  # older states have none
    changed = [
      name for name, value in self._identity.items() if then.get(name) != value
    ]
    if changed:
      if self._may_go_on(changed):
        self._go_on(state)
        return
      differences = "; ".join(
        f"{name}: {then.get(name)!r} then, {self._identity[name]!r} now"
        for name in changed
      )
      raise errors.UserError(
        "the checkpoint's position in the data means something else with this "
        f"config and data_dir ({differences}); restore them, or start a new run"
        " from its weights"
        + (
          "; or go on with --config.data.on_change=go_on"
          if {*changed} <= _MAY_CHANGE
          else ""
        )
      )
    missing = [s for s in self._shards if str(s) not in state["shards"]]
    if missing:
      raise errors.UserError(
        f"the data state has no position of the logical shards {missing}; "
        "merge the states of all processes with loader.merge_states"
      )
    self._positions = {
      shard: Position(**state["shards"][str(shard)]) for shard in self._shards
    }
    self._restart()

  def _may_go_on(self, changed: list[str]) -> bool:
    is_meant = self._config.data.on_change is OnChange.GO_ON
    return is_meant and {*changed} <= _MAY_CHANGE

  def _go_on(self, state: dict[str, Any]) -> None:
    """Begins a mixture that has changed where the old one stands.

    Raises:
      errors.UserError: the state lacks a shard of any process.
    """
    count = self._config.data.logical_shards
    positions = [Position(**each) for each in state["shards"].values()]
    if len(positions) < count:
      raise errors.UserError(
        f"the data state has {len(positions)} of {count} logical shards; merge"
        " the states of all processes with loader.merge_states"
      )
    group = max(p.group + (p.offset > 0 or p.first > 0) for p in positions)
    element = group * count * self._config.data.group_size
    then = state["identity"]
    stages = [stages_lib.Stage(**stage) for stage in then["stages"]]
    stage = [each for each in stages if each.first <= element][-1]
    drawn = {
      name: number
      for name, number in stage.drawn_at(element).items()
      if name in self._mixture.entries
      and then["corpora"].get(name) == self._identity["corpora"].get(name)
    }
    left = sum(
      (group - p.group) * self._config.data.group_size for p in positions
    )
    logging.warning(
      "the mixture has changed and goes on at element %d: %s; up to %d elements"
      " of groups that were begun are left out",
      *(element, drawn, left),
    )
    self._open(stages_lib.Begin(element, drawn))
    self._positions = {shard: Position(group, 0) for shard in self._shards}
    self._restart()

  def close(self) -> None:
    """Ends the prefetching; the loader cannot be used afterwards."""
    close = getattr(self._stream, "close", None)
    if close is not None:
      close()
    self._stream = None

  def _next_of(self, shard: int) -> tuple[Batch, tuple[groups.Origin, ...]]:
    waiting = self._waiting[shard]
    while not waiting:
      self._receive()
    position, sequence, origins = waiting.popleft()
    self._positions[shard] = position
    return sequence, origins

  def _receive(self) -> None:
    """Takes the next group from the stream, whosever it is."""
    group = next(self._stream)
    shard, sequences = group["shard"], group["sequences"]
    number, first = group["at"]
    self._count(group["drawn"])
    self._largest_group = max(self._largest_group, len(sequences))
    for offset in range(self._skip.pop(shard, 0), len(sequences)):
      after = Position(number, offset + 1, first)
      if offset + 1 == len(sequences):
        following, begin = group["next"]
        after = Position(following, 0, begin)
      self._waiting[shard].append(
        (after, sequences[offset], group["origins"][offset])
      )

  def _count(self, drawn: dict[str, int]) -> None:
    """Says what was drawn, ever more rarely."""
    self._drawn.update(drawn)
    self._groups += 1
    if len(self._mixture.entries) > 1 and self._groups == self._log_at:
      self._log_at *= 2
      total = sum(self._drawn.values())
      logging.info(
        "drawn of the mixture, in %d positions: %s",
        *(total, _percentages(self._drawn, total=total)),
      )

  def _restart(self) -> None:
    """Starts the prefetching at the current positions."""
    self.close()
    self._waiting: dict[int, collections.deque[_Waiting]] = {
      shard: collections.deque() for shard in self._shards
    }
    self._skip = {s: p.offset for s, p in self._positions.items()}
    made = groups.Groups(
      self._mixture,
      shards=tuple(self._shards),
      first=tuple(
        (self._positions[s].group, self._positions[s].first)
        for s in self._shards
      ),
      num_shards=self._config.data.logical_shards,
      group_size=self._config.data.group_size,
      tokenizer_path=self._tokenizer_path,
      config=self._config,
    )
    self._stream = _prefetch(made, workers=self._config.data.workers)
    self._stream.start_prefetch()


def _percentages(drawn: dict[str, int], *, total: int) -> str:
  return ", ".join(
    f"{name} {100 * count / total:.1f} %"
    for name, count in sorted(drawn.items())
  )


def shards_of(rows: Sequence[int], *, config: Config) -> tuple[int, ...]:
  """The logical shards that give these rows of the global batch.

  Raises:
    errors.UserError: another process would have to read one of them, too, and
      each would throw part of it away.
  """
  size, shards = config.train.global_batch_size, config.data.logical_shards
  per_shard = size // shards  # the config guarantees that it divides
  result = tuple(sorted({row // per_shard for row in rows}))
  if len(rows) != len(result) * per_shard:
    raise errors.UserError(
      f"data.logical_shards = {shards}, each gives {per_shard} neighbouring"
      f" rows of the global batch, and a process holds {len(rows)} rows that"
      " are no whole shards: start a number of processes that divides"
      f" {shards}, or begin a new run with data.logical_shards={size}"
    )
  return result


def merge_states(states: Iterable[dict[str, Any]]) -> dict[str, Any]:
  """One state from those of all processes of a run, taken at one step.

  Raises:
    ValueError: no states, states of different data, or a shard at two places.
  """
  states = list(states)
  if not states or any(s["identity"] != states[0]["identity"] for s in states):
    raise ValueError(f"{len(states)} states that are not of one run")
  shards: dict[str, Any] = {}
  for state in states:
    for shard, position in state["shards"].items():
      if shards.setdefault(shard, position) != position:
        raise ValueError(f"logical shard {shard} is at two places")
  return states[0] | {"shards": shards}


def _prefetch(made: groups.Groups, *, workers: int) -> Any:
  """An iterator over groups in order, made ahead of their use."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # in a notebook; Grain reads its own flags
  dataset = grain.MapDataset.source(made)
  if workers == 0:
    return iter(
      dataset.to_iter_dataset(
        grain.ReadOptions(
          num_threads=_THREADS, prefetch_buffer_size=_BUFFERED_GROUPS
        )
      )
    )
  # Inside a worker one thread is enough: processes are the parallelism.
  ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  options = grain.MultiprocessingOptions(
    num_workers=workers, per_worker_buffer_size=2
  )
  # Through pipes: in containers /dev/shm often has 64 MB, a few groups.
  no_shared_memory = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
  return iter(
    grain.experimental.WithOptionsIterDataset(
      dataset.to_iter_dataset(ahead), no_shared_memory
    ).mp_prefetch(
      options,
      worker_init_fn=functools.partial(_start_worker, plugins.files()),
    )
  )


def _start_worker(files: tuple[str, ...], index: int, count: int) -> None:
  """Begins as every worker does, and keeps the accelerator to its parent.

  Grain imports jax for its profiler where it is installed; nothing here uses
  it, and should something do so, it would find the CPU.
  """
  del index, count
  workers_lib.begin(files)
  os.environ["JAX_PLATFORMS"] = "cpu"


def _cut(settings: TurnsConfig) -> dict[str, Any]:
  """The settings of a harness that turns in training depend on."""
  return {
    "vad": str(settings.vad),
    "endpoint_s": settings.endpoint_s,
    "minimum_interruption_s": settings.minimum_interruption_s,
    "asks": settings.asks,
  }


def _identity(
  config: Config,
  *,
  data_dir: str | os.PathLike[str],
  split: Split,
  stages: Sequence[stages_lib.Stage],
  tokenizer_file: str,
) -> dict[str, Any]:
  """What gives a position its meaning, as JSON values."""
  folders = []
  if mixture.speaks(config):
    folders = [source.parse(entry).folder for entry in config.data.voices]
  folders += [
    entry
    for entry in mixture.weights(config)
    if (pathlib.Path(data_dir) / entry).is_dir()
  ]
  is_cut = config.data.layout is Layout.TURNS
  return {
    "version": _VERSION,
    "split": str(split),
    "seed": config.data.seed,
    "heldout_share": config.data.heldout_share,
    # Where there is none, as in runs from before there was one.
    **({"dev_share": dev} if (dev := config.data.dev_share) else {}),
    "mixture": list(mixture.entries(config)),
    "schedule": list(config.data.schedule),
    "max_epochs": list(config.data.max_epochs),
    "stages": [dataclasses.asdict(stage) for stage in stages],
    "logical_shards": config.data.logical_shards,
    "group_size": config.data.group_size,
    "layout": str(config.data.layout),
    **({"turns": _cut(config.turns)} if is_cut else {}),
    "stretch_seconds": config.data.stretch_seconds,
    "past_seconds": config.data.past_seconds,
    "augment": list(config.data.augment),
    "tokenizer": tokenizer.digest(tokenizer_file),
    "corpora": {
      folder: corpus.read_index(pathlib.Path(data_dir) / folder).digest
      for folder in folders
    },
  }
