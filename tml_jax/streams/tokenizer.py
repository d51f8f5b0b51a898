"""Text to token ids and back, with sentencepiece.

For: training the tokenizer at set-up and using it. Not for: control tokens,
which are rows of the vocabulary above the text (`frame.Control`). Byte
fallback covers every string; a control token's name in text stays text.
"""

import io
import os
import pathlib
import zlib
from collections.abc import Iterable

import sentencepiece

from tml_jax import errors, files
from tml_jax.config import StreamsConfig

FILENAME = "tokenizer.model"


class Tokenizer:
  """A trained sentencepiece model."""

  def __init__(self, processor: sentencepiece.SentencePieceProcessor):
    self._processor = processor

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
    return cls(processor)

  @property
  def num_pieces(self) -> int:
    """Ids are below this; the vocabulary may have more text rows."""
    return self._processor.get_piece_size()

  def encode(self, text: str) -> list[int]:
    return self._processor.encode(text)

  def decode(self, ids: list[int]) -> str:
    """Text of `ids`, each below `num_pieces`: else IndexError."""
    return self._processor.decode([int(i) for i in ids])


def train(
  sentences: Iterable[str], *, path: str, config: StreamsConfig
) -> Tokenizer:
  """Trains on `sentences` and writes the model to `path`.

  Small corpora get fewer pieces than `config.text_vocab_size`; the rows
  between stay unused.

  Raises:
    errors.UserError: no text at all, or no room for the 256 byte pieces.
  """
  lines = [line for line in sentences if line.strip()]
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
      max_sentence_length=1 << 16,
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


def path(data_dir: str | os.PathLike[str]) -> str:
  """Where the tokenizer of prepared data lies."""
  return os.path.join(data_dir, FILENAME)


def digest(path: str) -> str:
  """Names the content of the model file at `path`."""
  with open(path, "rb") as file:
    return f"{zlib.crc32(file.read()):08x}"
