"""An evaluation as JSON values: what `evaluate --json` writes of a report.

For: scripts and tables that read the file (`ablation`). Not for: people
(`show`). Start at `of`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tml_jax.evals.metrics import panel, statistics
from tml_jax.evals.metrics.statistics import Value
from tml_jax.evals.report import Report


def of(report: Report, *, left_out: Mapping[str, str]) -> dict[str, Any]:
  """The numbers of a report; `left_out` is what could not be read, and why."""
  return {
    "skipped": report.skipped,
    "left_out": dict(left_out),
    "metrics": _metrics(report),
    "agents": _agents(report),
    # Of the rows above, those that stand apart where arms are compared.
    "needs_duplex": [m.name for m in report.metrics if m.needs_duplex],
    "content": report.content,
    "definitions": panel.definitions(),  # of metrics outside the repository
    "floor_transfers": {
      "ticks": statistics.BINS.tolist(),
      **{k: v.tolist() for k, v in report.transfers(panel.ALL).items()},
    },
    "conversations": [
      {"id": s.log.id, "family": s.family, "score": s.score}
      for s in report.scored
    ],
  }


def without_nan(value: Any) -> Any:
  """NaN, which JSON lacks, as null."""
  if isinstance(value, dict):
    return {key: without_nan(item) for key, item in value.items()}
  if isinstance(value, list):
    return [without_nan(item) for item in value]
  if isinstance(value, float) and math.isnan(value):
    return None
  return value


def _metrics(report: Report) -> dict[str, Any]:
  """By family and agent: value, interval and events of what was measured."""
  return {
    family: {agent: rows(values) for agent, values in columns.items()}
    for family, columns in report.columns.items()
  }


def rows(values: dict[str, Value]) -> dict[str, Any]:
  """Of one agent: what was measured, by name of the metric."""
  return {
    name: {
      "value": value.value,
      "interval": [value.low, value.high],
      "events": value.events,
    }
    for name, value in values.items()
    if value.events
  }


def _agents(report: Report) -> dict[str, Any]:
  """By agent, what was evaluated first: the summary score and the rows.

  Of all families together, and the scores family by family. `less` is what was
  evaluated less the agent, over the same users.
  """
  result = {}
  for name in (panel.MODEL, *report.agents):
    values = report.columns[panel.ALL][name]
    result[name] = {
      "summary_score": values[panel.SUMMARY.name].value,
      "families": {
        family: report.columns[family][name][panel.SUMMARY.name].value
        for family in report.families
      },
      "rows": rows(values),
      "less": {
        row: dataclasses.asdict(difference)
        for row, difference in report.differences.get(name, {}).items()
      },
    }
  return result
