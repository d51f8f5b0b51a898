"""Records of files by lines: JSON objects and the documents in them.

For: importers. Not for: the lines themselves (`stored`). Start at `json_lines`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tml_jax.data import options as options_lib
from tml_jax.data import source, stored
from tml_jax.data.source import BadRecording, Reason
from tml_jax.streams import document
from tml_jax.streams.document import Document

# A record, and its name: of the file, and at which byte.
Named = tuple[str, dict[str, Any]]


def json_lines(
  place: stored.Place, found: stored.Range
) -> Iterator[Named | BadRecording]:
  """The objects of a stretch of a file of JSON lines; empty lines are none."""
  for line in stored.lines(place, found):
    if isinstance(line, BadRecording):
      yield line
      continue
    if not line.data.strip():
      continue
    name = f"{found.file.name}@{line.at}"
    try:
      yield name, parse(stored.text(line.data, name=name), name=name)
    except BadRecording as error:
      yield error


def parse(text: str, *, name: str) -> dict[str, Any]:
  """The JSON object that a text is.

  Raises:
    BadRecording: it is none.
  """
  record = _value(text, name=name)
  if not isinstance(record, dict):
    raise BadRecording(
      Reason.BROKEN_METADATA, f"{name}: {record!r:.80} is no JSON object"
    )
  return record


def value_of(data: bytes, *, name: str) -> Any:
  """The JSON value that a file is, with or without a mark of byte order.

  Raises:
    BadRecording: it is none.
  """
  return _value(stored.text(data, name=name).removeprefix("\ufeff"), name=name)


def _value(text: str, *, name: str) -> Any:
  try:
    return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise BadRecording(
      Reason.BROKEN_METADATA, f"{name}: {error!r:.200}"
    ) from error


def text_of(
  record: Mapping[str, Any],
  field: str,
  *,
  name: str,
  missing: Reason = Reason.NO_TEXT,
) -> str:
  """The text in a field of a record.

  Raises:
    BadRecording: null, NaN, a number, half a character or nothing but spaces.
  """
  value = record.get(field)
  if not isinstance(value, str) or not value.strip():
    raise BadRecording(missing, f"{name}: {field} is {value!r:.80}")
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise BadRecording(
      Reason.NOT_UTF8, source.as_text(f"{name}: {field} has half a character")
    ) from error
  return value


def documents_of(
  record: Mapping[str, Any],
  *,
  name: str,
  options: options_lib.Options,
) -> Iterator[Document | BadRecording]:
  """The document in a record, in parts where it is long, or why there is none.

  Args:
    record: by field.
    name: of the record.
    options: `text` and `id` name its fields.
  """
  try:
    text = text_of(record, options["text"], name=name)
    if options["id"]:
      name = text_of(record, options["id"], name=name)
  except BadRecording as error:
    yield error
    return
  yield from documents(name, text, metadata=options.metadata("document"))


def documents(
  name: str, text: str, *, metadata: dict[str, Any]
) -> Iterator[Document]:
  """A text as one document, or as several where it is long."""
  yield from document.cut(Document(name, text, metadata))
