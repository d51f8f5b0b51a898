"""index.json of a corpus: its units and files, with sizes and checksums.

For: the names and the meaning of files, for who writes and who reads. Not for:
what is in them. Start reading at `Index`.
"""

import dataclasses
import json
import re
import zlib
from collections.abc import Sequence
from typing import Any

INDEX = "index.json"
FORMAT = 2
UNITS = "units"
_MOST = 1 << 53  # of any number in the index
_UNIT_NAME = re.compile("[0-9a-f]{16}")


@dataclasses.dataclass(frozen=True)
class File:
  """A file of a corpus, by its name in the corpus' folder."""

  file: str
  bytes: int
  crc32: int


@dataclasses.dataclass(frozen=True)
class Shard(File):
  """A file of records."""

  records: int


@dataclasses.dataclass(frozen=True)
class Unit:
  """Recordings that were written together.

  Attributes:
    name: of it, 16 hexadecimal digits.
    rows: recordings.
    seconds: of them together.
    shards: their records.
    table: their rows.
  """

  name: str
  rows: int
  seconds: float
  shards: tuple[Shard, ...]
  table: File


@dataclasses.dataclass(frozen=True)
class Index:
  """What index.json holds.

  Attributes:
    units: in order.
    table: rows of all of them.
    report: of the preparation.
  """

  units: tuple[Unit, ...]
  table: File
  report: dict[str, Any]

  @property
  def shards(self) -> tuple[Shard, ...]:
    return tuple(shard for unit in self.units for shard in unit.shards)

  @property
  def records(self) -> int:
    """Recordings."""
    return sum(unit.rows for unit in self.units)

  @property
  def seconds(self) -> float:
    return sum(unit.seconds for unit in self.units)

  @property
  def digest(self) -> str:
    """Names this content; equal for equal corpora."""
    return _digest(self.units)


def _digest(units: Sequence[Unit]) -> str:
  data = json.dumps([dataclasses.asdict(unit) for unit in units])
  return f"{zlib.crc32(data.encode()):08x}"


def shard_name(unit: str, *, number: int) -> str:
  """The file of a shard: nothing else is read, and nothing elsewhere."""
  return f"{UNITS}/{unit}-{number:05d}.array_record"


def table_name(unit: str) -> str:
  """The file of a unit's rows."""
  return f"{UNITS}/{unit}.parquet"


def whole_table_name(units: Sequence[Unit]) -> str:
  """The file of all rows."""
  return f"table-{_digest(units)}.parquet"


def to_text(index: Index) -> str:
  """What is written."""
  return json_text({"format": FORMAT} | dataclasses.asdict(index))


def json_text(content: dict[str, Any]) -> str:
  """JSON for people, too."""
  return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def parse(text: bytes) -> Index:
  """Reads it and checks every value: it may be edited, or a stranger's.

  Raises:
    ValueError: what is wrong.
  """
  try:
    content = json.loads(text.decode("utf-8-sig"))
    if content["format"] != FORMAT:
      raise ValueError(f"format {content['format']!r}, want {FORMAT}")
    return _index_of(content)
  except KeyError as error:
    raise ValueError(f"no {error}") from error
  except (TypeError, AttributeError) as error:
    raise ValueError(str(error)) from error
  except RecursionError as error:
    raise ValueError("brackets are nested too deeply") from error


def _index_of(content: dict[str, Any]) -> Index:
  units = tuple(map(_unit_of, content["units"]))
  if len({unit.name for unit in units}) < len(units):
    raise ValueError("a unit is there twice")
  whole = File(**content["table"])
  _check_file(whole, want=whole_table_name(units))
  report = content["report"]
  size = report.get("video", [1, 1])
  if len(size) != 2 or not all(type(each) is int for each in size):
    raise ValueError(f"video = {size!r:.99}")
  for part in ("skipped", "left out"):
    for reason, entry in report.get(part, {}).items():
      _check_whole(entry["count"], name=f"count of {reason!r:.99}")
  index = Index(units=units, table=whole, report=report)
  if not index.records:
    raise ValueError("it has no records")
  return index


def _unit_of(content: dict[str, Any]) -> Unit:
  name = content["name"]
  if not _UNIT_NAME.fullmatch(name):
    raise ValueError(f"unit {name!r:.99}")
  shards = tuple(Shard(**shard) for shard in content["shards"])
  for number, shard in enumerate(shards):
    _check_file(shard, want=shard_name(name, number=number))
    _check_whole(shard.records, name=f"records of {shard.file}")
  of_rows = File(**content["table"])
  _check_file(of_rows, want=table_name(name))
  _check_whole(content["rows"], name=f"rows of unit {name}")
  seconds = content["seconds"]
  if type(seconds) not in (int, float) or not 0 <= seconds < _MOST:
    raise ValueError(f"seconds = {seconds!r}")
  return Unit(name, content["rows"], float(seconds), shards, of_rows)


def _check_file(file: File, *, want: str) -> None:
  if file.file != want:
    raise ValueError(f"file {file.file!r:.99}, want {want}")
  _check_whole(file.bytes, name=f"bytes of {want}")
  _check_whole(file.crc32, name=f"crc32 of {want}")


def _check_whole(value: object, *, name: str) -> None:
  if type(value) is not int or not 0 <= value < _MOST:
    raise ValueError(f"{name} = {value!r:.99}, want a whole number")
