"""An evaluation as a table and as a picture.

For: people. Not for: the numbers themselves (`run`, `reply`). Start reading
at `table`.
"""

import math
import pathlib

import numpy as np

from tml_jax.data.splits import Split
from tml_jax.evals import run

# Metric, what it is called, unit, factor, digits.
_ROWS = (
  ("response_rate", "answered", "% of exchanges", 100, 1),
  ("latency_median", "latency, median", "windows of 200 ms", 1, 1),
  ("latency_p90", "latency, 90th percentile", "windows", 1, 1),
  ("delay_error_median", "delay error, median", "windows", 1, 1),
  (
    "delay_within_1",
    "asked delay kept within 1",
    "% of such exchanges",
    100,
    1,
  ),
  ("timing_within_1", "on time within 1", "% of exchanges", 100, 1),
  ("false_starts_per_minute", "false starts", "per minute", 1, 2),
  ("overlap", "talks while the user does", "% of user speech", 100, 1),
  ("text_accuracy", "text tokens right", "% (forced)", 100, 1),
  ("message_accuracy", "message tokens right", "% (forced)", 100, 1),
  ("text_loss", "text loss", "nats a token (forced)", 1, 2),
  ("mel_db", "mel error, sampled", "dB RMS (forced)", 1, 2),
  ("mel_expected_db", "mel error, expected mel", "dB RMS (forced)", 1, 2),
  ("mel_mean_db", "mel error of the mean", "dB RMS", 1, 2),
  ("exchanges", "exchanges", "", 1, 0),
)
# Okabe and Ito's colours, told apart by colour-blind eyes too.
_COLOURS = {Split.HELDOUT: "#0072b2", Split.FRESH: "#e69f00"}
_LAST_BIN = 15  # windows; the bin of everything from there on


def table(columns: dict[str, dict[str, float]]) -> str:
  """One row a metric, one column an agent; "-" where nothing was measured."""
  head = ["", *columns, ""]
  rows = [head]
  for name, title, unit, factor, digits in _ROWS:
    cells = []
    for scalars in columns.values():
      value = scalars.get(name, math.nan)
      cells.append("-" if math.isnan(value) else f"{factor * value:.{digits}f}")
    rows.append([title, *cells, unit])
  widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
  lines = []
  for title, *cells, unit in rows:
    line = title.ljust(widths[0])
    for cell, width in zip(cells, widths[1:-1], strict=True):
      line += "  " + cell.rjust(width)
    lines.append(f"{line}  {unit}".rstrip())
  rule = "-" * max(map(len, lines))
  return "\n".join([lines[0], rule, *lines[1:]])


def picture(reports: list[run.Report], *, path: pathlib.Path) -> None:
  """Histograms of latencies and of delay errors, as PNG."""
  from matplotlib import figure

  canvas = figure.Figure(figsize=(10, 3.6), layout="constrained")
  left, right = canvas.subplots(1, 2)
  plain, asked = {}, {}
  for report in reports:
    exchanges = [e for score in report.scores for e in score.exchanges]
    plain[report.split] = [e for e in exchanges if not e.instructed]
    asked[report.split] = [e for e in exchanges if e.instructed]
  _histogram(
    left,
    {
      split: [e.latency for e in group if e.latency is not None]
      for split, group in plain.items()
    },
    totals={split: len(group) for split, group in plain.items()},
    first=1,
  )
  left.set_title("Latency, no delay asked (2 is recorded)", loc="left")
  left.set_xlabel("windows of 200 ms after the user's last sound")
  _histogram(
    right,
    {
      split: [
        e.reply_window - e.asked_window
        for e in group
        if e.reply_window is not None
      ]
      for split, group in asked.items()
    },
    totals={split: len(group) for split, group in asked.items()},
    first=-_LAST_BIN,
  )
  right.axvspan(-1.5, 1.5, color="0.92", zorder=0)
  right.set_title("Asked delay (grey: within 1 window)", loc="left")
  right.set_xlabel("windows of 200 ms after the time asked for")
  canvas.savefig(path, dpi=120, format="png")


def _histogram(
  axes,
  values: dict[Split, list[int]],
  *,
  totals: dict[Split, int],
  first: int,
) -> None:
  """Shares of all exchanges side by side; the rest was not answered."""
  bins = np.arange(first, _LAST_BIN + 1)
  width = 0.8 / max(len(values), 1)
  for i, (split, group) in enumerate(values.items()):
    clipped = np.clip(np.array(group, int), bins[0], bins[-1])
    counts = np.array([(clipped == b).sum() for b in bins])
    total = max(totals[split], 1)
    axes.bar(
      bins + (i - (len(values) - 1) / 2) * width,
      100 * counts / total,
      width=width,
      color=_COLOURS.get(split, "0.4"),
      label=f"{split}: {len(group)} of {totals[split]} answered",
      zorder=2,
    )
  ticks = [b for b in bins if b % 5 == 0 or b == first]
  axes.set_xticks(ticks, [f"{b}+" if b == _LAST_BIN else str(b) for b in ticks])
  axes.set_ylabel("% of exchanges")
  axes.grid(axis="y", color="0.9", zorder=0)
  axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False, fontsize="small")
