"""Rows of parquet files, a few in memory at a time.

For: importers of tables. Not for: what is in the cells. A part is a row group.
Start at `Rows`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from tml_jax import errors, registry
from tml_jax.data import stored
from tml_jax.data.source import BadRecording, Part, Reason

# A row by its columns, and its name: of the file, and the number in it.
Row = tuple[str, dict[str, Any]]

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


class Rows:
  """Some columns of files."""

  def __init__(
    self,
    place: stored.Place,
    files: Sequence[stored.File],
    *,
    columns: Sequence[str],
    together: int,
  ):
    """Reads the footers.

    Args:
      place: of the files.
      files: parquet.
      columns: that are read.
      together: rows that are in memory at a time.

    Raises:
      errors.UserError: a file has not the columns.
    """
    self._place, self._columns, self._together = place, columns, together
    self._groups = {
      group.part.name: group for file in files for group in self._of(file)
    }

  def parts(self) -> list[Part]:
    return [group.part for group in self._groups.values()]

  def __contains__(self, part: Part) -> bool:
    return part.name in self._groups

  def file(self, part: Part) -> stored.File:
    return self._groups[part.name].file

  def read(self, part: Part) -> Iterator[Row | BadRecording]:
    group = self._groups[part.name]
    row = group.first
    try:
      with self._place.fs.open(group.file.path, "rb") as handle:
        opened = parquet.ParquetFile(
          handle, buffer_size=_BUFFER, pre_buffer=False
        )
        for batch in opened.iter_batches(
          batch_size=self._together,
          row_groups=[group.number],
          columns=self._columns,
        ):
          for values in zip(*(batch[c] for c in self._columns), strict=True):
            yield self._row(values, name=f"{group.file.name}#{row}")
            row += 1
    except stored.TRANSIENT:
      raise
    except _BROKEN as error:
      yield BadRecording(
        Reason.UNREADABLE, f"{group.file.name}, row {row} on: {error!r:.200}"
      )

  def _row(self, values: tuple[Any, ...], *, name: str) -> Row | BadRecording:
    try:
      found = [value.as_py() for value in values]
    except UnicodeDecodeError:
      return BadRecording(Reason.NOT_UTF8, name)
    except (ValueError, OverflowError) as error:  # a date of another age
      return BadRecording(Reason.BROKEN_METADATA, f"{name}: {error!r:.200}")
    return name, dict(zip(self._columns, found, strict=True))

  def _of(self, file: stored.File) -> Iterator[_Group]:
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
          f" --option=NAME=COLUMN"
        )
    first = 0
    for number, (rows, size) in enumerate(sizes):
      yield _Group(file, number, first, size)
      first += rows
