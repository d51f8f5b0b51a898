"""An evaluation as a table and as an HTML report.

For: people. Not for: the numbers themselves (`panel`) or the pictures
(`log_picture`). Start reading at `table` and `html`.
"""

import dataclasses
import html as html_lib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tml_jax.evals import conditions as conditions_lib
from tml_jax.evals import log_picture
from tml_jax.evals.metrics import panel, statistics
from tml_jax.evals.metrics.panel import Better, Metric
from tml_jax.evals.metrics.statistics import Value
from tml_jax.evals.report import Report

FEW = "*"
NOTE = (
  f"{FEW} fewer than {panel.FEW_EVENTS} events; brackets are"
  f" {100 * statistics.CONFIDENCE:.0f} % intervals by bootstrap over"
  " conversations, of shares at least the exact ones; n counts events of the"
  " model; the columns behind it are agents without a model on the same"
  " conversations. The first rows are read together or not at all; the others,"
  " below the line, are an appendix that begins where the model is farthest"
  " from the recorded agent; last in it comes what no agent behind a turn"
  " detector can have, which says nothing of who is better at taking turns."
)
DUPLEX = "what no agent that speaks when a turn is over can have"
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .18rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1.5px solid #222; }
tbody.appendix { border-top: 1px solid #222; }
tbody tr:nth-child(odd) { background: #f5f5f5; }
td.model { font-weight: 600; } td.interval, td.n, td.unit { color: #666; }
td.dummy { color: #555; } .few { color: #999; font-weight: 400; }
.wide { overflow-x: auto; } img { max-width: 100%; margin: .3rem 0 0; }
figure { margin: .6rem 0; } figcaption { color: #555; }
p.note { color: #666; max-width: 50rem; }
"""


@dataclasses.dataclass(frozen=True)
class Rows:
  """The metrics of a table, in its order.

  Attributes:
    headline: `panel.HEADLINE`, whole or not, and `panel.CALLS`.
    appendix: all others of which any agent has an event.
    duplex: of those, the ones that no agent behind a turn detector can have.
  """

  headline: list[Metric]
  appendix: list[Metric]
  duplex: list[Metric]

  def __iter__(self) -> Iterator[Metric]:
    return iter(self.headline + self.appendix + self.duplex)


def rows(report: Report, family: str) -> Rows:
  """What is measured; of the appendix, the rows that hurt come first."""
  found = report.columns[family]
  counted = {
    name
    for values in found.values()
    for name, value in values.items()
    if value.events
  }
  rates = {"false_fires", "unasked_seconds", "summary_score"}
  headline = (
    set(panel.HEADLINE)
    if counted & set(panel.HEADLINE) - rates
    else (counted & set(panel.HEADLINE))
  )
  headline |= counted & set(panel.CALLS)
  appendix = [m for m in report.metrics if m.name in counted - headline]
  appendix.sort(key=lambda m: -_hurt(m, found))
  return Rows(
    [m for m in report.metrics if m.name in headline],
    [m for m in appendix if not m.needs_duplex],
    [m for m in appendix if m.needs_duplex],
  )


def _hurt(metric: Metric, found: dict[str, dict[str, Value]]) -> float:
  """How much worse than the recorded agent the model is, 0 to 1.

  Less than 0 where it is better, or nobody says what is.
  """
  best = found.get("recorded", {}).get(metric.name)
  if best is None or metric.better is Better.NEITHER:
    return -2.0
  ours = found[panel.MODEL][metric.name]
  if math.isnan(ours.value) or math.isnan(best.value):
    return -1.0
  return statistics.lost(metric, ours, best)


def number(value: Value, metric: Metric) -> str:
  """A value as the table has it; "-" where nothing was measured."""
  if math.isnan(value.value):
    return "-"
  text = f"{metric.factor * value.value:.{metric.digits}f}"
  return text + (FEW if value.events < panel.FEW_EVENTS else "")


def interval(value: Value, metric: Metric) -> str:
  """Its confidence interval; empty where there is none."""
  if math.isnan(value.low):
    return ""
  low, high = metric.factor * value.low, metric.factor * value.high
  return f"[{low:.{metric.digits}f}, {high:.{metric.digits}f}]"


def table(report: Report, family: str) -> str:
  """A row a metric; the model with interval and events, then the dummies."""
  found = report.columns[family]
  head = [family, report.held, "", "n", *report.agents, ""]
  lines, shown = [head], rows(report, family)
  for metric in shown:
    value = found[panel.MODEL][metric.name]
    cells = [number(found[name][metric.name], metric) for name in report.agents]
    lines.append(
      [
        metric.title,
        number(value, metric),
        interval(value, metric),
        str(value.events),
        *cells,
        metric.unit,
      ]
    )
  for title, cell, unit in _content(report, family):
    lines.append([title, cell, "", "", *["-"] * len(report.agents), unit])
  widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
  text = []
  for title, *cells, unit in lines:
    line = title.ljust(widths[0])
    for cell, width in zip(cells, widths[1:-1], strict=True):
      line += "  " + cell.rjust(width)
    text.append(f"{line}  {unit}".rstrip())
  line = "-" * max(map(len, text))
  first = 1 + len(shown.headline)
  apart = first + len(shown.appendix)
  last = apart + len(shown.duplex)
  parts = [text[0], line, *text[1:first], line, *text[first:apart]]
  if shown.duplex:
    parts += [f"-- {DUPLEX} ".ljust(len(line), "-"), *text[apart:last]]
    parts += [line] if text[last:] else []
  return "\n".join([*parts, *text[last:]])


def _content(report: Report, family: str) -> list[tuple[str, str, str]]:
  """Title, number and unit of every number of forced predictions."""
  scalars = report.content[family]
  return [
    (
      f"{metric.title} (forced)",
      f"{metric.factor * scalars[metric.name]:.{metric.digits}f}",
      metric.unit,
    )
    for metric in panel.CONTENT
    if not math.isnan(scalars.get(metric.name, math.nan))
  ]


def html(
  report: Report, *, title: str, conditions: Mapping[str, Any] | None = None
) -> str:
  """A page that needs no other file.

  `conditions` are rows of `conditions.row`, if there are some.
  """
  parts = [
    "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
    "<meta name='viewport' content='width=device-width'>",
    f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
    f"<h1>{_text(title)}</h1>",
    f"<p class='note'>{_text(NOTE)}</p>",
    _section(report, panel.ALL, "All families"),
    _image(
      log_picture.transfers(report.transfers(panel.ALL)),
      caption="floor transfers of all families",
    ),
    *([_conditions(conditions)] if conditions else []),
  ]
  for family in report.families:
    count = len(report.items(family))
    heading = f"{family}: {count} conversations"
    if report.skipped.get(family):
      heading += f", {report.skipped[family]} without annotations left out"
    parts.append(_section(report, family, heading))
    parts += _figures(report, family)
  for name, definition in panel.definitions().items():
    parts.append(f"<h2>{_text(name)}</h2><p>{_text(definition)}</p>")
  return "\n".join([*parts, "</body></html>\n"])


def _section(report: Report, family: str, heading: str) -> str:
  found = report.columns[family]
  head = ["", report.held, "interval", "n", *report.agents, ""]
  lines = [f"<h2>{_text(heading)}</h2><div class='wide'><table><thead><tr>"]
  lines += [f"<th>{_text(cell)}</th>" for cell in head]
  lines.append("</tr></thead><tbody>")
  shown = rows(report, family)
  for metric in shown:
    value = found[panel.MODEL][metric.name]
    few = " few" if value.events < panel.FEW_EVENTS else ""
    if shown.appendix and metric is shown.appendix[0]:
      lines.append("</tbody><tbody class='appendix'>")
    if shown.duplex and metric is shown.duplex[0]:
      cell = f"<td colspan='{len(head)}'>{_text(DUPLEX)}</td>"
      lines.append(f"</tbody><tbody class='appendix'><tr>{cell}</tr>")
    lines.append(
      f"<tr><td title='{metric.name}'>{_text(metric.title)}{metric.better}"
      f"</td><td class='model{few}'>{number(value, metric)}</td>"
      f"<td class='interval'>{interval(value, metric)}</td>"
      f"<td class='n'>{value.events}</td>"
    )
    lines += [
      f"<td class='dummy'>{number(found[name][metric.name], metric)}</td>"
      for name in report.agents
    ]
    lines.append(f"<td class='unit'>{_text(metric.unit)}</td></tr>")
  for title, cell, unit in _content(report, family):
    dashes = "<td class='dummy'>-</td>" * len(report.agents)
    lines.append(
      f"<tr><td>{title}</td><td class='model'>{cell}</td><td></td><td></td>"
      f"{dashes}<td class='unit'>{unit}</td></tr>"
    )
  return "".join([*lines, "</tbody></table></div>"])


def _conditions(rows: Mapping[str, Any]) -> str:
  """A line a condition, what was evaluated alone."""
  head, *lines = conditions_lib.table(rows)
  titles = "".join(f"<th>{_text(cell)}</th>" for cell in head)
  body = "".join(
    f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in line)}</tr>"
    for line in lines
  )
  return (
    "<h2>Users unlike those of training</h2><div class='wide'><table><thead>"
    f"<tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
  )


def _figures(report: Report, family: str) -> list[str]:
  """Timelines of the best, the median and the worst item."""
  ranked = [s for s in report.items(family) if not math.isnan(s.score)]
  ranked.sort(key=lambda item: item.score, reverse=True)
  places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
  result = []
  for name, place in places.items() if ranked else ():
    item = ranked[place]
    caption = (
      f"{name} of {len(ranked)}: {item.log.id}, {100 * item.score:.0f} % of"
      " what was asked went well"
    )
    result.append(_image(log_picture.draw(item.log), caption=caption))
  return result


def _image(canvas, *, caption: str) -> str:
  return (
    f"<figure><figcaption>{_text(caption)}</figcaption><img"
    f" alt='{_text(caption)}' src='data:image/png;base64,"
    f"{log_picture.base64_png(canvas)}'></figure>"
  )


def _text(text: str) -> str:
  # A name that is no UTF-8 is shown, and costs no report.
  text = text.encode(errors="backslashreplace").decode()
  return html_lib.escape(text, quote=True)
