"""Means over seeds, and intervals over users and seeds."""

import numpy as np
import pytest
from scipy import stats

from tml_jax.evals.metrics import panel, seeds, statistics

_ROWS = tuple(
  m
  for m in panel.METRICS
  if m.name in ("responded", "unasked_seconds", "latency_p50")
)


def _items(share, *, count=40, seed=0, unasked=1.0):
  """Users of whom a share is answered."""
  random = np.random.default_rng(seed)
  return [
    {
      "responded": [(float(random.random() < share), 1.0)],
      "unasked_seconds": [(unasked, 0.5)],
      "latency": [(float(random.uniform(0.2, 0.4)), 1.0)],
    }
    for _ in range(count)
  ]


def test_one_seed_is_what_it_was_before():
  items, others = _items(0.9), _items(0.6, seed=1)
  ours = seeds.summarise([items], metrics=_ROWS)
  assert ours == statistics.summarise(items, metrics=_ROWS)
  apart = seeds.compare([items], [others], metrics=_ROWS)
  before = statistics.compare(items, others, metrics=_ROWS)
  assert (apart["responded"].value, apart["responded"].p) == (
    before["responded"].value,
    before["responded"].p,
  )
  del apart["responded"], before["responded"]  # wider: see below
  assert apart == before


def test_a_number_is_the_mean_of_its_seeds_and_events_are_of_one():
  arm = [_items(0.9, unasked=u, seed=i) for i, u in enumerate((1.0, 2.0, 6.0))]
  found = seeds.summarise(arm, metrics=_ROWS)
  assert found["unasked_seconds"].value == 6.0  # a minute: 2, 4 and 12
  assert found["responded"].events == 40
  each = [statistics.summarise(items, metrics=_ROWS) for items in arm]
  mean = np.mean([values["responded"].value for values in each])
  assert found["responded"].value == pytest.approx(mean)
  # All users of a seed have the same: only seeds make it uncertain.
  assert each[0]["unasked_seconds"].low == each[0]["unasked_seconds"].high
  # Student's t of 2, 4 and 12: 6 +- 4.303 * 3.055, and no less than nothing.
  assert found["unasked_seconds"].low == 0
  assert found["unasked_seconds"].high == pytest.approx(19.145, abs=1e-3)


def test_a_number_lies_in_its_interval_whatever_its_unit():
  def arm(*shares):
    random = np.random.default_rng(0)
    return [
      [
        {
          **{n: [(float(random.random() < share), 1.0)] for n in names},
          "unasked_seconds": [(0.1, 0.5)],
        }
        for _ in range(40)
      ]
      for share in shares
    ]

  names = ("done", "done_turn", "right", "right_turn", "speech_iou")
  rows = tuple(
    m
    for m in panel.METRICS
    if m.name in ("summary_score", "done", "speech_iou", "unasked_seconds")
  )
  found = seeds.summarise(arm(0.7, 0.8, 0.6), metrics=rows)
  assert len(found) == 4 and 60 < found["summary_score"].value < 100
  for value in found.values():
    assert value.low <= value.value <= value.high
  assert found["summary_score"].high <= 100 and found["done"].high <= 1


def test_a_share_is_as_wide_as_that_of_one_seed():
  found = seeds.summarise([_items(1.1)] * 3, metrics=_ROWS)["responded"]
  low, _ = statistics.clopper_pearson(40, 40)
  assert (found.value, found.low, found.high) == (1.0, low, 1.0)


def test_a_difference_of_all_and_none_has_a_width():
  """Newcombe's: 40 of 40 less 0 of 40, by hand."""
  arms = [[_items(share)] * 3 for share in (1.1, -0.1)]
  found = seeds.compare(*arms, metrics=_ROWS)["responded"]
  low, _ = statistics.clopper_pearson(40, 40)
  assert (found.value, found.high) == (1.0, 1.0)
  assert found.low == pytest.approx(1 - np.hypot(1 - low, 1 - low))
  # And where nobody differs, there may be a difference that nobody saw.
  found = seeds.compare(arms[0], arms[0], metrics=_ROWS)["responded"]
  assert (found.value, found.p) == (0.0, 1.0)
  assert found.high == -found.low == pytest.approx(1 - low)


def test_no_two_shares_are_further_apart_than_1():
  ours, theirs = (
    [_items(share, seed=seed) for seed, share in enumerate(shares)]
    for shares in ((1.1, 0.7, 1.1), (-0.1, 0.4, -0.1))
  )
  found = seeds.compare(ours, theirs, metrics=_ROWS)["responded"]
  assert found.low < found.value < found.high == 1.0
  other_way = seeds.compare(theirs, ours, metrics=_ROWS)["responded"]
  assert other_way.low == -1.0


def test_what_one_seed_lacks_has_no_number():
  silent = [{"responded": [(0.0, 1.0)]} for _ in range(40)]
  found = seeds.summarise([_items(0.9), silent], metrics=_ROWS)
  assert list(found) == ["responded"]
  compared = seeds.compare([_items(0.9)], [silent], metrics=_ROWS)
  assert list(compared) == ["responded"]
  assert compared["responded"].low > 0


def test_a_difference_between_seeds_is_none_between_arms():
  """Seeds that differ more than the arms: nothing can be said."""
  arm = [_items(0.9, unasked=u) for u in (1.0, 4.0, 7.0)]
  other = [_items(0.9, unasked=u) for u in (2.0, 4.0, 7.5)]
  found = seeds.compare(arm, other, metrics=_ROWS)["unasked_seconds"]
  assert found.value == pytest.approx(-1.0) and found.low < 0 < found.high
  assert found.p > 0.3


def test_where_users_agree_it_is_the_test_of_welch():
  ours, theirs = (1.0, 2.5, 2.0), (4.0, 9.0, 7.5, 5.0)
  arms = [[_items(1.1, unasked=u) for u in arm] for arm in (ours, theirs)]
  found = seeds.compare(*arms, metrics=_ROWS)["unasked_seconds"]
  minutes = [2 * np.array(arm) for arm in (ours, theirs)]
  expected = stats.ttest_ind(*minutes, equal_var=False)
  assert found.p == pytest.approx(expected.pvalue)
  interval = expected.confidence_interval(0.95)
  assert found.low == pytest.approx(interval.low)
  assert found.high == pytest.approx(interval.high)


def test_three_seeds_without_a_difference_are_rarely_called_one():
  random = np.random.default_rng(0)
  small = 0
  for _ in range(300):
    arms = random.uniform(1.0, 7.0, (2, 3))
    arms = [[_items(1.1, count=2, unasked=u) for u in arm] for arm in arms]
    found = seeds.compare(*arms, metrics=_ROWS[:1], resamples=20)
    small += found["unasked_seconds"].p < 0.05
  assert small <= 0.08 * 300  # resampled seeds: 24 %


def test_arms_of_other_users_are_refused():
  with pytest.raises(ValueError, match="arms of .39, 40. users"):
    seeds.compare([_items(0.9)], [_items(0.9, count=39)], metrics=_ROWS)
  with pytest.raises(ValueError, match="one without a seed"):
    seeds.compare([_items(0.9)], [], metrics=_ROWS)
