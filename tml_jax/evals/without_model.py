"""Evaluation of an agent without a model: no run, no weights, no jax.

For: `evaluate --agent=NAME`, and for seeing what the panel says of nonsense.
Not for: models (`run`) or the agents themselves (`agents`). Start at
`evaluate`.
"""

import collections
from collections.abc import Callable

import numpy as np

from tml_jax.evals import agents, kept, report, suites
from tml_jax.evals.metrics import panel
from tml_jax.logs import columns, ticks


def evaluate(
  suite: suites.Suite,
  *,
  name: str,
  keep: Callable[[str, ticks.Log], None] = lambda family, log: None,
) -> report.Report:
  """Scores every item of a suite.

  Args:
    suite: what to evaluate.
    name: of the agent, in `agents.AGENTS`.
    keep: takes the family and the log of every conversation.

  Raises:
    errors.UserError: no such agent, no item says what is due, or data are
      broken.
  """
  agents.of(name)  # refuses another name
  agent, items = agents.among(suite.users)[name], suite.items()
  scored, skipped = [], collections.Counter[str]()
  for item in items:
    timeline = item.load()
    if not suite.asks(timeline):
      skipped[item.family] += 1
      continue
    log = agent(timeline)
    keep(item.family, log)
    logs = {panel.MODEL: log}
    logs |= {name: make(timeline) for name, make in suite.agents.items()}
    scored.append(
      report.Scored(
        item.family,
        log=log,
        series={name: suite.measure(each) for name, each in logs.items()},
        columns={name: columns.of(each) for name, each in logs.items()},
        of=kept.of_item(item, script=timeline),
      )
    )
  if not scored:
    raise suites.nothing_due(sorted(skipped))
  return report.Report(
    scored=scored,
    sums={},
    skipped=dict(skipped),
    reused=0,
    tick_seconds=np.zeros(0),
    metrics=suite.metrics,
    agents=tuple(suite.agents),
    corpora=suite.corpora,
    held=name,
  )
