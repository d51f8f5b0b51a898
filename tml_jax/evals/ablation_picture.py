"""Pictures of a table of ablations, as PNG.

For: `python -m tml_jax.ablate`. Not for: the numbers (`ablation`). Start at
`rows` (which change does what) and `scaling` (what size and data do).
"""

import dataclasses
import pathlib
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from tml_jax.evals import ablation, curve

# Okabe and Ito's colours, told apart by colour-blind eyes too.
_LETTERS = 30  # of a line above a panel
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


@dataclasses.dataclass(frozen=True)
class Scale:
  """A size: its active parameters, and the curve of each seed."""

  active: int
  curves: Sequence[curve.Curve]


def rows(table: ablation.Table, *, path: pathlib.Path) -> None:
  """A panel a metric: each seed with its interval, and their mean.

  The dashed line is the mean of the first row. Axes begin at 0, those of
  shares end at 100 %.
  """
  from matplotlib import figure

  names = list(table.cells)
  canvas = figure.Figure(
    figsize=(2.2 + 2.2 * len(table.metrics), 1.4 + 0.28 * len(names)),
    layout="constrained",
  )
  panels = canvas.subplots(1, len(table.metrics), sharey=True, squeeze=False)
  places = np.arange(len(names))
  for panel, metric in zip(panels[0], table.metrics, strict=True):
    for place, name in zip(places, names, strict=True):
      cell = table.cells[name][metric]
      count = len(cell.seeds)
      for i, seed in enumerate(cell.seeds):
        height = place + 0.16 * (i - (count - 1) / 2)
        panel.plot([seed.low, seed.high], [height] * 2, color="0.75", lw=1)
        panel.plot(seed.value, height, "o", color="0.5", ms=3, zorder=2)
      panel.plot(cell.mean, place, "D", color=_COLOURS[0], ms=4, zorder=3)
    if names:
      first = table.cells[names[0]][metric].mean
      panel.axvline(first, color="0.5", ls="--", lw=0.8, zorder=1)
    title = textwrap.fill(
      ablation.title(ablation.known_metrics()[metric]), _LETTERS
    )
    panel.set_title(title, fontsize="small")
    panel.set_xlim(*_limits(table, metric))
    panel.grid(axis="y", color="0.92")
    panel.spines[["top", "right"]].set_visible(False)
  panels[0, 0].set_yticks(places, names)
  panels[0, 0].invert_yaxis()
  canvas.savefig(path, dpi=120, format="png")


def _limits(table: ablation.Table, metric: str) -> tuple[float, float | None]:
  """From 0, unless something is below it, and to 100 % of a share."""
  seeds = [s for cells in table.cells.values() for s in cells[metric].seeds]
  bounds = [x for seed in seeds for x in (seed.value, seed.low)]
  low = min([0.0, *(x for x in bounds if not np.isnan(x))])
  is_share = ablation.known_metrics()[metric].unit == "%"
  return low, 102.0 if is_share else None


def scaling(
  table: ablation.Table, *, scales: Mapping[str, Scale], path: pathlib.Path
) -> None:
  """A row of panels a metric: against active parameters, against tokens."""
  from matplotlib import figure

  metrics = table.metrics
  canvas = figure.Figure(
    figsize=(9, 0.6 + 2.3 * len(metrics)), layout="constrained"
  )
  panels = canvas.subplots(len(metrics), 2, squeeze=False)
  by_size = sorted(scales, key=lambda name: scales[name].active)
  for (left, right), metric in zip(panels, metrics, strict=True):
    finished = [name for name in by_size if name in table.cells]
    cells = [table.cells[name][metric] for name in finished]
    active = np.array([scales[name].active for name in finished]) / 1e6
    means = [cell.mean for cell in cells]
    left.plot(active, means, "D-", color="0.4", ms=4)
    for x, cell in zip(active, cells, strict=True):
      for seed in cell.seeds:
        left.plot([x, x], [seed.low, seed.high], color="0.75", lw=2, zorder=1)
        left.plot(x, seed.value, "o", color="0.6", ms=3)
    left.set_xscale("log")
    left.set_xticks(active, [f"{size:.3g}" for size in active])
    left.minorticks_off()
    left.set_ylabel(
      ablation.title(ablation.known_metrics()[metric]), fontsize="small"
    )
    for name, colour in zip(by_size, _colours(len(by_size)), strict=True):
      for number, each in enumerate(scales[name].curves):
        label = None if number else f"{scales[name].active / 1e6:.2f} M"
        right.plot(
          each.tokens / 1e6,
          each.values[metric],
          "o-",
          color=colour,
          ms=3,
          lw=1,
          label=label,
        )
    for panel in (left, right):
      panel.set_ylim(*_limits(table, metric))
      panel.grid(color="0.92")
      panel.spines[["top", "right"]].set_visible(False)
  panels[-1, 0].set_xlabel("active parameters, millions")
  panels[-1, 1].set_xlabel("tokens seen, millions (evaluations in training)")
  panels[0, 1].legend(frameon=False, fontsize="small", title="active")
  canvas.savefig(path, dpi=120, format="png")


def _colours(count: int) -> list[str]:
  return [_COLOURS[i % len(_COLOURS)] for i in range(count)]
