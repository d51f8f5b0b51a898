"""Prepared corpora on disk: ArrayRecord shards with an index, read by number.

For: writing a corpus so that a killed process leaves nothing half-written,
and random access to its timelines. Not for: what is in them (`sources`).
Start reading at `RecordSource`. A corpus is a folder:

  data-00000-of-00004.array_record ...   record i is in shard i % 4
  index.json                             counts, sizes and checksums

A record is the CRC-32 of a serialised timeline or document (4 bytes, little
endian) and it. Sizes are checked on opening, record checksums on every read and
whole files only by `verify`, which reads everything.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from array_record.python import array_record_module

from tml_jax import errors, files
from tml_jax.streams import document, timeline

INDEX = "index.json"
_FORMAT = 1
_NUM_SHARDS = 4
_MOST = 1 << 53  # of any number in the index
# One record a chunk: random access reads nothing else. PCM does not compress.
_OPTIONS = "group_size:1,uncompressed"
_FIX = "run `python -m tml_jax.prepare` again: it rebuilds damaged corpora"
_MISSING = "run `python -m tml_jax.prepare` with this config and data_dir first"


@dataclasses.dataclass(frozen=True)
class Shard:
  file: str
  records: int
  bytes: int
  crc32: int


@dataclasses.dataclass(frozen=True)
class Index:
  """What index.json holds.

  Attributes:
    shards: in order.
    seconds: duration of all records together.
    report: of the preparation: skipped recordings by reason.
  """

  shards: tuple[Shard, ...]
  seconds: float
  report: dict[str, Any]

  @property
  def records(self) -> int:
    return sum(shard.records for shard in self.shards)

  @property
  def digest(self) -> str:
    """Names this content; equal for equal corpora."""
    data = json.dumps([dataclasses.asdict(shard) for shard in self.shards])
    return f"{zlib.crc32(data.encode()):08x}"


@dataclasses.dataclass(frozen=True)
class Record:
  """A serialised timeline or document, and how many seconds it lasts."""

  data: bytes
  seconds: float

  @classmethod
  def of(cls, item: timeline.Timeline | document.Document) -> "Record":
    if isinstance(item, document.Document):
      return cls(document.to_bytes(item), 0.0)
    return cls(timeline.to_bytes(item), item.duration)


class RecordSource:
  """A prepared corpus as a `Source`."""

  def __init__(self, path: str | os.PathLike[str]):
    """Opens the corpus in the folder `path`.

    Raises:
      errors.UserError: no such corpus, or a shard is missing or truncated.
    """
    self._path = pathlib.Path(path)
    self.index = read_index(self._path)
    self._lock = threading.Lock()
    self._readers: dict[int, Any] = {}
    for shard in self.index.shards:
      _check_size(self._path, shard)

  @property
  def name(self) -> str:
    return self._path.name

  def __len__(self) -> int:
    return self.index.records

  def __getitem__(self, index: int) -> Any:
    """The timeline or document of record `index`.

    Raises:
      IndexError: out of range.
      errors.UserError: the record is corrupt; names shard and index.
    """
    if not 0 <= index < len(self):
      raise IndexError(f"{self._path}: record {index} of {len(self)}")
    number, position = divmod(index, len(self.index.shards))[::-1]
    shard = self.index.shards[number]
    try:
      data = self._reader(number).read([position])[0]
      checksum = struct.unpack_from("<I", data)[0]
      if zlib.crc32(memoryview(data)[4:]) != checksum:
        raise ValueError("checksum mismatch")
      record = data[4:]
      if document.is_document(record):
        return document.from_bytes(record)
      return timeline.from_bytes(record)
    except (ValueError, RuntimeError, IndexError, struct.error) as error:
      raise errors.UserError(
        f"{self._path / shard.file}: record {position} (index {index} of the "
        f"corpus) is corrupt: {error}; {_FIX}"
      ) from error

  def _reader(self, number: int) -> Any:
    with self._lock:
      if number not in self._readers:
        shard = self.index.shards[number]
        reader = array_record_module.ArrayRecordReader(
          str(self._path / shard.file),
          options="readahead_buffer_size:0",
          file_reader_buffer_size=32768,
        )
        if reader.num_records() != shard.records:
          raise ValueError(
            f"{INDEX} says {shard.records} records, there are"
            f" {reader.num_records()}"
          )
        self._readers[number] = reader
      return self._readers[number]

  def __reduce__(self) -> tuple[type["RecordSource"], tuple[pathlib.Path]]:
    return type(self), (self._path,)  # workers open the files themselves

  def __repr__(self) -> str:  # Grain puts it in error messages
    return f"RecordSource({str(self._path)!r})"


def read_index(path: str | os.PathLike[str]) -> Index:
  """index.json of the corpus in the folder `path`.

  Raises:
    errors.UserError: not there, broken, or of another version.
  """
  file = pathlib.Path(path) / INDEX
  if not file.is_file():
    raise errors.UserError(f"no prepared corpus: {file} is missing; {_MISSING}")
  try:
    content = files.load_json(file)
    if content["format"] != _FORMAT:
      raise ValueError(f"format {content['format']!r}, want {_FORMAT}")
    return _index_of(content)
  except KeyError as error:
    raise errors.UserError(f"{file} is broken: no {error}; {_FIX}") from error
  except (OSError, ValueError, TypeError, AttributeError) as error:
    raise errors.UserError(f"{file} is broken: {error}; {_FIX}") from error


def _index_of(content: dict[str, Any]) -> Index:
  """Checks every value: the file may have been edited, or be a stranger's.

  Raises:
    ValueError, KeyError, TypeError, AttributeError: which one is wrong.
  """
  shards = tuple(Shard(**shard) for shard in content["shards"])
  if not shards:
    raise ValueError("shards = []")
  for number, shard in enumerate(shards):
    want = _name(number, count=len(shards))
    if shard.file != want:
      raise ValueError(f"shard {number} is {shard.file!r:.99}, want {want}")
    for name in ("records", "bytes", "crc32"):
      _check_whole(getattr(shard, name), name=f"{name} of {want}")
  total = sum(shard.records for shard in shards)
  if not total:
    raise ValueError("it has no records")
  for number, shard in enumerate(shards):
    records = len(range(number, total, len(shards)))
    if shard.records != records:
      raise ValueError(
        f"{shard.file} has {shard.records} records of {total}, want {records}"
      )
  seconds = content["seconds"]
  if type(seconds) not in (int, float) or not 0 <= seconds < _MOST:
    raise ValueError(f"seconds = {seconds!r}")
  report = content["report"]
  size = report.get("video", [1, 1])
  if len(size) != 2 or not all(type(each) is int for each in size):
    raise ValueError(f"video = {size!r:.99}")
  for part in ("skipped", "left out"):
    for reason, entry in report.get(part, {}).items():
      _check_whole(entry["count"], name=f"count of {reason!r:.99}")
  return Index(shards=shards, seconds=float(seconds), report=report)


def _name(number: int, *, count: int) -> str:
  """The file of a shard: nothing else is read, and nothing elsewhere."""
  return f"data-{number:05d}-of-{count:05d}.array_record"


def _check_whole(value: object, *, name: str) -> None:
  if type(value) is not int or not 0 <= value < _MOST:
    raise ValueError(f"{name} = {value!r:.99}, want a whole number")


def verify(path: str | os.PathLike[str]) -> Index:
  """Reads a whole corpus against its checksums.

  Raises:
    errors.UserError: anything is missing or damaged; names the shard.
  """
  index = read_index(path)
  for shard in index.shards:
    _check_size(pathlib.Path(path), shard)
    found = _crc32_of(pathlib.Path(path) / shard.file)
    if found != shard.crc32:
      raise errors.UserError(
        f"shard {pathlib.Path(path) / shard.file} is corrupt: its CRC-32 is "
        f"{found:08x}, index.json says {shard.crc32:08x}; {_FIX}"
      )
  return index


def write(
  records: Iterable[Record],
  *,
  path: str | os.PathLike[str],
  report: dict[str, Any],
  beside: dict[str, Any] | None = None,
) -> Index:
  """Writes a corpus and puts it in place whole, or not at all.

  The work happens in a folder beside `path`; what a killed process left there
  is removed. A corpus that exists at `path` is replaced.

  Args:
    records: read once; `report` is stored after the last one was read.
    path: the folder of the corpus.
    report: JSON values for `Index.report`; may fill up while reading.
    beside: JSON values by name of a file beside the index; as `report`.

  Raises:
    OSError: it cannot be written; the disk is full, for instance.
  """
  path = pathlib.Path(path)
  partial = path.parent / f".partial-{path.name}"
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  names = [_name(i, count=_NUM_SHARDS) for i in range(_NUM_SHARDS)]
  writers = [
    array_record_module.ArrayRecordWriter(str(partial / name), _OPTIONS)
    for name in names
  ]
  counts, seconds = [0] * _NUM_SHARDS, 0.0
  for i, record in enumerate(records):
    checksum = struct.pack("<I", zlib.crc32(record.data))
    with _as_os_error():
      writers[i % _NUM_SHARDS].write(checksum + record.data)
    counts[i % _NUM_SHARDS] += 1
    seconds += record.seconds
  shards = []
  for name, writer, count in zip(names, writers, counts, strict=True):
    with _as_os_error():
      writer.close()
    file = partial / name
    with open(file, "rb+") as handle:
      os.fsync(handle.fileno())
    shards.append(Shard(name, count, file.stat().st_size, _crc32_of(file)))
  index = Index(shards=tuple(shards), seconds=seconds, report=report)
  for name, content in (beside or {}).items():
    write_json(content, partial / name)
  write_json({"format": _FORMAT} | dataclasses.asdict(index), partial / INDEX)
  if path.exists():
    shutil.rmtree(path)
  os.rename(partial, path)
  return index


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
  """ArrayRecord reports a full disk as RuntimeError."""
  try:
    yield
  except RuntimeError as error:
    raise OSError(str(error)) from error


def write_json(content: Any, path: pathlib.Path) -> None:
  """Writes JSON, whole or not at all."""
  text = json.dumps(content, indent=2, ensure_ascii=False)
  files.write_atomically(path, content=f"{text}\n")


def _check_size(path: pathlib.Path, shard: Shard) -> None:
  file = path / shard.file
  files.check_inside(file, root=path, what=f"the corpus {path}")
  if not file.is_file():
    raise errors.UserError(f"shard {file} is missing; {_FIX}")
  size = file.stat().st_size
  if size != shard.bytes:
    raise errors.UserError(
      f"shard {file} has {size} bytes where index.json says {shard.bytes}; "
      f"{_FIX}"
    )


def _crc32_of(file: pathlib.Path) -> int:
  checksum = 0
  with open(file, "rb") as handle:
    while block := handle.read(1 << 22):
      checksum = zlib.crc32(block, checksum)
  return checksum
