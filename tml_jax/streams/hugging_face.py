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
_ANY = "e\u0301 \U0001f40c\n\0"  # letters that few models have
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
    values = _values(content)
    # The library numbers added tokens anew, so it gets ids without gaps.
    places = _places(values)
    is_dense = list(places.values()) == list(range(len(places)))
    text = json.dumps(_dense(values, places)) if not is_dense else ""
    try:
      found = tokenizers.Tokenizer.from_buffer(
        text.encode() or content.removeprefix(_MARK)
      )
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
    self._ids = list(places.values())  # by the library's
    self._places = {number: i for i, number in enumerate(self._ids)}
    if found.get_vocab(with_added_tokens=True) != dict(
      zip(places, range(len(places)), strict=True)
    ):
      raise ValueError("two of its tokens have one name or one id")
    added = found.get_added_tokens_decoder()
    self._special = {i for i, token in added.items() if token.special}
    self._added = [t.content for t in added.values() if not t.special]
    self._unknown = _unknown(values["model"], places=[*places])
    of_text = {*range(len(places))} - self._special - self._unknown
    if not of_text:
      raise ValueError("its vocabulary is empty")
    try:
      self._encode(_ANY)
    except Exception as error:  # a model without an unknown token
      raise ValueError(f"it cannot spell every text: {error}") from error
    self._never = self._special | self._unknown
    self.rows = 1 + max(self._ids)
    self.num_pieces = 1 + max(self._ids[i] for i in of_text)

  def encode(self, text: str) -> list[int]:
    found = self._encode(text)
    if not (self._special - self._unknown).isdisjoint(found):
      # The model itself has a piece that is a special token: letters have none.
      found = [i for letter in text for i in self._encode(letter)]
    return [self._ids[i] for i in found if i not in self._never]

  def _encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: list[int]) -> str:
    if ids and not 0 <= min(ids) <= max(ids) < self.rows:
      raise IndexError(f"ids {min(ids)} to {max(ids)}: 0 to {self.rows - 1}")
    found = [self._places[i] for i in ids if i in self._places]
    return self._tokenizer.decode(
      [i for i in found if i not in self._special], skip_special_tokens=False
    )

  def samples(self) -> list[str]:
    """Texts of the model's own that may not come back as they were."""
    return [f"a {content} {content}b" for content in self._added]


def _values(content: bytes) -> dict[str, Any]:
  """What a file holds; says in words what the library says in types."""
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
  return values


def _places(values: dict[str, Any]) -> dict[str, int]:
  """Id by token, in the order in which the library numbers them.

  Raises:
    ValueError: ids that are no whole numbers.
  """
  vocabulary = values["model"].get("vocab")
  try:
    if isinstance(vocabulary, dict):
      places = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    else:
      places = {str(entry[0]): i for i, entry in enumerate(vocabulary)}
    for token in values.get("added_tokens") or ():
      places.setdefault(token["content"], token["id"])
  except (TypeError, KeyError, IndexError, AttributeError) as error:
    raise ValueError(f"its vocabulary is broken ({error!r})") from error
  wrong = [i for i in places.values() if type(i) is not int or i < 0]
  if wrong:
    raise ValueError(f"id {wrong[0]!r:.99} is no whole number")
  return places


def _dense(values: dict[str, Any], places: dict[str, int]) -> dict[str, Any]:
  """The same file with ids that have no gaps."""
  number = {token: i for i, token in enumerate(places)}
  model, result = dict(values["model"]), dict(values)
  if isinstance(model["vocab"], dict):
    model["vocab"] = {token: number[token] for token in model["vocab"]}
  return result | {
    "model": model,
    "added_tokens": [
      token | {"id": number[token["content"]]}
      for token in values.get("added_tokens") or ()
    ],
  }


def _unknown(model: dict[str, Any], *, places: list[str]) -> set[int]:
  """What the library gives for text that the model cannot spell."""
  token, number = model.get("unk_token"), model.get("unk_id")
  if isinstance(token, str):
    return {places.index(token)} if token in places else set()
  return set() if number is None else {number}
