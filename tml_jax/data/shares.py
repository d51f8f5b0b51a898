"""How often each entry of a mixture is drawn, so that weights count positions.

For: `mixture`. Not for: the order of what is drawn. Start reading at `measure`
and `draws`. A call has thousands of positions and a line of text ten: drawn
equally often, text would be next to nothing of what a model is trained on. So
an entry is drawn in proportion to its weight over its mean number of positions
(tokens of a packed sequence), measured on the same few items each time.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
from absl import logging

from tml_jax.config import Config
from tml_jax.data import turns
from tml_jax.streams import framing, packing
from tml_jax.streams.document import Document
from tml_jax.streams.timeline import Timeline
from tml_jax.streams.tokenizer import Tokenizer

_SAMPLES = 16
_SECONDS = 1200.0  # of samples together; at least three are taken


@dataclasses.dataclass(frozen=True)
class Size:
  """What an item of an entry takes, in the mean.

  Attributes:
    positions: of an item.
    per_second: positions of one second of a recording; 0 without recordings.
  """

  positions: float
  per_second: float


@dataclasses.dataclass(frozen=True)
class Mean:
  """Of all items of an entry.

  Attributes:
    seconds: of a recording; a document has 0.
    bytes: of the text of a document; a recording has 0.
  """

  seconds: float
  bytes: float


def measure(
  items: Iterable[Timeline | Document],
  *,
  mean: Mean | None,
  config: Config,
  tokenizer: Tokenizer,
) -> Size:
  """The size of an entry, of some of its items.

  Args:
    items: of the entry, read one at a time until there is enough.
    mean: of all its items, where that is known: some are long.
    config: the experiment.
    tokenizer: of the data.
  """
  positions, seconds, count = 0, 0.0, 0
  tokens, size = 0, 0  # of documents
  for item in items:
    count += 1
    if isinstance(item, Document):
      text = packing.Text.of(tokenizer.encode(item.text), config=config.streams)
      tokens += len(text.tokens)
      size += len(item.text.encode())
      continue
    item = turns.lay_out(item, config=config, tokenizer=tokenizer)
    positions += framing.count_positions(
      item, config=config.streams, tokenizer=tokenizer
    )
    seconds += item.duration
    if seconds > _SECONDS and count >= 3:
      break
  per_second = positions / seconds if seconds else 0.0
  if mean is None:
    return Size((positions + tokens) / count, per_second)
  per_byte = tokens / size if size else 0.0
  return Size(per_second * mean.seconds + per_byte * mean.bytes, per_second)


def sample(count: int) -> list[int]:
  """Which of `count` recordings are measured: some all over."""
  number = min(count, _SAMPLES)
  return [(2 * i + 1) * count // (2 * number) for i in range(number)]


def draws(
  weights: Mapping[str, float], *, sizes: Mapping[str, Size]
) -> dict[str, float]:
  """Share of the recordings by entry; adds up to 1.

  Rounded to four digits, so that every machine draws the same.
  """
  raw = {
    name: weight / sizes[name].positions for name, weight in weights.items()
  }
  total = sum(raw.values())
  return {name: float(f"{each / total:.4g}") for name, each in raw.items()}


def log(
  weights: Mapping[str, float],
  *,
  sizes: Mapping[str, Size],
  drawn: Mapping[str, float],
) -> None:
  """Says what each weight means."""
  total = sum(weights.values())
  for name, weight in weights.items():
    logging.info(
      "mixture: %s is %.1f %% of the positions: %.2f %% of the items, of"
      " %.0f positions in the mean",
      *(name, 100 * weight / total, 100 * drawn[name], sizes[name].positions),
    )


def warn_of_long(
  name: str, *, seconds: np.ndarray, size: Size, seq_len: int
) -> None:
  """Counts recordings that are cut; what goes on does not see what was."""
  if not size.per_second:
    return
  most = seq_len / size.per_second
  longer = seconds[seconds > most]
  if len(longer):
    logging.warning(
      "%s: %d of %d recordings are longer than a sequence (streams.seq_len = %d"
      " positions, here about %.0f s) and are cut into about %d pieces; a piece"
      " begins without what was before it. A larger streams.seq_len, with the"
      " other limits of a sequence, keeps more of their past",
      *(name, len(longer), len(seconds), seq_len, most),
      int((longer / most).astype(int).sum()) + len(longer),
    )
