"""Text without a clock: an article, a page, a file of code.

For: the exchange format of text between sources, shards and packing, beside
`timeline`. Not for: tokens (`packing.Text`). Start reading at `Document`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import msgpack

# Of the metadata of a part: the id of the whole, whose split it is of.
PART_OF = "part_of"
MAX_BYTES = 1 << 20  # of a document's text in UTF-8; longer ones are cut


@dataclasses.dataclass(frozen=True)
class Document:
  """A text, every token of which is a target. `metadata` holds JSON values."""

  id: str
  text: str
  metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


def to_bytes(document: Document) -> bytes:
  """Serialises with msgpack."""
  message = {
    "text": document.text,
    "id": document.id,
    "metadata": document.metadata,
  }
  return msgpack.packb(message)


def from_bytes(data: bytes) -> Document:
  """Inverse of `to_bytes`.

  Raises:
    ValueError: `data` is not a serialised document.
  """
  try:
    message = msgpack.unpackb(data)
    return Document(
      id=message["id"], text=message["text"], metadata=message["metadata"]
    )
  except Exception as error:  # msgpack raises many unrelated types
    raise ValueError(
      f"{len(data)} bytes are not a document: {error!r}; write the record "
      "again with `prepare`"
    ) from error


def validate(document: Document) -> None:
  """Checks what packing relies on.

  Raises:
    ValueError: naming the document, the field and what is wrong with it.
  """
  where = f"document {document.id!r}"
  for name in ("id", "text"):
    value = getattr(document, name)
    if not isinstance(value, str):
      raise ValueError(f"{where}: {name} is {value!r} and no text")
    try:
      value.encode()
    except UnicodeEncodeError as error:
      raise ValueError(
        f"{where}: {name} has half of a character, {value[error.start]!r}: it"
        " was cut, or is not in UTF-8"
      ) from error
  if not document.text.strip():
    raise ValueError(f"{where}: text is empty")
  if not isinstance(document.metadata, dict):
    raise ValueError(f"{where}: metadata is {document.metadata!r} and no dict")


def cut(
  document: Document, *, max_bytes: int = MAX_BYTES
) -> Iterator[Document]:
  """The document in parts of at most `max_bytes`, itself where that is one.

  A part ends behind a line, else behind a space, where one is in its second
  half; else in the middle of a word, never of a character. The parts' texts
  add up to the whole, and their ids are ID#0, ID#1, ...; the metadata `PART_OF`
  of each is ID, so that all are in one split.
  """
  text = document.text
  if len(text) <= max_bytes and len(text.encode()) <= max_bytes:
    yield document
    return
  start = number = 0
  while start < len(text):
    data = text[start : start + max_bytes].encode()[:max_bytes]
    stop = start + len(data.decode(errors="ignore"))
    if stop < len(text):
      half = (start + stop) // 2
      ends = (text.rfind(mark, half, stop) + 1 for mark in ("\n", " "))
      stop = next((end for end in ends if end), stop)
    yield dataclasses.replace(
      document,
      id=f"{document.id}#{number}",
      text=text[start:stop],
      metadata=document.metadata | {PART_OF: document.id},
    )
    start, number = stop, number + 1
