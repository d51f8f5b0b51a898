"""A sentencepiece model as a spelling: text to pieces and back; its training.

For: `tokenizer`, which picks it for every file that is no JSON. Not for: the
space before a text, nor control tokens. What `train` makes gives every text
back as it was, byte for byte: nothing is normalised, and what has no piece is
spelled in bytes. Start reading at `Pieces`.
"""

import io
import itertools
import re
from collections.abc import Iterable, Iterator

import sentencepiece

from tml_jax import errors
from tml_jax.config import StreamsConfig

# The library writes this letter for a space, so it is spelled in bytes itself.
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
# Letters with which the library leaves a line out of its training.
_RESERVED = re.compile("[\0\t\n\N{LOWER FIVE EIGHTHS BLOCK}]+")
# Letters of a line of training, cut at spaces where there are some. A letter
# has at most 4 bytes.
_LINE = re.compile(r".{1,4096}(?!\S)|\S{1,4096}", re.DOTALL)
_MAX_BYTES = 1 << 16  # of a line; the library leaves longer ones out


class Pieces:
  """A trained sentencepiece model.

  Attributes:
    rows: ids are below this.
    num_pieces: ids of text are below this.
  """

  def __init__(self, content: bytes):
    """Reads the content of a model file.

    Raises:
      ValueError: it is none.
    """
    if not content:
      raise ValueError("the file is empty")
    try:
      self._processor = sentencepiece.SentencePieceProcessor(
        model_proto=content
      )
    except Exception as error:  # it has no kind of its own
      raise ValueError(str(error)) from error
    self.rows = self.num_pieces = self._processor.get_piece_size()
    self._space_tokens = [
      self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()
    ]

  def encode(self, text: str) -> list[int]:
    first, *others = text.split(_SPACE)
    ids = self._processor.encode(first)
    for part in others:
      ids += self._space_tokens + self._processor.encode(part)
    return ids

  def decode(self, ids: list[int]) -> str:
    return self._processor.decode(ids)

  def samples(self) -> list[str]:
    """Texts of the model's own that may not come back as they were."""
    return []


def train(sentences: Iterable[str], *, config: StreamsConfig) -> bytes:
  """The content of a model file, trained on `sentences`.

  Raises:
    errors.UserError: no text at all, or no room for the 256 byte pieces.
  """
  lines = itertools.chain.from_iterable(map(_lines, sentences))
  first = next(lines, None)
  if first is None:
    raise errors.UserError("no transcripts to train the tokenizer on")
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=itertools.chain([first], lines),
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
      f"(streams.text_vocab_size) on these transcripts: {error}"
    ) from error
  return model.getvalue()


def _lines(text: str) -> Iterator[str]:
  """`text` as lines that the library takes, each begun as `encode` does."""
  for part in _RESERVED.split(text):
    for line in _LINE.findall(part.strip()):
      yield f" {line.strip()}"
