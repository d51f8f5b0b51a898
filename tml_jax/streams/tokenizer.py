"""Text to token ids and back, with sentencepiece.

For: training the tokenizer at set-up and using it. Not for: control tokens,
which are rows of the vocabulary above the text (`frame.Control`). Every text
comes back as it was, byte for byte: nothing is normalised, and what has no
piece is spelled in bytes. A control token's name in text stays text.
"""

import io
import os
import pathlib
import re
import zlib
from collections.abc import Iterable

import sentencepiece
from absl import logging

from tml_jax import errors, files
from tml_jax.config import StreamsConfig

FILENAME = "tokenizer.model"
# The library writes this letter for a space, so it is spelled in bytes itself.
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
# Letters with which the library leaves a line out of its training.
_RESERVED = re.compile("[\0\t\n\N{LOWER FIVE EIGHTHS BLOCK}]+")
# Letters of a line of training, cut at spaces where there are some. A letter
# has at most 4 bytes.
_LINE = re.compile(r".{1,4096}(?!\S)|\S{1,4096}", re.DOTALL)
_MAX_BYTES = 1 << 16  # of a line; the library leaves longer ones out
_PROBE = " 3\N{SUPERSCRIPT TWO}\n\t\N{ZERO WIDTH NON-JOINER} "


class Tokenizer:
  """A trained sentencepiece model.

  A text is spelled with a space before it, so that its first word has the
  pieces that it has inside a sentence, and the tokens of several texts one
  after the other read as their words with spaces between.
  """

  def __init__(self, processor: sentencepiece.SentencePieceProcessor):
    self._processor = processor
    self._space_tokens = [
      processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()
    ]

  @classmethod
  def load(cls, path: str, *, config: StreamsConfig) -> "Tokenizer":
    """Loads a model file.

    Raises:
      errors.UserError: missing or broken file, or more pieces than
        `config.text_vocab_size`.
    """
    if not os.path.exists(path):
      raise errors.UserError(
        f"no tokenizer at {path}; run `python -m tml_jax.prepare` first"
      )
    try:
      processor = sentencepiece.SentencePieceProcessor(model_file=path)
    except Exception as error:
      raise errors.UserError(
        f"{path} is not a sentencepiece model ({error}); delete it and run "
        "`python -m tml_jax.prepare` again"
      ) from error
    pieces = processor.get_piece_size()
    if pieces > config.text_vocab_size:
      raise errors.UserError(
        f"{path} has {pieces} pieces, more than streams.text_vocab_size = "
        f"{config.text_vocab_size}; prepare the data with this config"
      )
    tokenizer = cls(processor)
    if tokenizer.decode(tokenizer.encode(_PROBE)) != _PROBE:
      logging.warning(
        "%s changes text (%r becomes %r): an older version trained it; models"
        " trained with it need it, a new --data_dir gets one that does not",
        *(path, _PROBE, tokenizer.decode(tokenizer.encode(_PROBE))),
      )
    return tokenizer

  @property
  def num_pieces(self) -> int:
    """Ids are below this; the vocabulary may have more text rows."""
    return self._processor.get_piece_size()

  def encode(self, text: str) -> list[int]:
    """Tokens of `text`, none for none; `decode` gives back the same bytes."""
    if not text:
      return []
    first, *others = f" {text}".split(_SPACE)
    ids = self._processor.encode(first)
    for part in others:
      ids += self._space_tokens + self._processor.encode(part)
    return ids

  def decode(self, ids: list[int]) -> str:
    """Text of `ids`, each below `num_pieces`: else IndexError."""
    text = self._processor.decode([int(i) for i in ids])
    return text.removeprefix(" ")


def train(
  sentences: Iterable[str], *, path: str, config: StreamsConfig
) -> Tokenizer:
  """Trains on `sentences` and writes the model to `path`.

  Small corpora get fewer pieces than `config.text_vocab_size`; the rows
  between stay unused. Every sentence counts, whatever its length and letters.

  Raises:
    errors.UserError: no text at all, or no room for the 256 byte pieces.
  """
  lines = [line for text in sentences for line in _lines(text)]
  if not lines:
    raise errors.UserError("no transcripts to train the tokenizer on")
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(lines),
      model_writer=model,
      vocab_size=config.text_vocab_size,
      hard_vocab_limit=False,
      byte_fallback=True,
      character_coverage=1.0,
      normalization_rule_name="identity",
      add_dummy_prefix=False,  # `Tokenizer` writes it
      remove_extra_whitespaces=False,
      max_sentence_length=_MAX_BYTES,
      num_threads=1,  # the same model on every machine
      minloglevel=2,
    )
  except RuntimeError as error:
    raise errors.UserError(
      f"sentencepiece cannot train {config.text_vocab_size} pieces "
      f"(streams.text_vocab_size) on {len(lines)} transcripts: {error}"
    ) from error
  files.write_atomically(pathlib.Path(path), content=model.getvalue())
  return Tokenizer.load(path, config=config)


def _lines(text: str) -> list[str]:
  """`text` as lines that the library takes, each begun as `encode` does."""
  parts = (part.strip() for part in _RESERVED.split(text))
  return [f" {line.strip()}" for part in parts for line in _LINE.findall(part)]


def path(data_dir: str | os.PathLike[str]) -> str:
  """Where the tokenizer of prepared data lies."""
  return os.path.join(data_dir, FILENAME)


def digest(path: str) -> str:
  """Names the content of the model file at `path`."""
  with open(path, "rb") as file:
    return f"{zlib.crc32(file.read()):08x}"
