"""An evaluation as one small file, from which all its numbers follow.

For: results that anyone can compute again, without data, voices or weights.
Not for: what a run that was cut goes on from (`kept`). `write` and `read` are
inverse; start at `Archive`.

The file is JSON lines, compressed with xz: `xzcat FILE | head -1` shows what
was run. The first line has the command, the config, the commit, seeds and
which conversations; then come the parts (`plain`, and one for each condition or
point of a sweep), a line for each, followed by a line for each conversation:
the logs of the model and of all agents without one by columns
(`logs.columns`), and their series. Series are measured again from the logs
when they are asked for, and what stands in the file is compared with them.
What was heard of the sound (`from_sound`) is in the JSON file alone.
"""

import dataclasses
import enum
import json
import lzma
import os
import pathlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tml_jax import errors, files, plugins
from tml_jax.config import Config
from tml_jax.config import text as config_text
from tml_jax.evals import as_json, conditions
from tml_jax.evals import sums as sums_lib
from tml_jax.evals.metrics import panel
from tml_jax.evals.metrics.floor import Series
from tml_jax.evals.report import Report, Scored
from tml_jax.logs import columns as columns_lib
from tml_jax.logs import ticks

SCHEMA, VERSION = "tml_jax.archive", 1
SUFFIX = ".xz"
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclasses.dataclass(frozen=True)
class Head:
  """What was run.

  Attributes:
    numbers: what the JSON file of the evaluation says before its metrics:
      config, step, agent, git, suite, split, count, users.
    command: as it was typed.
    config: as run, text.
    seeds: by name, of training and data.
    plugins: versions by name, as metrics may be theirs.
  """

  numbers: Mapping[str, Any]
  command: str
  config: str
  seeds: Mapping[str, int]
  plugins: Mapping[str, str] = dataclasses.field(default_factory=dict)


def head(config: Config, *, numbers: Mapping[str, Any]) -> Head:
  """Of the command that runs."""
  seeds = {"train": config.train.seed, "data": config.data.seed}
  return Head(
    numbers,
    command=shlex.join(["python", "-m", _module(), *sys.argv[1:]]),
    config=config_text.to_text(config),
    seeds=seeds,
    plugins=plugins.versions(),
  )


def _module() -> str:
  """That was started."""
  spec = getattr(sys.modules["__main__"], "__spec__", None)
  return spec.name if spec else pathlib.Path(sys.argv[0]).name


@dataclasses.dataclass(frozen=True)
class Part:
  """One report, before or after it was a part of a file.

  Attributes:
    report: as said; its series are measured when they are asked for.
    left_out: what could not be read, and why.
    changes: of the config, by path, where it is a point of a sweep.
  """

  report: Report
  left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def of_model(part: Part) -> Part:
  """A part with the model alone."""
  scored = [
    dataclasses.replace(item, columns={panel.MODEL: item.columns[panel.MODEL]})
    for item in part.report.scored
  ]
  report = dataclasses.replace(part.report, scored=scored, agents=())
  return dataclasses.replace(part, report=report)


@dataclasses.dataclass(frozen=True)
class Archive:
  """An evaluation that was read.

  Attributes:
    path: of the file.
    head: what was run.
    parts: by name.
  """

  path: pathlib.Path
  head: Head
  parts: Mapping[str, Part]

  @property
  def plain(self) -> Report:
    """The part without conditions.

    Raises:
      errors.UserError: there is none.
    """
    if conditions.PLAIN not in self.parts:
      raise errors.UserError(
        f"{self.path} has {', '.join(self.parts)}, and no"
        f" {conditions.PLAIN}: it is that of a sweep"
      )
    return self.parts[conditions.PLAIN].report

  def measure(self) -> None:
    """Measures all series, which are else measured when asked for.

    Raises:
      errors.UserError: naming the line of one that does not follow from its
        log.
    """
    for part in self.parts.values():
      for item in part.report.scored:
        for agent in item.columns:
          item.series[agent]

  def numbers(self) -> dict[str, Any]:
    """What `evaluate --json` wrote, to the last bit.

    But `from_sound`: an archive has no sound, and nothing that was heard of it.
    """
    plain = self.plain
    rows = {
      name: conditions.row(part.report, plain=plain)
      for name, part in self.parts.items()
    }
    return numbers(
      self.head.numbers,
      part=self.parts[conditions.PLAIN],
      rows=rows if len(rows) > 1 else {},
    )


def numbers(
  source: Mapping[str, Any], *, part: Part, rows: Mapping[str, Any]
) -> dict[str, Any]:
  """The JSON values of an evaluation; `rows` are those of conditions."""
  found = {
    **source,
    **as_json.of(part.report, left_out=part.left_out),
    **({"conditions": rows} if rows else {}),
  }
  return as_json.without_nan(found)


