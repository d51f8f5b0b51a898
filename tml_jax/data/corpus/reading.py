"""A prepared corpus, read by number.

For: random access to recordings, whole or a stretch. Not for: what a recording
is in bytes (`coding`) or how it got there (`writing`). Start reading at
`RecordSource`. Opening reads the index and five columns of the table; sizes of
files are checked then, the checksum of a record whenever it is read, and whole
files only by `verify`, which reads everything.
"""

import collections
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from array_record.python import array_record_module

from tml_jax import errors, files
from tml_jax.data.corpus import coding, table, writing
from tml_jax.data.corpus import index as index_lib
from tml_jax.data.corpus.coding import Item
from tml_jax.data.corpus.index import INDEX, File, Index
from tml_jax.streams.timeline import Timeline

_MAX_OPEN = 128  # shards of all corpora in a process
_FIX = "run `python -m tml_jax.prepare` again: it rebuilds damaged corpora"
_MISSING = "run `python -m tml_jax.prepare` with this config and data_dir first"


class DamagedRecord(errors.UserError):
  """A record whose bytes are not those that were written; names its place."""


class RecordSource:
  """A prepared corpus as a `Source`.

  Attributes:
    index: of it.
    seconds: [recordings] float64; 0 of a document.
    split_hash: [recordings] uint64, see `splits`.
    letters: [recordings] int64, of documents; 0 of others.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Opens the corpus in the folder `path`.

    Raises:
      errors.UserError: no such corpus, or a file is missing or truncated.
    """
    self._path = pathlib.Path(path)
    self.index = read_index(self._path)
    for file in [*self.index.shards, self.index.table]:
      _check_size(self._path, file)
    rows = _read_table(self._path, self.index.table, columns=table.PLACES)
    if rows.num_rows != self.index.records:
      raise errors.UserError(
        f"{self._path / self.index.table.file} has {rows.num_rows} rows where"
        f" {INDEX} says {self.index.records}; {_FIX}"
      )
    try:
      self.split_hash, self.seconds, letters, *places = (
        table.numbers(rows.column(name)) for name in table.PLACES
      )
    except ValueError as error:
      raise errors.UserError(
        f"{self._path / self.index.table.file} is corrupt: {error}; {_FIX}"
      ) from error
    self._shard, self._first, self._count = places
    self.letters = np.where(self.seconds == 0, letters, 0)
    if len(self) and int(self._shard.max()) >= len(self.index.shards):
      raise errors.UserError(
        f"{self._path / self.index.table.file} names shard"
        f" {self._shard.max()} of {len(self.index.shards)}; {_FIX}"
      )

  @property
  def name(self) -> str:
    return self._path.name

  def __len__(self) -> int:
    return self.index.records

  def __getitem__(self, index: int) -> Any:  # Timeline, or Document
    """Recording `index`, whole.

    Raises:
      IndexError: out of range.
      DamagedRecord: names the shard.
    """
    return self._decode(index, seconds=None)

  def stretch(self, index: int, *, start: float, stop: float) -> Timeline:
    """Recording `index` with its sound and pictures from `start` to `stop`.

    Reads those alone, in whole chunks. Elsewhere there is silence, which takes
    no memory, and there are no pictures; words, events and the duration are
    those of the whole recording.

    Args:
      index: of a recording that is no document.
      start: seconds.
      stop: seconds.

    Raises:
      IndexError, DamagedRecord: as of `self[index]`.
    """
    item = self._decode(index, seconds=(start, stop))
    assert isinstance(item, Timeline), f"{self!r}[{index}] is a document"
    return item

  def outline(self, index: int) -> Item:
    """Recording `index` without its sound and pictures: `coding.outline`.

    Raises:
      IndexError, DamagedRecord: as of `self[index]`.
    """
    return self._read(index, lambda read, count: coding.outline(read([0])[0]))

  def texts(self) -> Iterator[str]:
    """What is said, typed and shown, as far as the tables have it."""
    for unit in self.index.units:
      rows = _read_table(self._path, unit.table, columns=("text",))
      for text in rows.column("text").to_pylist():
        if text:
          yield from text.split("\n")

  def columns(self, *names: str) -> dict[str, list[Any]]:
    """Columns of `table.Row` in the order of the recordings."""
    rows = self.rows(*names)
    return {name: rows.column(name).to_pylist() for name in names}

  def rows(self, *names: str) -> pa.Table:
    """Columns of `table.Row` in the order of the recordings, as they lie."""
    return pa.concat_tables(
      _read_table(self._path, unit.table, columns=names)
      for unit in self.index.units
    )

  def _decode(self, index: int, *, seconds: tuple[float, float] | None) -> Item:
    return self._read(
      index,
      lambda read, count: coding.decode(read, records=count, seconds=seconds),
    )

  def _read(self, index: int, make: Callable[[coding.Read, int], Item]) -> Item:
    """What is made of a recording's records, of which there are so many."""
    if not 0 <= index < len(self):
      raise IndexError(f"{self._path}: record {index} of {len(self)}")
    shard = self.index.shards[self._shard[index]]
    first, count = int(self._first[index]), int(self._count[index])

    def read(numbers: Sequence[int]) -> list[bytes]:
      reader = _READERS.get(self._path / shard.file)
      if reader.num_records() != shard.records:
        raise ValueError(
          f"{INDEX} says {shard.records} records, there are"
          f" {reader.num_records()}"
        )
      return reader.read([first + number for number in numbers])

    try:
      return make(read, count)
    except (ValueError, RuntimeError, IndexError) as error:
      raise DamagedRecord(
        f"{self._path / shard.file}: record {first} (recording {index} of the"
        f" corpus) is corrupt: {error}; {_FIX}"
      ) from error

  def __reduce__(self) -> tuple[type["RecordSource"], tuple[pathlib.Path]]:
    return type(self), (self._path,)  # workers open the files themselves

  def __repr__(self) -> str:  # Grain puts it in error messages
    return f"RecordSource({str(self._path)!r})"


