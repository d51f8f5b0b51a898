"""Committed results: `python -m tml_jax.evals.results`.

For: writing the tables of results/README.md and README.md, and the picture of
what is traded, from the archives in results/ and from nothing else. Not for:
evaluating (`evaluate` leaves an archive). Start at `gather`, then `write`.

  python -m tml_jax.evals.results --take=ABLATION   # copies archives, writes
  python -m tml_jax.evals.results                   # writes what they say now
  python -m tml_jax.evals.results --check_cells    # fails where a page differs
  python -m tml_jax.evals.results --measure_again   # a metric has changed
  python -m tml_jax.evals.results --numbers=FILE.xz # its JSON file, to stdout

Archives are results/ROW/seed_S.xz of a row of an experiment file, as `ablate`
names them, results/ROW/sweep_S.xz of its sweep, and results/agents.xz of agents
without a model. Text outside of the marked blocks is by hand, and is kept.
Metrics of yours: --plugins=FILE.py, as of the evaluation.
"""

import json
import pathlib
import re

from absl import app, flags

from tml_jax import errors, files, plugins
from tml_jax import workdir as workdir_lib
from tml_jax.config import command
from tml_jax.config import flags as config_flags
from tml_jax.evals import (
  archive,
  compared,
  conditions,
  results_tables,
  sweep_picture,
)
from tml_jax.evals.compared import Results

BEGIN = "<!-- begin: written by tml_jax.evals.results -->"
END = "<!-- end: written by tml_jax.evals.results -->"
FOLDER, PAGE, FRONT = "results", "README.md", "README.md"
AGENTS = f"agents{archive.SUFFIX}"
_NAME = re.compile(rf"(seed|sweep)_(\d+){re.escape(archive.SUFFIX)}")

flags.adopt_module_key_flags(config_flags)  # of these, --plugins
_ROOT = flags.DEFINE_string(
  "root", ".", "Checkout whose results/ and README.md are meant."
)
_TAKE = flags.DEFINE_string(
  "take",
  "",
  "Folder of `ablate` (ROW/seed_S/evaluation.xz, sweep.xz), or an agent's"
  " archive: copied to results/ first.",
)
_CHECK_CELLS = flags.DEFINE_bool(
  "check_cells", False, "Write nothing; fail where a page is not what follows."
)
_MEASURE_AGAIN = flags.DEFINE_bool(
  "measure_again",
  False,
  "Measure the logs in results/ by today's definitions first: after a change of"
  " a metric.",
)
_NUMBERS = flags.DEFINE_string(
  "numbers", "", "Archive whose JSON numbers are printed, and nothing else."
)


def gather(root: pathlib.Path) -> Results:
  """Every archive of a checkout.

  Raises:
    errors.UserError: one is broken, or has another name.
  """
  folder = root / FOLDER
  agents, found = None, {"seed": {}, "sweep": {}}
  for path in sorted(folder.rglob(f"*{archive.SUFFIX}")):
    if path == folder / AGENTS:
      agents = archive.read(path)
      continue
    named = _NAME.fullmatch(path.name)
    if named is None or path.parent.parent != folder:
      raise errors.UserError(
        f"{path}: results are {FOLDER}/ROW/seed_S{archive.SUFFIX},"
        f" {FOLDER}/ROW/sweep_S{archive.SUFFIX} and {FOLDER}/{AGENTS}; move it,"
        " or take it away"
      )
    found[named[1]].setdefault(path.parent.name, []).append(archive.read(path))
  return Results(agents, arms=found["seed"], sweeps=found["sweep"])


def take(source: pathlib.Path, *, root: pathlib.Path) -> list[pathlib.Path]:
  """Copies archives of evaluations to results/; returns where they are.

  Those of arms keep agents without a model in their plain part alone: under
  conditions they take most of the space, and do the same beside every arm.

  Raises:
    errors.UserError: there are none, one is broken or of a run in place of an
      agent, or beside it is the JSON file of another evaluation.
  """
  folder = root / FOLDER
  copies = {}
  if source.is_file():
    copies[source] = folder / AGENTS
  for name, kind in (
    (workdir_lib.EVALUATION, "seed"),
    (workdir_lib.SWEEP, "sweep"),
  ):
    file = pathlib.Path(name).with_suffix(archive.SUFFIX).name
    numbers = source.glob(f"*/seed_*/{pathlib.Path(name).name}")
    made = {path.with_suffix(archive.SUFFIX) for path in numbers}
    for path in sorted({*source.glob(f"*/seed_*/{file}"), *made}):
      number = path.parent.name.removeprefix("seed_")
      row = path.parent.parent.name
      copies[path] = folder / row / f"{kind}_{number}{archive.SUFFIX}"
  if not copies:
    raise errors.UserError(
      f"--take={source} has no ROW/seed_S/evaluation{archive.SUFFIX}: name the"
      " --out of `ablate`, or the archive of an agent without a model"
    )
  # A broken one replaces none: all is measured before anything is written.
  found = {copy: _whole(path) for path, copy in copies.items()}
  agents = found.get(folder / AGENTS)
  if agents is not None and agents.head.numbers.get("step") is not None:
    raise errors.UserError(
      f"--take={source} is of a run, at step {agents.head.numbers['step']}, and"
      f" {folder / AGENTS} is of agents without a model: give the --out of"
      " `ablate`, or an archive of `evaluate --agent=NAME`"
    )
  for copy, each in found.items():
    parts = each.parts
    if copy.name != AGENTS:
      parts = {
        name: part if name == conditions.PLAIN else archive.of_model(part)
        for name, part in parts.items()
      }
    archive.write(copy, head=each.head, parts=parts)
  return list(copies.values())


