"""Documents in parquet: a column of text, a document a row.

For: *.parquet, as most published text is. Not for: sound or pictures there.
Options: `text`, the column that holds the text; `id`, a column that names the
document, else its file and row do. A part is a row group, of which a few rows
are in memory at a time.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from tml_jax import errors, registry
from tml_jax.data import options as options_lib
from tml_jax.data import records, source, stored
from tml_jax.data.source import BadRecording, Part, Reason
from tml_jax.streams.document import Document

_KNOWN = {"text": "text", "id": ""}
_ROWS = 16  # in memory at a time
_BUFFER = 1 << 20
_BROKEN = (pa.ArrowException, OSError, ValueError)


@dataclasses.dataclass(frozen=True)
class _Group:
  """A row group; of a file whose footer is broken, the whole, `number` -1."""

  file: stored.File
  number: int
  first: int  # row of the file
  bytes: int

  @property
  def part(self) -> Part:
    name = f"{self.file.name}#{self.number}"
    return Part(name, f"{self.file.stamp} group {self.number}", self.bytes)


class Parquet:
  """The documents of a file, or of all files of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    self._place, self._options = stored.Place(src), options
    self._columns = [c for c in (options["text"], options["id"]) if c]
    self._groups = {
      group.part.name: group
      for file in self._place.files(ends=(".parquet",))
      for group in self._groups_of(file)
    }

  def parts(self) -> list[Part]:
    return [group.part for group in self._groups.values()]

  def read(self, part: Part) -> Iterator[Document | BadRecording]:
    group, metadata = (
      self._groups[part.name],
      self._options.metadata("document"),
    )
    row = group.first
    try:
      with self._place.fs.open(group.file.path, "rb") as handle:
        opened = parquet.ParquetFile(
          handle, buffer_size=_BUFFER, pre_buffer=False
        )
        for batch in opened.iter_batches(
          batch_size=_ROWS, row_groups=[group.number], columns=self._columns
        ):
          for values in zip(*(batch[c] for c in self._columns), strict=True):
            yield from self._documents(
              values, name=f"{group.file.name}#{row}", metadata=metadata
            )
            row += 1
    except stored.TRANSIENT:
      raise
    except _BROKEN as error:
      yield BadRecording(
        Reason.UNREADABLE, f"{group.file.name}, row {row} on: {error!r:.200}"
      )

  def _groups_of(self, file: stored.File) -> Iterator[_Group]:
    try:
      with self._place.fs.open(file.path, "rb") as handle:
        footer = parquet.ParquetFile(handle, pre_buffer=False).metadata
        names = footer.schema.to_arrow_schema().names
        sizes = [
          (footer.row_group(i).num_rows, footer.row_group(i).total_byte_size)
          for i in range(footer.num_row_groups)
        ]
    except stored.TRANSIENT:
      raise
    except _BROKEN:
      yield _Group(file, -1, 0, file.size)  # `read` says what is wrong
      return
    for column in self._columns:
      if column not in names:
        near = registry.nearest(column, names=names)
        raise errors.UserError(
          f"{file.name} has no column {column!r}; {near}: name it with"
          " text=COLUMN"
        )
    first = 0
    for number, (rows, size) in enumerate(sizes):
      yield _Group(file, number, first, size)
      first += rows

  def _documents(
    self, values: tuple[Any, ...], *, name: str, metadata: dict[str, str]
  ) -> Iterator[Document | BadRecording]:
    try:
      record = {
        column: _python(value, name=name)
        for column, value in zip(self._columns, values, strict=True)
      }
      text = records.text_of(record, self._options["text"], name=name)
      if self._options["id"]:
        name = records.text_of(record, self._options["id"], name=name)
    except BadRecording as error:
      yield error
      return
    yield from records.documents(name, text, metadata=metadata)


def _python(value: Any, *, name: str) -> Any:
  """The value of a cell; a text that was written as bytes is one.

  Raises:
    BadRecording: not in UTF-8.
  """
  try:
    found = value.as_py()
  except UnicodeDecodeError as error:
    raise BadRecording(Reason.NOT_UTF8, name) from error
  return stored.text(found, name=name) if isinstance(found, bytes) else found


@source.register_importer("parquet")
def open_parquet(src: str, *, options: Mapping[str, str]) -> Parquet:
  """The file or folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="parquet")
  return Parquet(src, options=known)
