"""Groups of packed sequences: what a worker of the loader makes at once.

For: `loader`. Not for: their order in batches. Start reading at `Groups`.

Group g of shard s is made of the `group_size` elements of the mixture from
(g L + s) group_size on, packed first fit into several sequences. Where these
are long it is packed in parts: as many elements as last `_MAX_SECONDS` and have
`_MAX_LETTERS` of documents, at least one.
"""

import collections
import dataclasses
import sys
import threading
from typing import Any

import numpy as np
from absl import logging

from tml_jax.config import Config, Damaged
from tml_jax.data import corpus, mixture, turns
from tml_jax.streams import framing, packing, tokenizer
from tml_jax.streams.batch import Batch
from tml_jax.streams.document import Document
from tml_jax.streams.frame import Frame

# Of recordings that are packed together, in memory at once: an hour takes 1 GB.
_MAX_SECONDS = 1800.0
# Of documents: a letter is a quarter of a token in most texts.
_MAX_LETTERS = 4 << 20
_REMEMBERED = 256  # parts whose beginnings are not counted again


@dataclasses.dataclass(frozen=True)
class Origin:
  """What a segment of a packed sequence is of, or is a piece of.

  Attributes:
    entry: of the mixture.
    element: of the mixture.
    id: of the recording or document.
  """

  entry: str
  element: int
  id: str


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
    items, sources, origins = [], [], []
    drawn = collections.Counter[str]()
    numbers = {name: i for i, name in enumerate(self._mixture.entries)}
    for i in range(start + first, start + stop):
      read = self._read(i)
      if read is None:
        continue
      item, length = self._made(read)
      items.append(item)
      name = self._mixture.names[i]
      sources.append(numbers[name])
      origins.append(Origin(name, i, _id_of(read)))
      if len(numbers) > 1:
        drawn[name] += length
    filled = packing.fill(
      items,
      config=self._config.streams,
      sources=sources,
      past=mixture.past_windows(self._config),
    )
    return {
      "shard": shard,
      "at": (group, first),
      "next": following,
      "drawn": dict(drawn),
      "sequences": [_trim(each.sequence) for each in filled],
      "origins": [
        tuple(origins[number] for number in each.items) for each in filled
      ],
    }

  def _read(self, element: int) -> mixture.Item | None:
    """An element of the mixture; None for one that is damaged and left out.

    Raises:
      corpus.DamagedRecord: it is, and that ends the run.
    """
    try:
      return self._mixture.items[element]
    except corpus.DamagedRecord as error:
      if self._config.data.damaged is Damaged.REFUSE:
        raise
      logging.warning("left out of training: %s", error)
      return None

  def _made(self, item: mixture.Item) -> tuple[list[Frame] | packing.Text, int]:
    """What the packer takes of an item, and its number of positions."""
    config, pieces = self._config, self._tokenizer
    assert pieces is not None
    if isinstance(item, Document):
      text = packing.Text.of(pieces.encode(item.text), config=config.streams)
      return text, len(text.tokens)
    if isinstance(item, framing.Excerpt):
      timeline, stretch = item.timeline, item.stretch
    else:
      timeline = turns.lay_out(item, config=config, tokenizer=pieces)
      stretch = framing.WHOLE
    frames = framing.frames(
      timeline, config=config.streams, tokenizer=pieces, stretch=stretch
    )
    if len(self._mixture.entries) == 1:
      return frames, 0  # nobody asks
    return frames, framing.length(frames, config=config.streams)

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
    start, seconds, size = self._start(place, group), 0.0, 0
    for element in range(first, self._group_size):
      seconds += self._mixture.seconds[start + element]
      size += self._mixture.letters[start + element]
      is_full = seconds > _MAX_SECONDS or size > _MAX_LETTERS
      if is_full and element > first:
        return group, element
    return group + 1, 0

  def _is_whole(self) -> bool:
    """Whether no group has to be cut."""
    mixed = self._mixture
    return (
      self._group_size * mixed.longest <= _MAX_SECONDS
      and self._group_size * mixed.largest <= _MAX_LETTERS
    )

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


def _id_of(item: mixture.Item) -> str:
  return item.timeline.id if isinstance(item, framing.Excerpt) else item.id


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