class _Readers:
  """Open shards of all corpora of a process, the last ones that were used.

  A mixture of many corpora would open more files than a process may have.
  """

  def __init__(self, most: int):
    self._most = most
    self._lock = threading.Lock()
    self._open: collections.OrderedDict[pathlib.Path, Any] = (
      collections.OrderedDict()
    )

  def get(self, path: pathlib.Path) -> Any:
    """Reader of a shard; one that is dropped here lives while it reads."""
    with self._lock:
      if path in self._open:
        self._open.move_to_end(path)
        return self._open[path]
      reader = array_record_module.ArrayRecordReader(
        str(path),
        options="readahead_buffer_size:0",
        file_reader_buffer_size=32768,
      )
      self._open[path] = reader
      if len(self._open) > self._most:
        self._open.popitem(last=False)
      return reader


_READERS = _Readers(_MAX_OPEN)


def read_index(path: str | os.PathLike[str]) -> Index:
  """index.json of the corpus in the folder `path`.

  Raises:
    errors.UserError: not there, broken, or of another version.
  """
  file = pathlib.Path(path) / INDEX
  if not file.is_file():
    raise errors.UserError(f"no prepared corpus: {file} is missing; {_MISSING}")
  try:
    return index_lib.parse(file.read_bytes())
  except (OSError, ValueError) as error:
    raise errors.UserError(f"{file} is broken: {error}; {_FIX}") from error


def verify(path: str | os.PathLike[str]) -> Index:
  """Reads a whole corpus against its checksums.

  Raises:
    errors.UserError: anything is missing or damaged; names the file.
  """
  index = read_index(path)
  named = [*index.shards, index.table, *(unit.table for unit in index.units)]
  for file in named:
    _check_size(pathlib.Path(path), file)
    found = writing.crc32_of(pathlib.Path(path) / file.file)
    if found != file.crc32:
      raise errors.UserError(
        f"{pathlib.Path(path) / file.file} is corrupt: its CRC-32 is "
        f"{found:08x}, {INDEX} says {file.crc32:08x}; {_FIX}"
      )
  return index


def _read_table(
  path: pathlib.Path, file: File, *, columns: Sequence[str]
) -> Any:
  try:
    return table.read(path / file.file, columns=columns)
  except ValueError as error:
    raise errors.UserError(
      f"{path / file.file} is corrupt: {error}; {_FIX}"
    ) from error


def _check_size(path: pathlib.Path, file: File) -> None:
  found = path / file.file
  files.check_inside(found, root=path, what=f"the corpus {path}")
  if not found.is_file():
    raise errors.UserError(f"{found} is missing; {_FIX}")
  size = found.stat().st_size
  if size != file.bytes:
    raise errors.UserError(
      f"{found} has {size} bytes where {INDEX} says {file.bytes}; {_FIX}"
    )
