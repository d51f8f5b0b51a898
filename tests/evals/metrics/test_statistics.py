"""Intervals, comparisons and the summary score, against closed forms."""

import numpy as np
import pytest
from scipy import stats

from tml_jax.evals.metrics import chances, panel, score, statistics


def _items(*values):
  """Items with one event each of `responded`."""
  return [{"responded": [(float(v), 1)]} for v in values]


ROWS = tuple(m for m in panel.METRICS if m.name in ("responded", "done"))


def test_exact_intervals_are_those_of_the_binomial_test():
  for count, total in ((0, 32), (38, 38), (7, 20), (1, 3)):
    low, high = statistics.clopper_pearson(count, total)
    exact = stats.binomtest(count, total).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high))
  # As the reading of the old panel has them.
  assert statistics.clopper_pearson(38, 38)[0] == pytest.approx(0.907, abs=1e-3)
  assert statistics.clopper_pearson(0, 32)[1] == pytest.approx(0.109, abs=1e-3)


def test_events_that_hang_together_have_wider_intervals():
  alone = _items(*[1, 0] * 20)
  together = [{"responded": [(float(v), 1)] * 10} for v in [1, 0, 1, 0]]
  widths = []
  for items in (alone, together):
    found = statistics.summarise(items, metrics=ROWS)["responded"]
    assert found.value == 0.5 and found.events == 40
    widths.append(found.high - found.low)
  exact = np.diff(statistics.clopper_pearson(20, 40))[0]
  assert widths[0] == pytest.approx(exact, abs=0.02)
  assert widths[1] > 2 * exact


def test_a_paired_comparison():
  random = np.random.default_rng(0)
  hard = random.random(200) < 0.5
  better = _items(*np.where(hard, random.random(200) < 0.9, 1))
  worse = _items(*np.where(hard, random.random(200) < 0.3, 1))
  found = statistics.compare(better, worse, metrics=ROWS)
  assert found.keys() == {"responded"}  # nobody has the other
  apart = found["responded"]
  one, other = (
    statistics.summarise(items, metrics=ROWS)["responded"]
    for items in (better, worse)
  )
  assert apart.value == pytest.approx(one.value - other.value)
  assert apart.low < apart.value < apart.high and apart.low > 0
  assert apart.p == pytest.approx(2 / 5_001)
  # Over the same users the difference is known better than both sides are.
  ends = np.sqrt((one.high - one.low) ** 2 + (other.high - other.low) ** 2)
  assert apart.high - apart.low < ends
  same = statistics.compare(better, better, metrics=ROWS)["responded"]
  assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
  with pytest.raises(ValueError, match="200 users of one agent, 199"):
    statistics.compare(better, worse[1:], metrics=ROWS)


def test_holm_by_hand():
  def of(p):
    return statistics.Difference(0.1, 0.0, 0.2, p=p)

  found = statistics.holm(
    {
      "silent": {"done": of(0.01), "right": of(0.04)},
      "echo": {"done": of(0.03), "right": of(float("nan"))},
    }
  )
  # 3 x 0.01; 2 x 0.03; 1 x 0.04, but no less than the one before.
  assert found["silent"]["done"].p_holm == pytest.approx(0.03)
  assert found["echo"]["done"].p_holm == pytest.approx(0.06)
  assert found["silent"]["right"].p_holm == pytest.approx(0.06)
  assert np.isnan(found["echo"]["right"].p_holm)
  assert found["echo"]["done"].p == 0.03


def _score(**values):
  shares = {name: np.array([np.nan]) for name in score.series(chances.DUE)}
  shares |= {name: np.array([float(v)]) for name, v in values.items()}
  return score.summary(shares)[0]


def test_the_summary_score_by_hand():
  best = dict(done_turn=1, right_turn=1, takeover=0, unasked_seconds=0)
  assert _score(**best) == 100
  assert _score(**best | dict(unasked_seconds=6)) == pytest.approx(80)
  assert _score(**best | dict(right_turn=0)) == 0
  assert _score(**best | dict(done_turn=0, right_turn=0)) == 0
  # Every kind counts alike: (1 + 0.5) / 2 of acts and of words.
  two = _score(**best | dict(done_cue=0.5, right_cue=0.5))
  assert two == pytest.approx(100 * 4 / (1 / 0.75 + 1 / 0.75 + 1 + 1))
  assert _score(**best | dict(takeover=1)) == 0
  # Of recorded conversations nothing says what is due.
  assert np.isnan(_score(took_floor=1, extra_floor=0))
  assert np.isnan(_score(unasked_seconds=3, takeover=0))  # nothing was due
  # It is below four times the least side: no agent wins by one side alone.
  for side in ("done_turn", "right_turn"):
    assert _score(**best | {side: 0.05}) < 20


def test_the_summary_score_is_a_row_with_an_interval():
  items = [
    {
      "done": [(v, 1)],
      "done_turn": [(v, 1)],
      "right_turn": [(v, 1)],
      "unasked_seconds": [(0.0, 0.2)],
    }
    for v in (1.0, 0.0) * 30
  ]
  found = statistics.summarise(items, metrics=(panel.SUMMARY,))
  value = found["summary_score"]
  assert value.events == 60
  assert value.value == pytest.approx(100 * 3 / (2 + 2 + 1))
  assert 0 < value.low < value.value < value.high < 100


def test_a_corrected_p_can_be_small_whatever_is_compared():
  for count in (1, 99, 210, 1000):
    least = 2 / (statistics.resamples_for(count) + 1)
    assert count * least < 0.05
