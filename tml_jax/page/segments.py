"""What a sequence of the loader holds, segment by segment.

For: `batches`. Not for: how it looks. Start at `read`.
"""

import dataclasses
from typing import Any

import numpy as np

from tml_jax.config import StreamsConfig
from tml_jax.data.groups import Origin
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.batch import Batch
from tml_jax.streams.frame import Control


@dataclasses.dataclass(frozen=True)
class Segment:
  """A recording, a document or a piece of one, in a sequence.

  Attributes:
    origin: of it.
    first: position.
    stop: the position behind its last.
    windows: first and last on the clock; in a document numbers of tokens.
    targets: tokens with a loss.
    weight: the sum of theirs.
    speech: windows of sound with a loss.
    past: positions in front that have no loss.
    is_document: whether it has no clock.
  """

  origin: Origin
  first: int
  stop: int
  windows: tuple[int, int]
  targets: int
  weight: float
  speech: int
  past: int
  is_document: bool

  @property
  def positions(self) -> int:
    return self.stop - self.first


def row_of(batch: Batch, row: int) -> Batch:
  """One sequence of a batch."""

  def one(value: Any) -> Any:
    if isinstance(value, tuple):
      return type(value)(*map(one, value))
    return value[row]

  return one(batch)


def read(
  sequence: Batch, *, origins: tuple[Origin, ...], config: StreamsConfig
) -> list[Segment]:
  """The segments of a sequence, in order; the rest of it is padding.

  Args:
    sequence: one, without a leading dim.
    origins: of its segments.
    config: that it was packed with.

  Raises:
    ValueError: it has another number of segments than `origins`.
  """
  ids, inputs = sequence.packed.segment_ids, sequence.packed.inputs
  count = int(ids.max(initial=0))
  if count != len(origins):
    raise ValueError(f"{count} segments of {len(origins)} origins")
  turn = frame_lib.token_id(Control.TURN, config=config)
  targets = _valid(sequence.targets.positions, length=len(ids))
  speech = _valid(sequence.speech.positions, length=len(ids))
  of_target = ids[sequence.targets.positions[targets]]
  of_speech = ids[sequence.speech.positions[speech]]
  result = []
  for number, origin in enumerate(origins, start=1):
    here = np.flatnonzero(ids == number)
    mine = targets[of_target == number]
    first, stop = int(here[0]), int(here[-1]) + 1
    is_document = int(inputs.tokens[first]) != turn
    result.append(
      Segment(
        origin=origin,
        first=first,
        stop=stop,
        windows=(int(inputs.windows[first]), int(inputs.windows[stop - 1])),
        targets=len(mine),
        weight=float(sequence.targets.weights[mine].sum()),
        speech=int(np.count_nonzero(of_speech == number)),
        past=_past(sequence, here, mine),
        is_document=is_document,
      )
    )
  return result


def _valid(places: np.ndarray, *, length: int) -> np.ndarray:
  return np.flatnonzero(places < length)


def _past(sequence: Batch, here: np.ndarray, targets: np.ndarray) -> int:
  """Positions of the windows before the first that has a loss."""
  if not len(targets):
    return len(here)
  windows = sequence.packed.inputs.windows
  first = int(windows[sequence.targets.positions[targets].min()])
  return int(np.count_nonzero(windows[here] < first))
