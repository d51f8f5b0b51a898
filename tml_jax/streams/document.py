"""Text without a clock: an article, a page, a file of code.

For: the exchange format of text between sources, shards and packing, beside
`timeline`. Not for: tokens (`packing`). Start reading at `Document`.
"""

import dataclasses
from typing import Any

import msgpack

# What tells a document's record from a timeline's, which has no such field.
_KIND = "document"


@dataclasses.dataclass(frozen=True)
class Document:
  """A text, every token of which is a target. `metadata` holds JSON values."""

  id: str
  text: str
  metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


def to_bytes(document: Document) -> bytes:
  """Serialises with msgpack."""
  message = {
    _KIND: document.text,
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
      id=message["id"], text=message[_KIND], metadata=message["metadata"]
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
