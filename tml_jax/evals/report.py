"""A suite evaluated: what was held, as numbers by family and agent.

For: the tables, pages and JSON files of an evaluation. Not for: holding
conversations (`run`, `without_model`) or showing them (`show`). Start at
`Report`. Nothing here imports jax.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from tml_jax.evals.metrics import floor, panel, statistics
from tml_jax.evals.metrics.floor import Series
from tml_jax.evals.sums import Sums
from tml_jax.logs import ticks

SLOTS = 16  # conversations that are held together


@dataclasses.dataclass(frozen=True)
class Scored:
  """One item.

  Attributes:
    family: whose it is.
    log: of the model's session.
    series: by agent: the model's and those of agents without a model.
    columns: of their logs, by agent; see `logs.columns`.
    of: what names the item; `kept.of_item`.
  """

  family: str
  log: ticks.Log
  series: Mapping[str, Series]
  columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  of: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def score(self) -> float:
    return panel.score(self.series[panel.MODEL])


@dataclasses.dataclass(frozen=True)
class Report:
  """A suite evaluated.

  Attributes:
    scored: items, those of a family together.
    sums: of forced predictions on each family, and of `panel.ALL`; none of an
      agent without a model.
    skipped: items that say nothing of what is due, by family.
    reused: items whose log was there.
    tick_seconds: [ticks] of `SLOTS` sessions at once, compilation included.
    metrics: of the suite.
    agents: without a model, names.
    corpora: families that are recorded corpora.
    held: what was evaluated, at the head of its column.
    provenance: of the model, as in all its logs.
  """

  scored: list[Scored]
  sums: dict[str, Sums]
  skipped: dict[str, int]
  reused: int
  tick_seconds: np.ndarray
  metrics: tuple[panel.Metric, ...]
  agents: tuple[str, ...]
  corpora: tuple[str, ...] = ()
  held: str = panel.MODEL
  provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def families(self) -> list[str]:
    return list(dict.fromkeys(item.family for item in self.scored))

  @functools.cached_property
  def content(self) -> dict[str, dict[str, float]]:
    """Numbers of forced predictions, by family; `sums.Sums.scalars`."""
    return {
      family: self.sums[family].scalars() if family in self.sums else {}
      for family in (*self.families, panel.ALL)
    }

  def items(self, family: str) -> list[Scored]:
    """Those of a family, or `panel.ALL`."""
    return [s for s in self.scored if family in (panel.ALL, s.family)]

  def summary(
    self,
    family: str,
    *,
    agent: str = panel.MODEL,
    resamples: int = statistics.RESAMPLES,
  ) -> dict[str, statistics.Value]:
    items = [item.series[agent] for item in self.items(family)]
    return statistics.summarise(
      items, metrics=self.metrics, resamples=resamples
    )

  @functools.cached_property
  def columns(self) -> dict[str, dict[str, dict[str, statistics.Value]]]:
    """The panel by family (and `panel.ALL`) and agent, the model first.

    Agents without a model have intervals for all families together.
    """
    return {
      family: {panel.MODEL: self.summary(family)}
      | {
        name: self.summary(
          family,
          agent=name,
          resamples=statistics.RESAMPLES if family == panel.ALL else 0,
        )
        for name in self.agents
      }
      for family in (*self.families, panel.ALL)
    }

  @functools.cached_property
  def differences(self) -> dict[str, dict[str, statistics.Difference]]:
    """The model less each agent in `panel.HEADLINE` and `panel.CALLS`.

    Over the same users of all families together; `p_holm` is for all these
    comparisons.
    """
    names = (*panel.HEADLINE, *panel.CALLS)
    rows = tuple(m for m in self.metrics if m.name in names)
    ours = [item.series[panel.MODEL] for item in self.scored]
    return statistics.holm(
      {
        name: statistics.compare(
          ours,
          [item.series[name] for item in self.scored],
          metrics=rows,
          resamples=statistics.resamples_for(len(rows) * len(self.agents)),
        )
        for name in self.agents
      }
    )

  def transfers(self, family: str) -> dict[str, np.ndarray]:
    """[`statistics.BINS`] counts of floor transfers.

    The model's, and those of the recorded agent.
    """
    items = [item.series[panel.MODEL] for item in self.items(family)]
    agents = {panel.MODEL: floor.TRANSFER, "recorded": floor.RECORDED}
    return {
      name: sum(statistics.histogram(item.get(series, [])) for item in items)
      for name, series in agents.items()
    }

  def scalars(self) -> dict[str, float]:
    """Of all families together, and CORPUS/NAME of every recorded corpus.

    For the metrics of training.
    """
    result = self._scalars(panel.ALL)
    for corpus in self.corpora:
      if corpus in self.families:
        found = self._scalars(corpus)
        result |= {f"{corpus}/{name}": v for name, v in found.items()}
    return result

  def _scalars(self, family: str) -> dict[str, float]:
    values = self.summary(family, resamples=0)
    return statistics.scalars(values) | self.content[family]
