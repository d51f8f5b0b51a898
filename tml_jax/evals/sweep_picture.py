"""What a sweep trades, as a picture: turns answered against unasked speech.

For: `evaluate --sweep`, with another run's beside it (`--beside`). Not for: the
numbers (`sweep`). Start at `draw`. Up and to the left is better: no row of the
panel shows both at once.
"""

import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tml_jax import files
from tml_jax.evals.metrics import panel

# Okabe and Ito's colours, told apart by colour-blind eyes too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_X, _Y = "unasked_seconds", "responded"


@dataclasses.dataclass(frozen=True)
class Arm:
  """What was swept of one agent.

  Attributes:
    name: in the legend.
    labels: of the points.
    rows: of the points, as a sweep's JSON file has them.
  """

  name: str
  labels: Sequence[str]
  rows: Sequence[Mapping[str, Any]]

  @classmethod
  def of(cls, numbers: Mapping[str, Any]) -> "Arm":
    """Of a file that `sweep.read` has checked."""
    return cls(
      name=f"{numbers['config']}, {numbers['agent']}",
      labels=[
        ", ".join(f"{value}" for value in point["changes"].values())
        for point in numbers["points"]
      ],
      rows=[point["rows"] for point in numbers["points"]],
    )


def draw(arms: Sequence[Arm], *, path: pathlib.Path) -> None:
  """A line an arm; thin lines are intervals. PNG.

  Points without both numbers are left out.
  """
  from matplotlib import figure

  factors = {m.name: m.factor for m in panel.METRICS}
  canvas = figure.Figure(figsize=(6.4, 4.2), layout="constrained")
  axes = canvas.subplots()
  for number, arm in enumerate(arms):
    colour = _COLOURS[number % len(_COLOURS)]
    places = []
    for label, rows in zip(arm.labels, arm.rows, strict=True):
      if _X not in rows or _Y not in rows:
        continue
      x, y = (_scaled(rows[name], factors[name]) for name in (_X, _Y))
      places.append((x[0], y[0]))
      axes.plot(x[1:], [y[0]] * 2, color=colour, lw=0.6, alpha=0.5)
      axes.plot([x[0]] * 2, y[1:], color=colour, lw=0.6, alpha=0.5)
      axes.annotate(
        label,
        (x[0], y[0]),
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=7,
        color=colour,
      )
    if places:
      xs, ys = zip(*places, strict=True)
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


def _scaled(row: Mapping[str, Any], factor: float) -> tuple[float, ...]:
  """Value, low and high; null, of an interval that there is not, is NaN."""
  low, high = row["interval"]
  return tuple(
    factor * (float("nan") if number is None else float(number))
    for number in (row["value"], low, high)
  )
