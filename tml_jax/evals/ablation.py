"""Rows of an ablation: their results read, joined over seeds, tabulated.

For: `python -m tml_jax.ablate`. Not for: running anything, nor pictures
(`ablation_picture`). Start reading at `Row`, then `collect`.
"""

import csv
import dataclasses
import io
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tml_jax import errors, files
from tml_jax.evals.metrics import panel
from tml_jax.evals.metrics.panel import Metric

DUPLEX = " †"  # what no agent behind a turn detector can have
_NOTE = (
  f"{DUPLEX.strip()} by definition, no agent that speaks when a turn is over"
  " can have this; the columns before it either kind can win"
)


def known_metrics() -> dict[str, Metric]:
  """What may be tabulated, by name."""
  return {m.name: m for m in (*panel.metrics(), *panel.CONTENT)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One line of a table, as `ROWS` of an experiment file names it.

  Attributes:
    question: what the row answers; rows with the same one stand together.
    changes: fields by dotted path that differ from the base's.
    run: row whose trained run is evaluated, where the changes concern
      sampling alone; empty = the row's own.
    evaluate: flags of `evaluate` that are the row's own.
  """

  question: str
  changes: Mapping[str, Any]
  run: str = ""
  evaluate: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Measured:
  """A number of one evaluation, in the units of `known_metrics`.

  Attributes:
    value: NaN where nothing was measured.
    low: of its confidence interval; NaN where it has none.
    high: of it.
    events: that it was measured on; 0 where they are not counted.
  """

  value: float
  low: float = math.nan
  high: float = math.nan
  events: int = 0


@dataclasses.dataclass(frozen=True)
class Result:
  """One evaluation.

  Attributes:
    step: of the weights.
    git: of the code that evaluated.
    config: its name.
    split: whose conversations.
    count: of each family, at most; None where the file does not say it.
    users: how they met the model; "" where it does not.
    families: {family: {metric: number}} of the model, without what was not
      measured.
  """

  step: int
  git: str
  config: str
  split: str
  count: int | None
  users: str
  families: dict[str, dict[str, Measured]]


def read(path: pathlib.Path) -> Result:
  """What `evaluate --json` wrote. All that is expected of it is here.

  Raises:
    errors.UserError: not such a file.
  """
  try:
    values = files.load_json(path)
    families = {}
    for family, agents in values["metrics"].items():
      found = dict(agents[panel.MODEL])
      found |= {n: {"value": v} for n, v in values["content"][family].items()}
      families[family] = {
        name: _measured(item, factor=known_metrics()[name].factor)
        for name, item in found.items()
        if name in known_metrics() and item["value"] is not None
      }
    return Result(
      int(values["step"]),
      str(values["git"]),
      str(values["config"]),
      str(values.get("split", "heldout")),  # the only one there once was
      None if values.get("count") is None else int(values["count"]),
      str(values.get("users", "")),
      families,
    )
  except (
    *(ValueError, KeyError, TypeError, AttributeError),
    OverflowError,
  ) as error:
    raise errors.UserError(
      f"{path} is no result of `evaluate --json` ({error!r}); remove it, and"
      " the same command evaluates again"
    ) from error


def _measured(item: Mapping[str, Any], *, factor: float) -> Measured:
  """A metric of an evaluation; JSON has null for NaN."""
  low, high = (
    math.nan if bound is None else factor * float(bound)
    for bound in item.get("interval", (None, None))
  )
  value = factor * float(item["value"])
  return Measured(value, low, high, int(item.get("events", 0)))


@dataclasses.dataclass(frozen=True)
class Cell:
  """A metric of a row, of each seed."""

  seeds: tuple[Measured, ...]

  @property
  def values(self) -> list[float]:
    """NaN where nothing was measured."""
    return [seed.value for seed in self.seeds]

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
  family: str,
  metrics: Sequence[str],
) -> Table:
  """Reads the files that exist.

  Args:
    files: by row and seed.
    family: of scenarios, or `all`.
    metrics: names in `known_metrics`.

  Raises:
    errors.UserError: a broken file, or one without the family.
  """
  cells, seeds, everything = {}, {}, []
  for row, by_seed in files.items():
    found = {s: path for s, path in by_seed.items() if path.exists()}
    results = [read(path) for path in found.values()]
    for result, path in zip(results, found.values(), strict=True):
      if family not in result.families:
        raise errors.UserError(
          f"--family={family}: {path} has {', '.join(result.families)}"
        )
    everything += results
    seeds[row] = tuple(found)
    if results:
      cells[row] = {
        name: Cell(
          tuple(
            r.families[family].get(name, Measured(math.nan)) for r in results
          )
        )
        for name in metrics
      }
  return Table(tuple(metrics), cells, seeds, tuple(everything))


def title(metric: Metric) -> str:
  """With its unit, an arrow the better way, and a mark (`DUPLEX`)."""
  unit = f", {metric.unit}" if metric.unit else ""
  mark = DUPLEX if metric.needs_duplex else ""
  return f"{metric.title}{mark}{unit}{metric.better}"


def _short(value: float) -> str:
  return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def markdown(
  table: Table, *, rows: Mapping[str, Row], about: Sequence[str]
) -> str:
  """The table, rows by question, under lines that say where it is from."""
  metrics = sorted(
    table.metrics, key=lambda name: known_metrics()[name].needs_duplex
  )
  titles = [title(known_metrics()[name]) for name in metrics]
  head = ["row", "question", "seeds", *titles]
  lines = [*about, "", _line(head), _line(["---"] * len(head))]
  for name, row in _by_question(rows):
    cells = table.cells.get(name, {})
    texts = [str(cells[m]) if m in cells else "" for m in metrics]
    seeds = len(table.seeds.get(name, ()))
    lines.append(_line([f"`{name}`", row.question, str(seeds), *texts]))
  events = [_events(table, name) for name in metrics]
  lines.append(_line(["events of a seed", "", "", *events]))
  if any(known_metrics()[name].needs_duplex for name in metrics):
    lines += ["", _NOTE]
  return "\n".join(lines) + "\n"


def _events(table: Table, metric: str) -> str:
  """The fewest and the most that a value of a metric was measured on."""
  counts = {
    seed.events
    for cells in table.cells.values()
    for seed in cells[metric].seeds
    if seed.events
  }
  if not counts:
    return ""
  low, high = min(counts), max(counts)
  return str(low) if low == high else f"{low} to {high}"


def comma_separated(table: Table, *, rows: Mapping[str, Row]) -> str:
  """One line a row and metric, with the value of each seed."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator="\n")
  writer.writerow(
    "row question metric unit mean std seed value low high events".split()
  )
  for name, row in _by_question(rows):
    for metric, cell in table.cells.get(name, {}).items():
      for seed, found in zip(table.seeds[name], cell.seeds, strict=True):
        numbers = [
          "" if math.isnan(x) else repr(x)
          for x in (
            *(cell.mean, cell.deviation),
            *(found.value, found.low, found.high),
          )
        ]
        writer.writerow(
          [
            *(name, row.question, metric, known_metrics()[metric].unit),
            *(*numbers[:2], seed, *numbers[2:], found.events or ""),
          ]
        )
  return out.getvalue()


def overview(rows: Mapping[str, Row], *, as_flag) -> str:
  """The rows and the flags that make them, for a README.

  `as_flag` writes a path and a value as a flag.
  """
  lines = [_line(["row", "question", "flags that make it"]), _line(["---"] * 3)]
  for name, row in _by_question(rows):
    flags = [as_flag(path, row.changes[path]) for path in row.changes]
    text = " ".join((*flags, *row.evaluate))
    cell = f"`{text}`" if text else ""
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
