"""Charts of a page: inline SVG beside the numbers that it shows.

For: distributions and shares. Not for: what is counted. Start at `bars`. Names
and numbers are cells of a table, so they are read at any width, and aloud.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tml_jax.page import html


@dataclasses.dataclass(frozen=True)
class Bar:
  """One line of a chart.

  Attributes:
    name: of it.
    value: its length.
    label: its number as it is shown.
    colour: a class of the style sheet.
  """

  name: str
  value: float
  label: str
  colour: str = "c-blue"


def bars(rows: Sequence[Bar], *, caption: str) -> str:
  """Bars from the left, the longest as wide as there is room."""
  most = max((bar.value for bar in rows), default=0) or 1
  lines = [
    f"<div class='scroll bars' tabindex=0><table><caption>{html.text(caption)}"
    "</caption><tbody>"
  ]
  for bar in rows:
    width = max(0.0, 100 * bar.value / most)
    lines.append(
      f"<tr><th scope=row>{html.text(bar.name)}</th><td class=number>"
      f"{html.text(bar.label)}</td><td class=bar><svg viewBox='0 0 100 10'"
      f" preserveAspectRatio=none aria-hidden=true><rect width='{width:.2f}'"
      f" height=10 class={bar.colour} /></svg></td></tr>"
    )
  return "\n".join([*lines, "</tbody></table></div>"])


def stacked(rows: Sequence[Bar], *, caption: str) -> str:
  """Shares of a whole: one bar, and below it the numbers of its parts."""
  total = sum(bar.value for bar in rows) or 1
  left, rects = 0.0, []
  for bar in rows:
    width = 100 * bar.value / total
    rects.append(
      f"<rect x='{left:.3f}' width='{width:.3f}' height=10"
      f" class={bar.colour}><title>{html.text(bar.name)}:"
      f" {html.text(bar.label)}</title></rect>"
    )
    left += width
  lines = "".join(
    f"<li><span class='key {bar.colour}'></span>{html.text(bar.name)}"
    f" <b>{html.text(bar.label)}</b> ({100 * bar.value / total:.1f} %)"
    for bar in rows
    if bar.value
  )
  return (
    f"<figure><figcaption>{html.text(caption)}</figcaption>"
    "<svg class=stack viewBox='0 0 100 10' preserveAspectRatio=none role=img"
    f" aria-label='{html.text(caption)}'>{''.join(rects)}</svg>"
    f"<ul class=legend>{lines}</ul></figure>"
  )


def histogram(
  values: np.ndarray,
  *,
  edges: Sequence[float],
  unit: str,
  caption: str,
  colours: Sequence[str] = (),
) -> str:
  """How many values lie from each edge to the next, where there are any.

  Args:
    values: [n] numbers; those outside of the edges are counted at the ends.
    edges: ascending, the outermost may be infinite.
    unit: of them.
    caption: plain text.
    colours: of each bar; blue if not given.
  """
  counts = count(values, edges=edges)
  names = []
  for low, high in zip(edges[:-1], edges[1:], strict=True):
    if np.isinf(low):
      names.append(f"below {high:g} {unit}")
    elif np.isinf(high):
      names.append(f"{low:g} {unit} and more")
    else:
      names.append(f"{low:g} to {high:g} {unit}")
  total = max(1, int(counts.sum()))
  shown = colours or ["c-blue"] * len(names)
  rows = [
    Bar(name, float(n), f"{n:,} ({100 * n / total:.0f} %)", colour)
    for name, n, colour in zip(names, counts.tolist(), shown, strict=True)
  ]
  some = np.flatnonzero(counts)
  if len(some):  # nothing is said of what lies outside
    rows = rows[some[0] : some[-1] + 1]
  return bars(rows, caption=caption)


def count(values: np.ndarray, *, edges: Sequence[float]) -> np.ndarray:
  """[edges - 1] int64: values from each edge to the next, the last included."""
  inner = np.asarray(edges[1:-1], float)
  places = np.searchsorted(inner, values, side="right")
  return np.bincount(places, minlength=len(edges) - 1)
