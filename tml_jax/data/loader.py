"""Batches of packed sequences, resumable at any step on any number of hosts.

For: what the train loop iterates over. Not for: what is in the data
(`mixture`). Start reading at `Loader`.

The data is cut into L = config.data.logical_shards streams, fixed for a run.
Group g of shard s is made of the `group_size` elements of the mixture from
(g L + s) group_size on, packed first fit into several sequences; so what
comes next is a pure function of (shard, group, offset), and that is the whole
state: no trace of hosts, workers or Grain. Each shard gives B / L neighbouring
rows of a global batch of B, in order. A process yields the rows that lie on
its devices, which must be all rows of some shards; processes whose devices
hold copies of the same rows make the same.
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
import numpy as np
from absl import flags

from tml_jax import errors, plugins
from tml_jax.config import Config
from tml_jax.data import corpus, mixture, source, turns
from tml_jax.data import workers as workers_lib
from tml_jax.data.splits import Split
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import framing, packing, tokenizer
from tml_jax.streams.batch import Batch

_VERSION = 1
# Groups of sequences that may wait for their turn before the prefetching
# starts anew: shards drift apart as groups pack into different numbers.
_MAX_WAITING = 4
_THREADS = 2
_BUFFERED_GROUPS = 4


@dataclasses.dataclass
class Position:
  """The next sequence of one logical shard."""

  group: int
  offset: int


class Loader:
  """An endless iterator over local batches.

  A batch has the rows of this process.
  """

  def __init__(
    self,
    config: Config,
    *,
    data_dir: str | os.PathLike[str],
    split: Split,
    rows: Sequence[int] | None = None,
  ):
    """Opens the data and starts at the beginning.

    Args:
      config: the experiment.
      data_dir: prepared data.
      split: which part of it.
      rows: of the global batch, in ascending order; all if not given.

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
    mixture.check(config, data_dir=data_dir)
    self._identity = _identity(config, data_dir=data_dir, split=split)
    self._dataset = mixture.build(config, data_dir=data_dir, split=split)
    self._tokenizer_path = tokenizer.path(data_dir)
    self._positions = {shard: Position(0, 0) for shard in self._shards}
    self._empty = packing.empty_sequence(config.streams)
    self._largest_group = 1
    self._stream: Any = None
    self._restart()

  def __iter__(self) -> "Loader":
    return self

  def __next__(self) -> Batch:
    sequences = [self._next_of(shard) for shard in self._rows]
    longest = max(map(len, self._waiting.values()))
    if longest > _MAX_WAITING * self._largest_group:
      self._restart()
    return batch_lib.stack(sequences, like=self._empty)

  @property
  def identity(self) -> dict[str, Any]:
    """What gives positions their meaning, as JSON values."""
    return self._identity

  def get_state(self) -> dict[str, Any]:
    """JSON values that say where the shards of this process stand."""
    return {
      "identity": self._identity,
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

    Raises:
      errors.UserError: the state is of other data, or lacks a shard.
    """
    if state["identity"] != self._identity:
      changed = [
        f"{name}: {state['identity'].get(name)!r} then, {value!r} now"
        for name, value in self._identity.items()
        if state["identity"].get(name) != value
      ]
      raise errors.UserError(
        "the checkpoint's position in the data means something else with this "
        f"config and data_dir ({'; '.join(changed)}); restore them, or start "
        "a new run from its weights"
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

  def close(self) -> None:
    """Ends the prefetching; the loader cannot be used afterwards."""
    close = getattr(self._stream, "close", None)
    if close is not None:
      close()
    self._stream = None

  def _next_of(self, shard: int) -> Batch:
    waiting = self._waiting[shard]
    while not waiting:
      self._receive()
    position, sequence = waiting.popleft()
    self._positions[shard] = position
    return sequence

  def _receive(self) -> None:
    """Takes the next group from the stream, whosever it is."""
    group = next(self._stream)
    shard, number = group["shard"], group["group"]
    sequences = group["sequences"]
    self._largest_group = max(self._largest_group, len(sequences))
    for offset in range(self._skip.pop(shard, 0), len(sequences)):
      after = Position(number, offset + 1)
      if offset + 1 == len(sequences):
        after = Position(number + 1, 0)
      self._waiting[shard].append((after, sequences[offset]))

  def _restart(self) -> None:
    """Starts the prefetching at the current positions."""
    self.close()
    self._waiting: dict[int, collections.deque[tuple[Position, Batch]]] = {
      shard: collections.deque() for shard in self._shards
    }
    self._skip = {s: p.offset for s, p in self._positions.items()}
    groups = Groups(
      self._dataset,
      shards=tuple(self._shards),
      first=tuple(self._positions[s].group for s in self._shards),
      num_shards=self._config.data.logical_shards,
      group_size=self._config.data.group_size,
      tokenizer_path=self._tokenizer_path,
      config=self._config,
    )
    self._stream = _prefetch(groups, workers=self._config.data.workers)
    self._stream.start_prefetch()


class Groups:
  """Packed groups of the shards of one process, in turn.

  Element i is group first[j] + i // n of shard shards[j], j = i mod n: which
  worker makes it does not matter.
  """

  def __init__(
    self,
    dataset: grain.MapDataset,
    *,
    shards: tuple[int, ...],
    first: tuple[int, ...],
    num_shards: int,
    group_size: int,
    tokenizer_path: str,
    config: Config,
  ):
    self._dataset = dataset
    self._shards = shards
    self._first = first
    self._num_shards = num_shards
    self._group_size = group_size
    self._tokenizer_path = tokenizer_path
    self._config = config
    # Loaded where it is used: workers get a path.
    self._tokenizer: tokenizer.Tokenizer | None = None

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index: int) -> dict[str, Any]:
    turn, place = divmod(index, len(self._shards))
    shard, group = self._shards[place], self._first[place] + turn
    if self._tokenizer is None:
      self._tokenizer = tokenizer.Tokenizer.load(
        self._tokenizer_path, config=self._config.streams
      )
    start = (group * self._num_shards + shard) * self._group_size
    recordings = [
      framing.frames(
        turns.lay_out(
          self._dataset[i], config=self._config, tokenizer=self._tokenizer
        ),
        config=self._config.streams,
        tokenizer=self._tokenizer,
      )
      for i in range(start, start + self._group_size)
    ]
    sequences = packing.pack(recordings, config=self._config.streams)
    return {
      "shard": shard,
      "group": group,
      "sequences": [_trim(sequence) for sequence in sequences],
    }

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {"_tokenizer": None}

  def __repr__(self) -> str:  # Grain puts it in error messages
    return f"Groups(shards={self._shards}, first={self._first})"


def _trim(sequence: Batch) -> Batch:
  """Large arrays up to their last slot in use, until a batch is made.

  Most sequences have no video at all.
  """
  inputs, speech = sequence.packed.inputs, sequence.speech
  length = len(inputs.tokens)

  def used(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return values[: np.count_nonzero(positions < length)].copy()

  return sequence._replace(
    packed=sequence.packed._replace(
      inputs=inputs._replace(
        audio_dmel=used(inputs.audio_dmel, inputs.audio_positions),
        patches=used(inputs.patches, inputs.patch_positions),
      )
    ),
    speech=speech._replace(mel=used(speech.mel, speech.positions)),
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
  return {"identity": states[0]["identity"], "shards": shards}


def _prefetch(groups: Groups, *, workers: int) -> Any:
  """An iterator over `groups` in order, made ahead of their use."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # in a notebook; Grain reads its own flags
  dataset = grain.MapDataset.source(groups)
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


def _identity(
  config: Config, *, data_dir: str | os.PathLike[str], split: Split
) -> dict[str, Any]:
  """What gives a position its meaning, as JSON values."""
  folders = [source.parse(entry).folder for entry in config.data.voices]
  folders += [
    entry
    for entry in mixture.weights(config)
    if (pathlib.Path(data_dir) / entry).is_dir()
  ]
  return {
    "version": _VERSION,
    "split": str(split),
    "seed": config.data.seed,
    "heldout_share": config.data.heldout_share,
    "mixture": list(mixture.entries(config)),
    "logical_shards": config.data.logical_shards,
    "group_size": config.data.group_size,
    "layout": str(config.data.layout),
    "tokenizer": tokenizer.digest(tokenizer.path(data_dir)),
    "corpora": {
      folder: corpus.read_index(pathlib.Path(data_dir) / folder).digest
      for folder in folders
    },
  }
