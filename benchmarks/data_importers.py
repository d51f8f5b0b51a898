"""Speed of `prepare` by importer, and sizes of what it reads and writes.

For: benchmarks.data. Not for: what the forms are (`layouts`). Start reading at
`measure`. Everything runs in this process, after a short call of the same form
has been prepared: what an interpreter and its imports take is not counted. A
recording that is skipped is an error.
"""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from benchmarks import layouts, made_calls
from tml_jax.data import corpus, source
from tml_jax.data.mend import options as mend_options
from tml_jax.data.prepare import convert, job
from tml_jax.streams.timeline import Role, Timeline, Track

SIZE = (120, 160)  # height and width of video in the corpus
_CALL_SECONDS = 180.0
_WARM = {"count": 1, "seconds": 30.0}
_SIGHTLESS = {"video": "no"}
# Decoding of their pictures takes most of the time, and no check sees them.
_SEEN = ("candor", "seamless", "video")
CHECKS = {
  mend_options.NONE: mend_options.OFF,
  mend_options.ALL: mend_options.DEFAULT,
}


@dataclasses.dataclass(frozen=True)
class Row:
  """An importer, and how it is opened.

  Attributes:
    name: of the importer.
    options: besides those of its layout.
  """

  name: str
  options: Mapping[str, str]

  @property
  def checks(self) -> tuple[str, ...]:
    """The values of --check that are measured."""
    is_seen = self.name in _SEEN and not self.options
    return (mend_options.ALL,) if is_seen else tuple(CHECKS)

  def __str__(self) -> str:
    return ", ".join(
      [self.name, *(f"{k}={v}" for k, v in self.options.items())]
    )


@dataclasses.dataclass(frozen=True)
class Prepared:
  """One preparation.

  Attributes:
    cpu: seconds of the processor.
    hours: of conversation that are in the corpus.
    bytes: of the corpus.
    recordings: that are in it.
  """

  cpu: float
  hours: float
  bytes: int
  recordings: int


def rows() -> list[Row]:
  """Every layout, and again without pictures what a camera saw."""
  found = []
  for name in layouts.LAYOUTS:
    found.append(Row(name, {}))
    if name in ("candor", "seamless"):
      found.append(Row(name, _SIGHTLESS))
  return found


def measure(root: pathlib.Path, *, minutes: float) -> dict[str, Any]:
  """Prepares the same calls in every form.

  Args:
    root: folder for what is made; everything is deleted again.
    minutes: of conversation in each form, about.

  Raises:
    RuntimeError: a recording was skipped.
    errors.UserError: the packages with the prompts are not there.
  """
  voices = {
    role: made_calls.prompts(language)
    for role, language in made_calls.LANGUAGES.items()
  }
  count = max(1, round(60 * minutes / _CALL_SECONDS))
  items = layouts.calls(voices, count=count, seconds=_CALL_SECONDS)
  result = {}
  for row in rows():
    with tempfile.TemporaryDirectory(dir=root) as folder:
      result[str(row)] = _measured(
        row, items=items, voices=voices, folder=pathlib.Path(folder)
      )
    print(f"{row}: {result[str(row)]['hours_per_core_minute']}", flush=True)
  return {
    "importers": result,
    "importers_calls": {"count": count, "seconds": _CALL_SECONDS},
  }


def _measured(
  row: Row,
  *,
  items: list[Timeline],
  voices: Mapping[Role, list[Track]],
  folder: pathlib.Path,
) -> dict[str, Any]:
  """What is known of a row, with each set of checks."""
  layout = layouts.LAYOUTS[row.name]
  warm, src = folder / "warm", folder / "src"
  for path, laid in ((warm, layouts.calls(voices, **_WARM)), (src, items)):
    path.mkdir()
    layout.write(path, laid)
  prepared(row, src=warm, dst=folder / "of-warm")
  found = {
    check: prepared(row, src=src, dst=folder / f"of-{check}", check=check)
    for check in row.checks
  }
  for check, each in found.items():
    if each.recordings != len(items):
      raise RuntimeError(
        f"{row}, --check={check}: {each.recordings} of {len(items)} are kept"
      )
  hours = sum(item.duration for item in items) / 3600
  last = found[mend_options.ALL]
  return {
    "kept": last.recordings,
    "of": len(items),
    "source_bytes_per_hour": size_of(src) / hours,
    "corpus_bytes_per_hour": last.bytes / last.hours,
    "hours_per_core_minute": {
      check: each.hours / (each.cpu / 60) for check, each in found.items()
    },
  }


def prepared(
  row: Row,
  *,
  src: pathlib.Path,
  dst: pathlib.Path,
  check: str = mend_options.ALL,
) -> Prepared:
  """Makes a corpus in this process.

  Raises:
    RuntimeError: a recording was skipped; says why.
  """
  layout = layouts.LAYOUTS[row.name]
  before = time.process_time()
  options = {**layout.options, **row.options, "size": "{}x{}".format(*SIZE)}
  task = convert.Task(
    recordings=source.IMPORTERS[row.name](str(src), options=options),
    place=str(dst),
    size=SIZE,
    code="benchmark",
    options="",
    mending=CHECKS[check],
  )
  wanted = job.Job(row.name, task=task)
  planned = wanted.look(verify=False, other_code=False).plan
  for unit in planned.todo:
    convert.convert(task, unit)
  report = wanted.finish(planned)
  cpu = time.process_time() - before
  if report[convert.SKIPPED]:
    raise RuntimeError(
      f"{row}, --check={check}: skipped {report[convert.SKIPPED]}"
    )
  index = corpus.read_index(dst)
  return Prepared(
    cpu=cpu,
    hours=index.seconds / 3600,
    bytes=size_of(dst),
    recordings=report["recordings"],
  )


def size_of(folder: pathlib.Path) -> int:
  """Bytes of all files."""
  return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
