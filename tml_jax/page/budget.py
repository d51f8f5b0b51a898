"""What some recordings of a corpus take when they are packed.

For: padding, kinds of positions and targets, without decoding sound. Not for:
a whole mixture (`data.contents`) or the batches of a run (`batches`). Start at
`measure`.
"""

import dataclasses

import numpy as np

from tml_jax import errors
from tml_jax.config import Config, Layout
from tml_jax.config import streams as streams_config
from tml_jax.data import corpus, turns
from tml_jax.page import floor, positions
from tml_jax.streams import clock, framing, packing
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.batch import Batch
from tml_jax.streams.document import Document
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import Timeline
from tml_jax.streams.tokenizer import Tokenizer

PACKED = 32  # recordings, at most
HEARD = 200  # recordings whose turns are looked at, at most


@dataclasses.dataclass(frozen=True)
class Budget:
  """Sequences that some recordings fill.

  Attributes:
    recordings: that were packed.
    sequences: that they fill.
    used: [5] int64, slots of each of `streams.LIMITS` that are taken.
    limits: [5] int64, slots that there are.
    parts: [len(Part)] int64, positions.
    targets: [len(Kind)] int64, tokens with a loss.
    weights: [len(Kind)] float64, sums of their weights.
    speech: windows of sound with a loss.
  """

  recordings: int
  sequences: int
  used: np.ndarray
  limits: np.ndarray
  parts: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  speech: int


def spread(count: int, *, most: int) -> list[int]:
  """At most so many of `count` numbers, some all over."""
  number = min(count, most)
  return [(2 * i + 1) * count // (2 * number) for i in range(number)]


def transfers(source: corpus.RecordSource) -> tuple[list[floor.Transfer], int]:
  """Changes of the floor in some recordings, and how many those are.

  Reads who speaks when, and decodes no sound.

  Raises:
    corpus.DamagedRecord: one is damaged.
  """
  talked = np.flatnonzero(source.seconds)
  found: list[floor.Transfer] = []
  numbers = spread(len(talked), most=HEARD)
  for number in numbers:
    item = source.outline(int(talked[number]))
    assert isinstance(item, Timeline)  # it has a duration
    found += floor.transfers(item)
  return found, len(numbers)


def measure(
  source: corpus.RecordSource, *, config: Config, tokenizer: Tokenizer
) -> Budget:
  """Packs some recordings, of long ones a stretch in the middle.

  Raises:
    errors.UserError: one is damaged, or a frame does not fit a sequence.
  """
  numbers = spread(len(source), most=min(PACKED, config.data.group_size))
  items = [
    _laid_out(source, number, config=config, tokenizer=tokenizer)
    for number in numbers
  ]
  try:
    sequences = packing.pack(items, config=config.streams)
  except ValueError as error:
    raise errors.UserError(f"{source.name}: {error}") from error
  return of(sequences, config=config, recordings=len(numbers))


def of(sequences: list[Batch], *, config: Config, recordings: int) -> Budget:
  """Counts what packed sequences hold."""
  streams = config.streams
  limits = np.array([getattr(streams, name) for name in streams_config.LIMITS])
  used = np.zeros(len(limits), np.int64)
  parts = np.zeros(len(positions.Part), np.int64)
  targets = np.zeros(len(frame_lib.Kind), np.int64)
  weights = np.zeros(len(frame_lib.Kind))
  for sequence in sequences:
    of_each = positions.parts(sequence, config=streams)
    parts += np.bincount(of_each, minlength=len(parts))
    inputs = sequence.packed.inputs
    for i, taken in enumerate(
      (
        np.count_nonzero(sequence.packed.segment_ids),
        np.count_nonzero(inputs.audio_positions < streams.seq_len),
        np.count_nonzero(inputs.patch_positions < streams.seq_len),
        np.count_nonzero(sequence.speech.positions < streams.seq_len),
        np.count_nonzero(sequence.targets.positions < streams.seq_len),
      )
    ):
      used[i] += taken
    valid = sequence.targets.positions < streams.seq_len
    kinds = sequence.targets.kinds[valid]
    targets += np.bincount(kinds, minlength=len(targets))
    np.add.at(weights, kinds, sequence.targets.weights[valid])
  speech = int(used[streams_config.LIMITS.index("max_speak")])
  return Budget(
    recordings=recordings,
    sequences=len(sequences),
    used=used,
    limits=limits * len(sequences),
    parts=parts,
    targets=targets,
    weights=weights,
    speech=speech,
  )


def _laid_out(
  source: corpus.RecordSource,
  number: int,
  *,
  config: Config,
  tokenizer: Tokenizer,
) -> list[Frame] | packing.Text:
  """A recording as the packer takes it, without sound where that is enough."""
  # Alternating turns are made of whole recordings with their sound.
  is_duplex = config.data.layout is Layout.DUPLEX
  item = source.outline(number) if is_duplex else source[number]
  if isinstance(item, Document):
    return packing.Text.of(tokenizer.encode(item.text), config=config.streams)
  item = turns.lay_out(item, config=config, tokenizer=tokenizer)
  stretch = framing.WHOLE
  if item.duration > config.data.stretch_seconds:
    grid = clock.of(config.streams)
    windows = grid.num_windows(config.data.stretch_seconds)
    first = (grid.num_windows(item.duration) - windows) // 2
    stretch = framing.Stretch(first, first + windows, past=0)
  return framing.outline(
    item, config=config.streams, tokenizer=tokenizer, stretch=stretch
  )
