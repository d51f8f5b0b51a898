"""What a model would be fed: each entry's part of the packed sequences.

For: `python -m tml_jax.inspect --mixture=GROUPS`, before a long run. Not for:
what a run has drawn, which its log says. Start reading at `measure`.
"""

import dataclasses
import os

import numpy as np

from tml_jax.config import Config
from tml_jax.config import streams as streams_config
from tml_jax.data import groups, mixture
from tml_jax.data.splits import Split
from tml_jax.streams import tokenizer
from tml_jax.streams.batch import Batch

_WHAT = ("positions", "sound", "patches", "speech", "targets")


@dataclasses.dataclass(frozen=True)
class Contents:
  """Counts of what is in some sequences.

  Attributes:
    used: [entries, 5] int64, slots of each budget (`streams.LIMITS`, in their
      order) that an entry takes.
    entries: names of the rows.
    limits: [5] int64, slots that the sequences have.
    sequences: number of them.
  """

  used: np.ndarray
  entries: tuple[str, ...]
  limits: np.ndarray
  sequences: int

  def text(self) -> str:
    """A table of percent, a line an entry, and what is padding."""
    head = f"{'entry':<24}" + "".join(f"{name:>11}" for name in _WHAT)
    total = np.maximum(1, self.used.sum(0))
    lines = [
      f"{self.sequences} packed sequences; percent of what is used",
      head,
    ]
    for name, row in zip(self.entries, self.used, strict=True):
      cells = "".join(f"{100 * share:>11.1f}" for share in row / total)
      lines.append(f"{name:<24}{cells}")
    padding = 1 - self.used.sum(0) / self.limits
    cells = "".join(f"{100 * share:>11.1f}" for share in padding)
    return "\n".join([*lines, f"{'(padding, of the limit)':<24}{cells}"])


def measure(
  config: Config,
  *,
  data_dir: str | os.PathLike[str],
  count: int,
  tokenizer_file: str = "",
) -> Contents:
  """Packs the first groups of the training split.

  Args:
    config: the experiment.
    data_dir: prepared data.
    count: of groups.
    tokenizer_file: that of `data_dir` if not given.

  Raises:
    errors.UserError: data that are missing or broken.
  """
  file = tokenizer.path(data_dir, given=tokenizer_file)
  mixed = mixture.open_mixture(
    config,
    data_dir=data_dir,
    split=Split.TRAIN,
    tokenizer_file=file,
    in_stretches=True,
  )
  made = groups.Groups(
    mixed,
    shards=(0,),
    first=((0, 0),),
    num_shards=1,
    group_size=config.data.group_size,
    tokenizer_path=file,
    config=config,
  )
  used = np.zeros((len(mixed.entries), len(_WHAT)), np.int64)
  sequences = 0
  for number in range(count):
    for sequence in made[number]["sequences"]:
      _count(sequence, into=used)
      sequences += 1
  limits = [getattr(config.streams, name) for name in streams_config.LIMITS]
  return Contents(
    used, mixed.entries, np.array(limits) * max(1, sequences), sequences
  )


def _count(sequence: Batch, *, into: np.ndarray) -> None:
  inputs, targets = sequence.packed.inputs, sequence.targets
  segments = sequence.packed.segment_ids
  length = len(segments)
  valid = targets.positions < length
  source_of = np.zeros(int(segments.max()) + 1, np.int64)
  source_of[segments[targets.positions[valid]]] = targets.sources[valid]
  for column, positions in enumerate(
    (
      np.flatnonzero(segments),
      inputs.audio_positions,
      inputs.patch_positions,
      sequence.speech.positions,
      targets.positions,
    )
  ):
    here = positions[positions < length]
    np.add.at(into[:, column], source_of[segments[here]], 1)
