"""Text to token ids and back: what a tokenizer's file means to a model.

For: using a tokenizer, of sentencepiece (`sentencepieces`, which also trains)
or of Hugging Face (`hugging_face`), and training one. Not for: control tokens,
which are rows of the vocabulary above the text (`frame.Control`): their names
in text stay text. Start reading at `load`, then `Tokenizer`.
"""

import functools
import os
import pathlib
import zlib
from collections.abc import Iterable
from typing import Protocol

from absl import logging

from tml_jax import errors, files
from tml_jax.config import StreamsConfig
from tml_jax.streams import hugging_face, sentencepieces

FILENAME = "tokenizer.model"  # in prepared data, and of sentencepiece
_JSON = "tokenizer.json"
FILENAMES = (FILENAME, _JSON)  # in a workdir
_WORD = 64  # letters; of longer texts nothing is remembered
_REMEMBERED = 1 << 15  # words of a tokenizer: with their tokens about 10 MB
# What normal forms, trimming and missing bytes would change.
_PROBE = (
  " 3\N{SUPERSCRIPT TWO}e\u0301\n\t\N{ZERO WIDTH NON-JOINER}  \U0001f40c "
)
_warned: set[str] = set()  # files, in this process


class Spelling(Protocol):
  """What the two kinds of files have in common.

  Attributes:
    rows: ids are below this.
    num_pieces: ids of text are below this.
  """

  rows: int
  num_pieces: int

  def encode(self, text: str) -> list[int]:
    """Ids of `text` alone."""

  def decode(self, ids: list[int]) -> str:
    """Text of `ids`, each below `rows`: else IndexError."""

  def samples(self) -> list[str]:
    """Texts of the model's own that may not come back as they were."""


class Tokenizer:
  """A spelling of texts that stand one after the other.

  A text is spelled with a space before it, so that its first word has the
  pieces that it has inside a sentence, and the tokens of several texts one
  after the other read as their words with spaces between. A model that writes
  that space by itself is let do so.
  """

  def __init__(self, spelling: Spelling):
    self._spelling = spelling
    self._space = _space_of(spelling)
    # The words of a language are spelled again and again.
    self._word = functools.lru_cache(_REMEMBERED)(self._encode)

  @property
  def rows(self) -> int:
    """Ids, those that are no text too, are below this."""
    return self._spelling.rows

  @property
  def num_pieces(self) -> int:
    """Ids of text are below this; the vocabulary may have more text rows."""
    return self._spelling.num_pieces

  def encode(self, text: str) -> list[int]:
    """Tokens of `text`, none for none; `decode` gives back the same bytes."""
    if not text:
      return []
    spell = self._word if len(text) <= _WORD else self._encode
    return list(spell(text))

  def _encode(self, text: str) -> tuple[int, ...]:
    return tuple(self._spelling.encode(self._space + text))

  def decode(self, ids: list[int]) -> str:
    """Text of `ids`, each one of the model's: else IndexError."""
    text = self._spelling.decode([int(i) for i in ids])
    return text.removeprefix(self._space)

  def changed(self) -> str | None:
    """A text that does not come back as it was; None if none is known."""
    for text in (_PROBE, *self._spelling.samples()):
      if self.decode(self.encode(text)) != text:
        return text
    return None


def _space_of(spelling: Spelling) -> str:
  """What to write before a text so that two texts are two words."""
  for space in (" ", ""):
    ids = spelling.encode(f"{space}one") + spelling.encode(f"{space}two")
    if spelling.decode(ids).removeprefix(" ") == "one two":
      return space
  return " "


def load(path: str, *, config: StreamsConfig) -> Tokenizer:
  """The tokenizer in a file: JSON is Hugging Face's, all else sentencepiece's.

  Raises:
    errors.UserError: missing or broken file, or more ids than
      `config.text_vocab_size`.
  """
  return of_content(_content(path), path=path, config=config)


def of_content(
  content: bytes, *, path: str, config: StreamsConfig
) -> Tokenizer:
  """As `load`, of a file that has been read at `path`, perhaps elsewhere."""
  try:
    tokenizer = _made_of(content)
  except ValueError as error:
    raise _broken(path, is_json=is_json(content), error=error) from error
  if tokenizer.rows > config.text_vocab_size:
    raise errors.UserError(
      f"{path} has {tokenizer.rows} tokens, more than streams.text_vocab_size ="
      f" {config.text_vocab_size}: give --config.streams.text_vocab_size="
      f"{tokenizer.rows} to a new run (with the rows for it in"
      " model.vocab_size), or --tokenizer=FILE, another one"
    )
  if path not in _warned and (text := tokenizer.changed()) is not None:
    _warned.add(path)
    logging.warning(
      "%s changes text (%r becomes %r), by its own rules or because an older"
      " version trained it; models trained with it need it as it is",
      *(path, text, tokenizer.decode(tokenizer.encode(text))),
    )
  return tokenizer


# A file of 200,000 tokens takes 2 s, and a command asks for it several times.
@functools.lru_cache(2)
def _made_of(content: bytes) -> Tokenizer:
  if is_json(content):
    return Tokenizer(hugging_face.HuggingFace(content))
  return Tokenizer(sentencepieces.Pieces(content))


def _broken(path: str, *, is_json: bool, error: ValueError) -> errors.UserError:
  if is_json:
    return errors.UserError(
      f"{path} is not a tokenizer.json of Hugging Face ({error}): copy it"
      " again, or give another file"
    )
  return errors.UserError(
    f"{path} is not a sentencepiece model, nor JSON ({error}): copy it again,"
    " or delete it and make it anew with `python -m tml_jax.train_tokenizer` or"
    " `python -m tml_jax.prepare`"
  )


def _content(path: str) -> bytes:
  file = files.path(path)
  if not file.exists():
    raise errors.UserError(
      f"no tokenizer at {path}; run `python -m tml_jax.prepare` or `python -m"
      " tml_jax.train_tokenizer` first, or give --tokenizer=FILE"
    )
  try:
    return file.read_bytes()
  except OSError as error:
    raise errors.of_system(
      error,
      f"the tokenizer {path} cannot be read ({error.strerror}): give a file,"
      f" for instance {' or '.join(FILENAMES)}",
    ) from error


def is_json(content: bytes) -> bool:
  """Whether a tokenizer's file is Hugging Face's, by how it begins."""
  return content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def filename(content: bytes) -> str:
  """The name of a tokenizer's file of that kind in a workdir."""
  return _JSON if is_json(content) else FILENAME


def train(
  sentences: Iterable[str], *, path: str, config: StreamsConfig
) -> Tokenizer:
  """Trains on `sentences` and writes the model to `path`.

  Small corpora get fewer pieces than `config.text_vocab_size`; the rows
  between stay unused. Every sentence counts, whatever its length and letters.

  Raises:
    errors.UserError: no text at all, or no room for the 256 byte pieces.
  """
  content = sentencepieces.train(sentences, config=config)
  files.write_atomically(pathlib.Path(path), content=content)
  return load(path, config=config)


def path(data_dir: str | os.PathLike[str], *, given: str = "") -> str:
  """The file that is `given`, else where that of prepared data lies."""
  return given or os.path.join(data_dir, FILENAME)


def digest(path: str) -> str:
  """Names the content of the file at `path`.

  Raises:
    errors.UserError: there is none.
  """
  return f"{zlib.crc32(_content(path)):08x}"


def described(path: str) -> str:
  """Kind, digest and place of the tokenizer at `path`, for messages."""
  kind = "Hugging Face" if is_json(_content(path)) else "sentencepiece"
  return f"{kind} {digest(path)} ({path})"
