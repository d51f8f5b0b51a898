"""Groups of packed sequences: what a worker of the loader makes at once.

For: `loader`. Not for: their order in batches. Start reading at `Groups`.

Group g of shard s is made of the `group_size` elements of the mixture from
(g L + s) group_size on, packed first fit into several sequences. Where these
are long it is packed in parts: as many elements as last `_MAX_SECONDS`, at
least one.
"""

import collections
import sys
import threading
from typing import Any

import numpy as np

from tml_jax.config import Config
from tml_jax.data import mixture, turns
from tml_jax.streams import framing, packing, tokenizer
from tml_jax.streams.batch import Batch

# Of recordings that are packed together, in memory at once: an hour takes 1 GB.
_MAX_SECONDS = 1800.0
_REMEMBERED = 256  # parts whose beginnings are not counted again


class Groups:
  """Packed groups of the shards of one process, in turn.

  Element i is the part of shard shards[j], j = i mod n, that is i // n parts
  after (group, element) first[j]: which worker makes it does not matter.
  """

  def __init__(
    self,
    mixed: mixture.Mixture,
    *,
    shards: tuple[int, ...],
    first: tuple[tuple[int, int], ...],
    num_shards: int,
    group_size: int,
    tokenizer_path: str,
    config: Config,
  ):
    self._mixture = mixed
    self._shards = shards
    self._first = first
    self._begin_counting()
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
    shard, (group, first) = self._shards[place], self._begin(place, turn)
    following = self._after(place, (group, first))
    if self._tokenizer is None:
      self._tokenizer = tokenizer.load(
        self._tokenizer_path, config=self._config.streams
      )
    start = self._start(place, group)
    stop = following[1] if following[0] == group else self._group_size
    recordings, drawn = [], collections.Counter[str]()
    for i in range(start + first, start + stop):
      frames = framing.frames(
        turns.lay_out(
          self._mixture.items[i], config=self._config, tokenizer=self._tokenizer
        ),
        config=self._config.streams,
        tokenizer=self._tokenizer,
      )
      recordings.append(frames)
      if len(self._mixture.draws) > 1:
        drawn[self._mixture.names[i]] += framing.length(
          frames, config=self._config.streams
        )
    sequences = packing.pack(recordings, config=self._config.streams)
    return {
      "shard": shard,
      "at": (group, first),
      "next": following,
      "drawn": dict(drawn),
      "sequences": [_trim(sequence) for sequence in sequences],
    }

  def _start(self, place: int, group: int) -> int:
    """Element of the mixture with which a group begins."""
    return (group * self._num_shards + self._shards[place]) * self._group_size

  def _begin(self, place: int, turn: int) -> tuple[int, int]:
    """Where the part of a turn begins: group, and element of it."""
    group, first = self._first[place]
    if first == 0 and self._is_whole():
      return group + turn, 0
    with self._lock:
      begins = self._begins[place]
      last = max((t for t in begins if t <= turn), default=0)
      at = begins.get(last, self._first[place])
      for each in range(last, turn):
        begins[each] = at
        at = self._after(place, at)
      begins[turn] = at
      for old in [t for t in begins if t < turn - _REMEMBERED]:
        del begins[old]
    return at

  def _after(self, place: int, at: tuple[int, int]) -> tuple[int, int]:
    """Where the part that follows begins."""
    group, first = at
    if first == 0 and self._is_whole():
      return group + 1, 0
    start, seconds = self._start(place, group), 0.0
    for element in range(first, self._group_size):
      seconds += self._mixture.seconds[start + element]
      if seconds > _MAX_SECONDS and element > first:
        return group, element
    return group + 1, 0

  def _is_whole(self) -> bool:
    """Whether no group has to be cut."""
    return self._group_size * self._mixture.longest <= _MAX_SECONDS

  def _begin_counting(self) -> None:
    self._lock = threading.Lock()
    self._begins: list[dict[int, tuple[int, int]]] = [{} for _ in self._shards]

  def __getstate__(self) -> dict[str, Any]:
    state = self.__dict__ | {"_tokenizer": None}
    del state["_lock"], state["_begins"]
    return state

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._begin_counting()

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