def write(path: pathlib.Path, *, head: Head, parts: Mapping[str, Part]) -> None:
  """All of it or nothing, also when killed half-way."""
  about = dataclasses.asdict(head)
  if not head.plugins:
    del about["plugins"]  # as in files from before there were any
  records = [
    {"schema": SCHEMA, "version": VERSION} | about | {"parts": len(parts)}
  ]
  for name, part in parts.items():
    report = part.report
    records.append(
      {
        "part": name,
        "changes": dict(part.changes),
        "conversations": len(report.scored),
        "agents": list(report.agents),
        "corpora": list(report.corpora),
        "held": report.held,
        "skipped": report.skipped,
        "left_out": dict(part.left_out),
        "sums": {
          family: sums_lib.to_json(found)
          for family, found in report.sums.items()
        },
        "provenance": dict(report.provenance),
      }
    )
    records += [
      {
        "family": item.family,
        "of": dict(item.of),
        "logs": dict(item.columns),
        "series": {
          agent: _without_empty(item.series[agent]) for agent in item.columns
        },
      }
      for item in report.scored
    ]
  lines = (
    json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in records
  )
  text = "".join(f"{errors.escaped(line)}\n" for line in lines)
  # 7: a dictionary of 16 MiB reaches over many users; takes 0.2 GB meanwhile.
  content = lzma.compress(text.encode(), preset=7)
  files.make_parents(path)
  files.write_atomically(path, content=content)


def _without_empty(series: Series) -> dict[str, Any]:
  """JSON values of the series that have an event."""
  found = {n: [list(e) for e in events] for n, events in series.items()}
  return {name: events for name, events in found.items() if events}


class Compares(enum.Enum):
  """What measured series are compared with."""

  FILE = "what stands in the file"
  NOTHING = "nothing: definitions have changed since"


def measure_again(path: pathlib.Path) -> None:
  """Writes the series that the logs of a file have by today's definitions.

  Raises:
    errors.UserError: see `read`.
  """
  found = read(path, compares=Compares.NOTHING)
  write(path, head=found.head, parts=found.parts)


