"""A tokenizer.json of Hugging Face as a spelling: text to ids and back.

For: `tokenizer`, which picks it for every file of JSON: weights of others are
used with their own rows. Not for: the space before a text, chat templates nor
their special tokens: text that spells one of these is text like any other,
and no text becomes their id. Start reading at `HuggingFace`.
"""

import json
from typing import Any

import tokenizers

_MARK = b"\xef\xbb\xbf"  # byte order mark of UTF-8
MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")


class HuggingFace:
  """What the library `tokenizers` reads, without its special tokens.

  Ids may have gaps: one that names nothing decodes to nothing, and so does a
  special token.

  Attributes:
    rows: ids, those of special tokens too, are below this.
    num_pieces: ids of text are below this.
  """

  def __init__(self, content: bytes):
    """Reads the content of a tokenizer.json.

    Raises:
      ValueError: it is none; says why.
    """
    model = _model(content)
    try:
      found = tokenizers.Tokenizer.from_buffer(content.removeprefix(_MARK))
    except Exception as error:  # it has no kind of its own
      raise ValueError(str(error)) from error
    # What a file may ask for and a text must not get: to be cut, to be filled
    # up, to be spelled at random, to be taken for special tokens.
    found.no_truncation()
    found.no_padding()
    found.encode_special_tokens = True
    if getattr(found.model, "dropout", None):
      found.model.dropout = None
    self._tokenizer = found
    added = found.get_added_tokens_decoder()
    self._special = {i for i, token in added.items() if token.special}
    self._added = [t.content for t in added.values() if not t.special]
    self._unknown = _unknown(model, found)
    ids = {*found.get_vocab(with_added_tokens=True).values()}
    text = ids - self._special - self._unknown
    if not text:
      raise ValueError("its vocabulary is empty")
    self.rows, self.num_pieces = 1 + max(ids), 1 + max(text)

  def encode(self, text: str) -> list[int]:
    ids = self._ids(text)
    if not self._special.isdisjoint(set(ids) - self._unknown):
      # The model itself has a piece that is a special token: letters have none.
      ids = [i for letter in text for i in self._ids(letter)]
    return [i for i in ids if i not in self._special | self._unknown]

  def _ids(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: list[int]) -> str:
    if ids and not 0 <= min(ids) <= max(ids) < self.rows:
      raise IndexError(f"ids {min(ids)} to {max(ids)}: 0 to {self.rows - 1}")
    text = [i for i in ids if i not in self._special]
    return self._tokenizer.decode(text, skip_special_tokens=False)

  def samples(self) -> list[str]:
    """Texts of the model's own that may not come back as they were."""
    return [f"a {content} {content}b" for content in self._added]


def _model(content: bytes) -> dict[str, Any]:
  """The model of a file; says in words what the library says in types."""
  try:
    values = json.loads(content)
  except RecursionError as error:
    raise ValueError("brackets are nested too deeply") from error
  if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
    if isinstance(values, dict) and "transcripts" in values:
      raise ValueError(
        "it is what `prepare` notes about the tokenizer.model beside it; give"
        " that one"
      )
    raise ValueError("it has no model")
  model = values["model"]
  # Old files do not say; the library tells theirs by their fields.
  kind = model.get("type", MODELS[0])
  if kind not in MODELS:
    raise ValueError(
      f"model type {kind!r:.99} is unknown: one of {', '.join(MODELS)}"
    )
  return model


def _unknown(model: dict[str, Any], found: tokenizers.Tokenizer) -> set[int]:
  """The id of what the model cannot spell, if it has one."""
  number = model.get("unk_id")
  if isinstance(model.get("unk_token"), str):
    number = found.token_to_id(model["unk_token"])
  return set() if number is None else {number}
