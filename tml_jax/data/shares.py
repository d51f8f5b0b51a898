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
from tml_jax.streams import clock, framing, packing
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
    letters: of the text of a document; a recording has 0.
  """

  seconds: float
  letters: float


def measure(
  items: Iterable[Timeline | Document | framing.Excerpt],
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
      size += len(item.text)
      continue
    if isinstance(item, framing.Excerpt):
      timeline, stretch = item.timeline, item.stretch
    else:
      timeline = turns.lay_out(item, config=config, tokenizer=tokenizer)
      stretch = framing.WHOLE
    positions += framing.count_positions(
      timeline, config=config.streams, tokenizer=tokenizer, stretch=stretch
    )
    seconds += stretch.lasts(timeline.duration, grid=clock.of(config.streams))
    if seconds > _SECONDS and count >= 3:
      break
  per_second = positions / seconds if seconds else 0.0
  if mean is None:
    return Size((positions + tokens) / count, per_second)
  per_letter = tokens / size if size else 0.0
  return Size(per_second * mean.seconds + per_letter * mean.letters, per_second)


def sample(count: int) -> list[int]:
  """Which of `count` recordings are measured: some all over."""
  number = min(count, _SAMPLES)
  return [(2 * i + 1) * count // (2 * number) for i in range(number)]


def tempered(
  weights: Mapping[str, float],
  *,
  positions: Mapping[str, float],
  power: float,
) -> dict[str, float]:
  """Weights of corpora times their size to some power.

  What the corpora have together stays what it was, as does the weight of an
  entry that has no size, a scenario family.

  Args:
    weights: by entry.
    positions: of a corpus in one epoch, by its entry.
    power: the inverse of a temperature; 1 draws corpora of equal weight in
      proportion to their sizes, 0 leaves the weights as they are.
  """
  total = sum(weights[name] for name in positions)
  raw = {name: weights[name] * size**power for name, size in positions.items()}
  scale = total / sum(raw.values()) if total else 1.0
  return {
    name: raw[name] * scale if name in raw else weight
    for name, weight in weights.items()
  }


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
  total = sum(drawn[name] * sizes[name].positions for name in drawn)
  for name in weights:
    share = drawn.get(name, 0.0)
    logging.info(
      "mixture: %s is %.1f %% of the positions: %.2f %% of the items, of"
      " %.0f positions in the mean",
      *(name, 100 * share * sizes[name].positions / total, 100 * share),
      sizes[name].positions,
    )


def log_long(
  name: str,
  *,
  seconds: np.ndarray,
  size: Size,
  seq_len: int,
  past: float,
) -> None:
  """Says how many elements do not fit a sequence, and what that means.

  Args:
    name: of the entry.
    seconds: of each of its elements.
    size: of one.
    seq_len: positions of a sequence.
    past: seconds before a piece that stand in front of it.
  """
  if not size.per_second:
    return
  most = seq_len / size.per_second
  longer = int((seconds > most).sum())
  if longer:
    logging.info(
      "%s: %d of %d elements are longer than a sequence (streams.seq_len = %d"
      " positions, here about %.0f s); a later piece begins with the %.1f s"
      " before it (data.past_seconds)",
      *(name, longer, len(seconds), seq_len, most, past),
    )