def read(
  path: str | os.PathLike[str], *, compares: Compares = Compares.FILE
) -> Archive:
  """What `write` wrote.

  Args:
    path: of the file.
    compares: what series are compared with when they are measured.

  Raises:
    errors.UserError: naming the file, the line and what is wrong with it.
  """
  path = files.path(path)
  try:
    text = lzma.decompress(path.read_bytes()).decode()
  except (OSError, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
    raise errors.UserError(
      f"{path} is no archive of an evaluation: {error}"
    ) from error
  lines = _lines(path, text.removesuffix("\n").split("\n"))
  _, first = next(lines)
  head, count = _head(path, first)
  plugins.check_named(head.plugins, what=str(path))
  parts: dict[str, Part] = {}
  for number, record in lines:
    name = record.get("part")
    if not isinstance(name, str) or name in parts:
      raise _broken(
        path, number, f"part {name!r}: it has no name, or is there twice"
      )
    parts[name] = _part(path, number, record, lines=lines, compares=compares)
  if len(parts) != count:
    raise _broken(path, 1, f"{len(parts)} parts follow, not {count}")
  return Archive(path, head, parts)


def beside(path: pathlib.Path) -> Head | None:
  """The head of the archive beside a JSON file of the same evaluation.

  None where there is no such archive: of one that was cut, or of another.
  """
  packed = path.with_suffix(SUFFIX)
  try:
    numbers = files.load_json(path)
    with (
      packed.open("rb") as raw,
      lzma.open(raw, "rt", encoding="utf-8") as file,
    ):
      _, first = next(_lines(packed, [file.readline()]))
    head, _ = _head(packed, first)
    is_same = all(numbers[n] == value for n, value in head.numbers.items())
  except (OSError, lzma.LZMAError, EOFError, errors.UserError, *_BROKEN):
    return None
  return head if is_same else None


def _head(path: pathlib.Path, first: Mapping[str, Any]) -> tuple[Head, int]:
  """Of the first line; and how many parts follow."""
  if (first.get("schema"), first.get("version")) != (SCHEMA, VERSION):
    raise _broken(
      path,
      1,
      f"schema {first.get('schema')!r} version {first.get('version')!r}; this"
      f" reads {SCHEMA} version {VERSION}",
    )
  try:
    head = Head(
      ticks.exactly(dict, first["numbers"]),
      command=ticks.exactly(str, first["command"]),
      config=ticks.exactly(str, first["config"]),
      seeds=ticks.exactly(dict, first["seeds"]),
      plugins=ticks.exactly(dict, first.get("plugins", {})),
    )
    count = ticks.exactly(int, first["parts"])
  except _BROKEN as error:
    raise _broken(path, 1, f"the head: {error!r}") from error
  return head, count


def _part(
  path: pathlib.Path,
  number: int,
  record: dict[str, Any],
  *,
  lines: Iterator[tuple[int, dict[str, Any]]],
  compares: Compares,
) -> Part:
  """A part and its conversations, which are the next of `lines`."""
  try:
    provenance = ticks.exactly(dict, record["provenance"])
    agents = tuple(ticks.exactly(str, name) for name in record["agents"])
    count = ticks.exactly(int, record["conversations"])
    result = Part(
      Report(
        scored=[],
        sums={
          family: sums_lib.from_json(found)
          for family, found in record["sums"].items()
        },
        skipped=ticks.exactly(dict, record["skipped"]),
        reused=count,
        tick_seconds=np.zeros(0),
        metrics=panel.metrics(),
        agents=agents,
        corpora=tuple(record["corpora"]),
        held=ticks.exactly(str, record["held"]),
        provenance=provenance,
      ),
      left_out=ticks.exactly(dict, record["left_out"]),
      changes=ticks.exactly(dict, record["changes"]),
    )
  except _BROKEN as error:
    raise _broken(path, number, f"the part: {error!r}") from error
  seen: set[str] = set()
  for _ in range(count):
    number, record = next(lines, (number + 1, {}))
    if not record or "part" in record:
      raise _broken(
        path, number, f"{len(seen)} conversations, where {count} are announced"
      )
    item = _scored(
      path, number, record, agents=(panel.MODEL, *agents), compares=compares
    )
    if item.log.id in seen:
      raise _broken(path, number, f"{item.log.id} is there twice")
    if provenance and item.log.provenance != provenance | item.of:
      raise _broken(
        path,
        number,
        f"the log of {item.log.id} is of other users or another model than its"
        " part",
      )
    seen.add(item.log.id)
    result.report.scored.append(item)
  return result


def _scored(
  path: pathlib.Path,
  number: int,
  record: dict[str, Any],
  *,
  agents: Sequence[str],
  compares: Compares,
) -> Scored:
  """A conversation."""
  try:
    log = columns_lib.log_of(record["logs"][panel.MODEL])
    columns = {
      agent: ticks.exactly(dict, record["logs"][agent]) for agent in agents
    }
    for agent, found in columns.items():
      if (found["id"], found["family"]) != (log.id, log.family):
        raise ValueError(f"{agent} has met {found['id']!r}, not {log.id!r}")
    said = None
    if compares is Compares.FILE:
      said = {
        agent: ticks.exactly(dict, record["series"][agent]) for agent in agents
      }
    return Scored(
      ticks.exactly(str, record["family"]),
      log=log,
      series=_Measured(columns, said, where=(path, number)),
      columns=columns,
      of=ticks.exactly(dict, record["of"]),
    )
  except _BROKEN as error:
    raise _broken(path, number, f"no conversation: {error!r}") from error


class _Measured(Mapping[str, Series]):
  """The series of logs by agent, each measured when it is asked for first."""

  def __init__(
    self,
    columns: Mapping[str, Any],
    said: Mapping[str, Any] | None,
    *,
    where: tuple[pathlib.Path, int],
  ):
    """`said` is what the file has of them, if they are compared with that."""
    self._columns, self._said, self._where = columns, said, where
    self._found: dict[str, Series] = {}

  def __len__(self) -> int:
    return len(self._columns)

  def __iter__(self) -> Iterator[str]:
    return iter(self._columns)

  def __getitem__(self, agent: str) -> Series:
    if agent not in self._found:
      self._found[agent] = self._measure(agent)
    return self._found[agent]

  def _measure(self, agent: str) -> Series:
    try:
      log = columns_lib.log_of(self._columns[agent])
      found = panel.measure(log)
    except (errors.UserError, *_BROKEN) as error:
      raise _broken(*self._where, f"{agent}: {error}") from error
    if self._said is None:
      return found
    ours, theirs = _without_empty(found), self._said[agent]
    for name in (*ours, *theirs):
      if ours.get(name) != theirs.get(name):
        raise _broken(
          *self._where,
          f"{log.id}, {agent}: series {name!r} is {theirs.get(name)!r:.60} in"
          f" the file, and {ours.get(name)!r:.60} by its log; where a"
          " definition has changed: `tml_jax.evals.results --measure_again`",
        )
    return found


def _lines(
  path: pathlib.Path, lines: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Number and object of every line."""
  for number, line in enumerate(lines, start=1):
    try:
      record = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise _broken(path, number, f"no JSON: {error}") from error
    if not isinstance(record, dict):
      raise _broken(path, number, "no JSON object")
    yield number, record


def _broken(path: pathlib.Path, line: int, what: str) -> errors.UserError:
  return errors.UserError(
    f"{path}, line {line}: {what}; evaluate again, or take the file as it was"
    " committed"
  )
