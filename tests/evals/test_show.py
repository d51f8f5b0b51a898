"""Which rows of a report stand where, by hand-drawn conversations."""

import numpy as np

from tests.helpers import drawn
from tests.helpers.drawn import asks
from tml_jax.evals import as_json, show, sums
from tml_jax.evals.metrics import panel
from tml_jax.evals.report import Report, Scored
from tml_jax.streams import frame
from tml_jax.streams.annotation import Kind


def _predicted():
  """Of two tokens that are said, three nats."""
  found = sums.nothing()
  found.text[frame.Kind.SAY] = 1, 3.0, 2
  return found


def _report(*logs):
  return Report(
    scored=[
      Scored("test", log=log, series={panel.MODEL: panel.measure(log)})
      for log in logs
    ],
    sums={"test": _predicted(), panel.ALL: _predicted()},
    skipped={},
    reused=0,
    tick_seconds=np.zeros(0),
    metrics=panel.metrics(),
    agents=(),
  )


_TURN = drawn.log("uu.aa.....", asks(Kind.TURN, 0, 2))
_COUNTED = drawn.log("uu.aa.......", asks(Kind.REPETITION, 8, 10))


def test_rows_that_need_duplex_stand_apart():
  report = _report(_TURN, _COUNTED)
  shown = show.rows(report, "test")
  apart = {metric.name for metric in shown.duplex}
  assert {"done_repetition", "count_obo"} <= apart
  assert not apart & {m.name for m in shown.headline + shown.appendix}
  assert "done_turn" in {m.name for m in shown.appendix}
  lines = show.table(report, "test").splitlines()
  (begin,) = [i for i, line in enumerate(lines) if show.DUPLEX in line]
  titles = [metric.title for metric in shown.duplex]
  assert [
    line.startswith(title)
    for line, title in zip(lines[begin + 1 :], titles, strict=False)
  ] == [True] * len(titles)
  # Behind them, below a line of their own, come the forced predictions.
  assert lines[begin + 1 + len(titles)].strip("-") == ""
  assert lines[-1].startswith("text loss (forced)")
  page = show.html(report, title="test")
  assert page.index("turns answered") < page.index(show.DUPLEX)
  assert page.index(show.DUPLEX) < page.index("repetitions counted")
  numbers = as_json.of(report, left_out={})
  assert apart <= set(numbers["needs_duplex"])
  assert not set(numbers["needs_duplex"]) & set(panel.HEADLINE)


def test_without_such_rows_there_is_no_heading():
  assert show.DUPLEX not in show.table(_report(_TURN), "test")
