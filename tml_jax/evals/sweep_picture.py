"""What a sweep trades, as a picture: turns answered against unasked speech.

For: `evaluate --sweep`, with another run's beside it (`--beside`), and arms of
several seeds (`results`). Not for: the numbers (`sweep`). Start at `draw`. Up
and to the left is better: no row of the panel shows both at once.
"""

import dataclasses
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import spatial

from tml_jax import files
from tml_jax.evals.metrics import panel
from tml_jax.evals.metrics.statistics import Value

# Okabe and Ito's colours, told apart by colour-blind eyes too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
X, Y = "unasked_seconds", "responded"


@dataclasses.dataclass(frozen=True)
class Arm:
  """What was swept of one agent.

  Attributes:
    name: in the legend.
    labels: of the points.
    rows: of the points, values by name of the metric.
  """

  name: str
  labels: Sequence[str]
  rows: Sequence[Mapping[str, Value]]

  @classmethod
  def of(cls, numbers: Mapping[str, Any]) -> "Arm":
    """Of a file that `sweep.read` has checked."""
    return cls(
      name=f"{numbers['config']}, {numbers['agent']}",
      labels=[
        ", ".join(f"{value}" for value in point["changes"].values())
        for point in numbers["points"]
      ],
      rows=[
        {name: _value(row) for name, row in point["rows"].items()}
        for point in numbers["points"]
      ],
    )


def _value(row: Mapping[str, Any]) -> Value:
  """Of JSON, whose null is NaN."""
  value, low, high = (
    math.nan if number is None else float(number)
    for number in (row["value"], *row["interval"])
  )
  return Value(value, low, high, int(row["events"]))


@dataclasses.dataclass(frozen=True)
class _Place:
  """A point: [x, y], and its box [low x, high x, low y, high y]."""

  label: str
  at: tuple[float, float]
  box: tuple[float, float, float, float]

  @property
  def corners(self) -> np.ndarray:
    """[4, 2] of the box."""
    left, right, low, high = self.box
    return np.array([(x, y) for x in (left, right) for y in (low, high)])


def _places(arm: Arm) -> list[_Place]:
  """In the order of the arm; points without both numbers are left out."""
  factors = {m.name: m.factor for m in panel.METRICS}
  found = []
  for label, rows in zip(arm.labels, arm.rows, strict=True):
    if X not in rows or Y not in rows:
      continue
    at, box = [], []
    for name in (X, Y):
      value = rows[name]
      at.append(factors[name] * value.value)
      for bound in (value.low, value.high):
        bound = value.value if math.isnan(bound) else bound
        box.append(factors[name] * bound)
    found.append(_Place(label, tuple(at), tuple(box)))
  return found


def band(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """[corners, 2] of the least convex figure around two boxes, [4, 2] each.

  Of boxes without an area, all corners.
  """
  corners = np.concatenate([one, other])
  try:
    return corners[spatial.ConvexHull(corners).vertices]
  except spatial.QhullError:  # on one line
    return corners


def draw(arms: Sequence[Arm], *, path: pathlib.Path) -> None:
  """A line an arm, in a band that joins the intervals of its points. PNG."""
  from matplotlib import figure

  canvas = figure.Figure(figsize=(6.4, 4.2), layout="constrained")
  axes = canvas.subplots()
  for number, arm in enumerate(arms):
    colour = _COLOURS[number % len(_COLOURS)]
    places = _places(arm)
    for one, other in zip(places, places[1:], strict=False):
      corners = band(one.corners, other.corners)
      axes.fill(*corners.T, color=colour, alpha=0.12, lw=0)
    for place in places:
      (x, y), (left, right, low, high) = place.at, place.box
      axes.plot((left, right), (y, y), color=colour, lw=0.6, alpha=0.5)
      axes.plot((x, x), (low, high), color=colour, lw=0.6, alpha=0.5)
      axes.annotate(
        place.label,
        place.at,
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=7,
        color=colour,
      )
    if places:
      xs, ys = zip(*(place.at for place in places), strict=True)
      axes.plot(xs, ys, "o-", color=colour, ms=4, lw=1, label=arm.name)
  axes.set_ylim(0, 102)
  axes.set_xlim(left=0)
  axes.set_xlabel("speech that nobody asked for, seconds a minute", fontsize=8)
  axes.set_ylabel("turns answered, %", fontsize=8)
  axes.tick_params(labelsize=8)
  axes.grid(color="0.92")
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  if axes.get_legend_handles_labels()[0]:
    axes.legend(frameon=False, fontsize=7, loc="best")
  content = io.BytesIO()
  canvas.savefig(content, dpi=120, format="png")
  files.write_atomically(path, content=content.getvalue())
