"""Recordings to shards: unit by unit, each whole or absent.

For: `prepare`, and scripts that write a corpus of their own. Not for: which
recordings make a unit (`data.plan`). Start reading at `write_unit`, then
`finish`; `write` does both in one process.

  DATA/NAME/units/UNIT-00000.array_record   shards of at most about 256 MiB
  DATA/NAME/units/UNIT.parquet              a row for each recording of a unit
  DATA/NAME/table-DIGEST.parquet            all rows, what a loader needs
  DATA/NAME/index.json                      the units, sizes, checksums, report

A unit's table is written after its shards, and says what it was made of: a unit
is there when its table is. The index is written last: a corpus is what its
index names. Other files are left from a run that was cut; `finish` removes
those that no unit needs.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute  # as pa.compute
from array_record.python import array_record_module

from tml_jax.data.corpus import coding, table
from tml_jax.data.corpus import index as index_lib
from tml_jax.data.corpus.coding import Item
from tml_jax.data.corpus.index import (
  INDEX,
  File,
  Index,
  Shard,
  Unit,
  shard_name,
  table_name,
  whole_table_name,
)
from tml_jax.data.corpus.place import Place

SHARD_BYTES = 256 << 20
_PARTIAL = ".partial-"
# One record a chunk: random access reads nothing else. FLAC does not compress.
_OPTIONS = "group_size:1,uncompressed"


def write(
  items: Iterable[Item],
  *,
  path: str | os.PathLike[str],
  report: dict[str, Any] | None = None,
) -> Index:
  """Writes a corpus in this process, in place of one that is at `path`.

  Args:
    items: valid recordings and documents, read once.
    path: folder or URL of the corpus.
    report: JSON values for `Index.report`.

  Raises:
    OSError, errors.UserError: it cannot be written.
  """
  place = Place(path)
  unit = write_unit(items, name=None, place=place, meta=dict)
  return finish([unit], place=place, report=report or {})


def write_unit(
  items: Iterable[Item],
  *,
  name: str | None,
  place: Place,
  meta: Callable[[], dict[str, Any]],
) -> Unit:
  """Writes the shards of a unit, then its table.

  Memory holds one recording and the rows.

  Args:
    items: valid recordings and documents, read once.
    name: of the unit; None for one that tells its content.
    place: of the corpus.
    meta: gives JSON values to be kept with the rows; asked at the end.

  Raises:
    OSError, errors.UserError: it cannot be written.
  """
  with _folder(place) as folder:
    shards, rows = _write_shards(items, folder=folder)
    name = name or f"{zlib.crc32(repr((shards, rows)).encode()):016x}"
    for number, shard in enumerate(shards):
      file = shard_name(name, number=number)
      place.put(folder / shard.file, file)
      shards[number] = dataclasses.replace(shard, file=file)
  content = table.to_bytes(
    rows,
    meta=meta() | {"shards": [dataclasses.asdict(each) for each in shards]},
  )
  place.write(table_name(name), content=content)
  return _unit_of(name, content, shards=shards, rows=rows)


def _unit_of(
  name: str,
  content: bytes,
  *,
  shards: Sequence[Shard],
  rows: Sequence[table.Row],
) -> Unit:
  return Unit(
    name=name,
    rows=len(rows),
    seconds=sum(row.seconds for row in rows),
    shards=tuple(shards),
    table=File(table_name(name), len(content), zlib.crc32(content)),
  )


@dataclasses.dataclass(frozen=True)
class Found:
  """A unit that is finished, as its table tells.

  Attributes:
    unit: it.
    meta: what it was written with.
    rows: its table, without the text.
  """

  unit: Unit
  meta: dict[str, Any]
  rows: pa.Table


def find_unit(name: str, *, place: Place, sizes: dict[str, int]) -> Found:
  """A unit of a corpus, by its table.

  Args:
    name: of the unit.
    place: of the corpus.
    sizes: of the files there.

  Raises:
    ValueError: it is not finished, or a file is not as it was written.
  """
  try:
    content = place.read(table_name(name))
  except FileNotFoundError as error:
    raise ValueError("it is not there") from error
  meta = table.meta_of(content)
  columns = [each for each in table.SCHEMA.names if each != "text"]
  rows = table.read(content, columns=columns)
  try:
    shards = tuple(Shard(**shard) for shard in meta.pop("shards"))
  except (KeyError, TypeError) as error:
    raise ValueError(f"its table names no shards: {error!r}") from error
  for number, shard in enumerate(shards):
    if shard.file != shard_name(name, number=number):
      raise ValueError(f"shard {number} is {shard.file!r:.99}")
    if sizes.get(shard.file) != shard.bytes:
      raise ValueError(
        f"{shard.file} has {sizes.get(shard.file, 'no')} bytes, its table"
        f" says {shard.bytes}"
      )
  unit = Unit(
    name=name,
    rows=rows.num_rows,
    seconds=float(sum(rows.column("seconds").to_pylist())),
    shards=shards,
    table=File(table_name(name), len(content), zlib.crc32(content)),
  )
  return Found(unit, meta, rows)


def unit_names(sizes: dict[str, int]) -> list[str]:
  """Units whose table is among the files of a corpus."""
  return sorted(
    pathlib.PurePosixPath(name).stem
    for name in sizes
    if name.startswith(f"{index_lib.UNITS}/") and name.endswith(".parquet")
  )


def finish(
  units: Sequence[Unit],
  *,
  place: Place,
  report: dict[str, Any],
) -> Index:
  """Makes a corpus of units that are written, in this order.

  Raises:
    errors.UserError: it cannot be written.
    ValueError: a unit is damaged.
  """
  parts, before = [], 0
  for unit in units:
    content = place.read(unit.table.file)
    rows = table.read(content, columns=table.PLACES)
    number = rows.schema.get_field_index("shard")
    shard = pa.compute.add(rows.column("shard"), pa.scalar(before, pa.int32()))
    parts.append(rows.set_column(number, rows.schema.field("shard"), shard))
    before += len(unit.shards)
  content = table.write(pa.concat_tables(parts), meta={})
  name = whole_table_name(units)
  place.write(name, content=content)
  index = Index(
    tuple(units), File(name, len(content), zlib.crc32(content)), report
  )
  place.write(INDEX, content=index_lib.to_text(index).encode())
  _remove_others(index, place=place)
  return index


def _remove_others(index: Index, *, place: Place) -> None:
  """Removes what the index does not name, and what killed processes left."""
  if place.is_local:
    for folder in (place.path / index_lib.UNITS).glob(f"{_PARTIAL}*"):
      shutil.rmtree(folder, ignore_errors=True)
  named = {shard.file for shard in index.shards} | {index.table.file}
  named |= {unit.table.file for unit in index.units}
  for name in place.sizes():
    ours = name.startswith((f"{index_lib.UNITS}/", "table-"))
    if ours and name not in named:
      place.remove(name)


def _write_shards(
  items: Iterable[Item], *, folder: pathlib.Path
) -> tuple[list[Shard], list[table.Row]]:
  shards: list[Shard] = []
  rows: list[table.Row] = []
  budget = table.TEXT_BUDGET
  writer: _Writer | None = None
  try:
    for item in items:
      records = coding.encode(item)
      if writer is None:
        writer = _Writer(folder / str(len(shards)))
      row = table.row_of(
        item,
        shard=len(shards),
        first=writer.records,
        records=len(records),
        budget=budget,
      )
      budget -= len(row.text or "")
      rows.append(row)
      writer.write(records)
      del item, records  # before the next is decoded
      if writer.bytes >= SHARD_BYTES:
        shards.append(writer.close())
        writer = None
    if writer is not None:
      shards.append(writer.close())
      writer = None
  finally:
    if writer is not None:
      with contextlib.suppress(OSError):
        writer.close()
  return shards, rows


class _Writer:
  """One shard, on the local disk until it is finished.

  Attributes:
    records: that are in it.
    bytes: of them.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._writer = array_record_module.ArrayRecordWriter(str(path), _OPTIONS)
    self.records = self.bytes = 0

  def write(self, records: list[bytes]) -> None:
    with _as_os_error():
      for record in records:
        self._writer.write(record)
    self.records += len(records)
    self.bytes += sum(map(len, records))

  def close(self) -> Shard:
    with _as_os_error():
      self._writer.close()
    return Shard(
      file=self._path.name,
      bytes=self._path.stat().st_size,
      crc32=crc32_of(self._path),
      records=self.records,
    )


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
  """ArrayRecord reports a full disk as RuntimeError."""
  try:
    yield
  except RuntimeError as error:
    raise OSError(str(error)) from error


@contextlib.contextmanager
def _folder(place: Place) -> Iterator[pathlib.Path]:
  """Where shards grow: on the disk of a local corpus, so that one renames."""
  inside = None
  if place.is_local:
    inside = place.path / index_lib.UNITS
    inside.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=inside) as folder:
    yield pathlib.Path(folder)


def crc32_of(file: pathlib.Path) -> int:
  """CRC-32 of a file."""
  checksum = 0
  with open(file, "rb") as handle:
    while block := handle.read(1 << 22):
      checksum = zlib.crc32(block, checksum)
  return checksum
