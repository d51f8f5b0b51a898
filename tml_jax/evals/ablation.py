"""Rows of an ablation: their results read, joined over seeds, tabulated.

For: `python -m tml_jax.ablate`. Not for: running anything, nor pictures
(`ablation_picture`). Start reading at `Row`, then `collect`.
"""

import csv
import dataclasses
import io
import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tml_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One line of a table, as `ROWS` of an experiment file names it.

  Attributes:
    question: what the row answers; rows with the same one stand together.
    changes: fields by dotted path that differ from the base's.
    run: row whose trained run is evaluated, where the changes concern
      sampling alone; empty = the row's own.
  """

  question: str
  changes: Mapping[str, Any]
  run: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
  """One evaluation.

  Attributes:
    step: of the weights.
    git: of the code that evaluated.
    config: its name.
    columns: {column: {metric: number}}; NaN where nothing was measured.
  """

  step: int
  git: str
  config: str
  columns: dict[str, dict[str, float]]


def read(path: pathlib.Path) -> Result:
  """What `evaluate --json` wrote. All that is expected of it is here.

  Raises:
    errors.UserError: not such a file.
  """
  try:
    values = json.loads(path.read_text(encoding="utf-8"))
    columns = {
      column: {
        name: math.nan if number is None else float(number)
        for name, number in metrics.items()
      }
      for column, metrics in values["metrics"].items()
    }
    return Result(
      int(values["step"]), str(values["git"]), str(values["config"]), columns
    )
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.UserError(
      f"{path} is no result of `evaluate --json` ({error!r}); remove it, and"
      " the same command evaluates again"
    ) from error


@dataclasses.dataclass(frozen=True)
class Cell:
  """A metric of a row: one value a seed, NaN where nothing was measured."""

  values: tuple[float, ...]

  @property
  def measured(self) -> list[float]:
    return [value for value in self.values if not math.isnan(value)]

  @property
  def mean(self) -> float:
    return statistics.fmean(self.measured) if self.measured else math.nan

  @property
  def deviation(self) -> float:
    """Of the sample; NaN with less than two values."""
    if len(self.measured) < 2:
      return math.nan
    return statistics.stdev(self.measured)

  def __str__(self) -> str:
    if not self.measured:
      return "-"
    text = _short(self.mean)
    if len(self.measured) > 1:
      text += f" ± {_short(self.deviation)}"
    if len(self.measured) < len(self.values):
      text += f" ({len(self.measured)} of {len(self.values)})"
    return text


@dataclasses.dataclass(frozen=True)
class Table:
  """All that is there so far.

  Attributes:
    metrics: names, in order.
    cells: by row, then by metric; rows without a result have none.
    seeds: by row, those with a result.
    results: all of them.
  """

  metrics: tuple[str, ...]
  cells: dict[str, dict[str, Cell]]
  seeds: dict[str, tuple[int, ...]]
  results: tuple[Result, ...]


def collect(
  files: Mapping[str, Mapping[int, pathlib.Path]],
  *,
  column: str,
  metrics: Sequence[str],
) -> Table:
  """Reads the files that exist.

  Args:
    files: by row and seed.
    column: of the evaluation, for instance heldout.
    metrics: names of this column.

  Raises:
    errors.UserError: a broken file, or one without the column or a metric.
  """
  cells, seeds, everything = {}, {}, []
  for row, by_seed in files.items():
    found = {s: path for s, path in by_seed.items() if path.exists()}
    results = [read(path) for path in found.values()]
    for result, path in zip(results, found.values(), strict=True):
      _check(result, path=path, column=column, metrics=metrics)
    everything += results
    seeds[row] = tuple(found)
    if results:
      cells[row] = {
        name: Cell(tuple(r.columns[column][name] for r in results))
        for name in metrics
      }
  return Table(tuple(metrics), cells, seeds, tuple(everything))


def _check(result: Result, *, path, column: str, metrics) -> None:
  if column not in result.columns:
    raise errors.UserError(
      f"--column={column}: {path} has {', '.join(result.columns)}"
    )
  known = result.columns[column]
  missing = [name for name in metrics if name not in known]
  if missing:
    raise errors.UserError(
      f"--metrics: {path} has no {', '.join(missing)}; it has"
      f" {', '.join(known)}"
    )


def _short(value: float) -> str:
  return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def markdown(
  table: Table, *, rows: Mapping[str, Row], about: Sequence[str]
) -> str:
  """The table, rows by question, under lines that say where it is from."""
  head = ["row", "question", "seeds", *table.metrics]
  lines = [*about, "", _line(head), _line(["---"] * len(head))]
  for name, row in _by_question(rows):
    cells = table.cells.get(name, {})
    texts = [str(cells[m]) if m in cells else "" for m in table.metrics]
    seeds = len(table.seeds.get(name, ()))
    lines.append(_line([f"`{name}`", row.question, str(seeds), *texts]))
  return "\n".join(lines) + "\n"


def comma_separated(table: Table, *, rows: Mapping[str, Row]) -> str:
  """One line a row and metric, with the value of each seed."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator="\n")
  writer.writerow(["row", "question", "metric", "mean", "std", "seed", "value"])
  for name, row in _by_question(rows):
    for metric, cell in table.cells.get(name, {}).items():
      for seed, value in zip(table.seeds[name], cell.values, strict=True):
        numbers = [
          "" if math.isnan(x) else repr(x)
          for x in (cell.mean, cell.deviation, value)
        ]
        writer.writerow(
          [name, row.question, metric, *numbers[:2], seed, numbers[2]]
        )
  return out.getvalue()


def overview(rows: Mapping[str, Row], *, as_flag) -> str:
  """The rows and the flags that make them, for a README.

  `as_flag` writes a path and a value as a flag.
  """
  lines = [_line(["row", "question", "flags that make it"]), _line(["---"] * 3)]
  for name, row in _by_question(rows):
    flags = " ".join(as_flag(path, row.changes[path]) for path in row.changes)
    cell = f"`{flags}`" if flags else ""
    if row.run:
      cell += f", evaluates the run of `{row.run}`"
    lines.append(_line([f"`{name}`", row.question, cell]))
  return "\n".join(lines) + "\n"


def _by_question(rows: Mapping[str, Row]) -> list[tuple[str, Row]]:
  """Rows with the same question next to each other, else in order."""
  order: dict[str, int] = {}
  for row in rows.values():
    order.setdefault(row.question, len(order))
  return sorted(rows.items(), key=lambda item: order[item[1].question])


def _line(cells: Sequence[str]) -> str:
  return f"| {' | '.join(cells)} |"
