"""Logs from drawings, one letter a tick: `u` user, `a` agent, `b` both."""

import numpy as np

from tml_jax.evals.metrics import panel, speech
from tml_jax.evals.report import Report, Scored
from tml_jax.logs import ticks
from tml_jax.streams.annotation import Annotation, Kind

TICK = 0.2


def log(
  drawing, *annotations, says=(), calls=(), results=(), recorded=""
) -> ticks.Log:
  """`says` and `calls` by tick, `results` (number, text) by tick.

  `recorded` draws the recorded agent.
  """
  says, calls, results = dict(says), dict(calls), dict(results)
  made = {k: ticks.Call(i + 1, calls[k]) for i, k in enumerate(sorted(calls))}
  agent = np.array([letter == "a" for letter in recorded])
  return ticks.Log(
    id="drawn",
    family="test",
    duration=len(drawing) * TICK,
    annotations=tuple(sorted(annotations, key=lambda a: (a.start, a.end))),
    recorded=tuple(
      (first * TICK, stop * TICK) for first, stop in speech.runs_of(agent)
    ),
    ticks=tuple(
      ticks.Tick(
        agent=letter in "ab",
        user=letter in "ub",
        agent_text=says.get(k, ""),
        calls=(made[k],) if k in made else (),
        results=(ticks.Call(*results[k]),) if k in results else (),
      )
      for k, letter in enumerate(drawing)
    ),
  )


def asks(
  kind: Kind, first, stop, *, due=None, until=None, **rest
) -> Annotation:
  """An annotation from tick `first` up to tick `stop`; all times in ticks."""
  return Annotation(
    kind,
    start=first * TICK,
    end=stop * TICK,
    due=None if due is None else due * TICK,
    until=None if until is None else until * TICK,
    **rest,
  )


def values(drawing, *annotations, **rest) -> dict[str, list[float]]:
  """The values of all series, without their weights."""
  series = panel.measure(log(drawing, *annotations, **rest))
  return {name: [value for value, _ in found] for name, found in series.items()}


def report(scored: list[Scored]) -> Report:
  """A report of these items of the model alone, of the whole panel."""
  return Report(
    scored=scored,
    sums={},
    skipped={},
    reused=0,
    tick_seconds=np.zeros(0),
    metrics=panel.metrics(),
    agents=(),
  )