def _whole(path: pathlib.Path) -> archive.Archive:
  """An archive that was read and measured to its end.

  Raises:
    errors.UserError: it is broken, or not what is beside it.
  """
  numbers = path.with_suffix(".json")
  if numbers.is_file() and archive.beside(numbers) is None:
    raise errors.UserError(
      f"{numbers} and {path} are not of one evaluation, as one that was cut"
      " leaves them: the command that made them makes them again"
    )
  found = archive.read(path)
  found.measure()
  return found


def pages(results: Results, *, root: pathlib.Path) -> dict[pathlib.Path, str]:
  """What the pages of a checkout should be.

  Raises:
    errors.UserError: one lacks its block, or archives cannot be compared.
  """
  lines = {
    root / FOLDER / PAGE: results_tables.page(results),
    root / FRONT: results_tables.short(results),
  }
  return {path: _with_block(path, lines=found) for path, found in lines.items()}


def _with_block(path: pathlib.Path, *, lines: list[str]) -> str:
  text = path.read_text(encoding="utf-8")
  if text.count(f"{BEGIN}\n") != 1 or text.count(f"{END}\n") != 1:
    raise errors.UserError(
      f"{path}: there must be one line {BEGIN} and one line {END}"
    )
  before, rest = text.split(f"{BEGIN}\n")
  after = rest.split(f"{END}\n")[1]
  body = "\n".join(lines).rstrip("\n")
  return f"{before}{BEGIN}\n\n{body}\n\n{END}\n{after}"


def check(results: Results, *, root: pathlib.Path) -> None:
  """Recomputes every cell.

  Raises:
    errors.UserError: naming the page, the line and what it should be.
  """
  for path, wanted in pages(results, root=root).items():
    lines, found = (
      text.split("\n") for text in (wanted, path.read_text(encoding="utf-8"))
    )
    for number, line in enumerate(lines, start=1):
      there = found[number - 1] if number <= len(found) else ""
      if there != line:
        raise errors.UserError(
          f"{path}, line {number}: {_difference(there, line)}; run `python -m"
          " tml_jax.evals.results`"
        )
    if len(found) != len(lines):
      raise errors.UserError(f"{path}: more lines than its archives say")
  picture = root / FOLDER / results_tables.PICTURE
  if compared.traded(results) and not picture.is_file():
    raise errors.UserError(
      f"{picture} is missing: run `python -m tml_jax.evals.results`"
    )


def _difference(there: str, wanted: str) -> str:
  """Where a line is not what it should be; of a table, the first such cell."""
  where, pair = "", (there, wanted)
  cells = [line.split(" | ") for line in pair]
  if len({len(each) for each in cells}) == 1:
    number, pair = next(
      (i, found)
      for i, found in enumerate(zip(*cells, strict=True))
      if len({*found}) > 1
    )
    where = f"{cells[1][0].strip('| ')}, cell {number}: " if number else ""
  return (
    f"{where}{pair[0]!r:.200} does not follow from the archives, which say"
    f" {pair[1]!r:.200}"
  )


def write(results: Results, *, root: pathlib.Path) -> list[pathlib.Path]:
  """Writes pages and pictures; returns their paths."""
  found = pages(results, root=root)
  for path, text in found.items():
    files.write_atomically(path, content=text)
  points = compared.traded(results)
  if not points:
    return list(found)
  picture = root / FOLDER / results_tables.PICTURE
  sweep_picture.draw(
    [
      sweep_picture.Arm(
        results_tables.TITLES.get(name, name),
        labels=[point.label for point in each],
        rows=[
          {sweep_picture.X: point.unasked, sweep_picture.Y: point.asked}
          for point in each
        ],
      )
      for name, each in points.items()
    ],
    path=picture,
  )
  return [*found, picture]


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}")
  root = pathlib.Path(_ROOT.value)
  plugins.load(flags.FLAGS["plugins"].value)
  if _NUMBERS.value:
    numbers = archive.read(_NUMBERS.value).numbers()
    print(json.dumps(numbers, indent=1, allow_nan=False))
    return
  if _TAKE.value:
    for path in take(pathlib.Path(_TAKE.value), root=root):
      print(f"took {path}")
  if _MEASURE_AGAIN.value:
    for path in sorted((root / FOLDER).rglob(f"*{archive.SUFFIX}")):
      archive.measure_again(path)
      print(f"measured {path}")
  results = gather(root)
  if _CHECK_CELLS.value:
    check(results, root=root)
    print(f"all tables follow from {len(list(results))} archives")
    return
  for path in write(results, root=root):
    print(f"wrote {path}")


if __name__ == "__main__":
  with command.ending():
    command.prepare()
    app.run(main)
