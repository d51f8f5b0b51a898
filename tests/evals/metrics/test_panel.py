"""The panel over several logs, and what no log may change."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import drawn
from tests.helpers.drawn import TICK, asks
from tml_jax import errors
from tml_jax.evals.metrics import floor, panel, recorded, statistics, timed
from tml_jax.streams.annotation import Kind

_TICKS = 60


def _summary(*logs, **options):
  return statistics.summarise([panel.measure(log) for log in logs], **options)


def test_every_metric_has_a_series_that_is_documented():
  documented = floor.__doc__ + timed.__doc__ + recorded.__doc__
  for metric in panel.METRICS:
    name = metric.series
    if metric in (panel.SUMMARY, panel.SHARED):
      assert metric.name not in documented  # it has a module of its own
      continue
    for whole in ("done_", "right_"):
      if name.startswith(whole):
        name = f"{whole}KIND"
    if name.startswith("selectivity"):
      name = "selectivity"
    if name.startswith("timed_hit"):
      name = "timed_hit_X"
    assert f"\n  {name}" in documented or f", {name}" in documented, name
  names = {metric.name for metric in panel.METRICS}
  assert len(names) == len(panel.METRICS)
  assert set(panel.HEADLINE) <= names
  assert set(panel.GOOD + panel.BAD) <= {m.series for m in panel.METRICS}


def test_rows_that_need_duplex_are_marked():
  marked = {metric.name for metric in panel.METRICS if metric.needs_duplex}
  # Whatever is due without a turn, or while somebody else speaks.
  for kind in (Kind.CUE, Kind.FOLLOW, Kind.REPETITION, Kind.ACTIVITY):
    assert {f"done_{kind}", f"right_{kind}"} <= marked
  assert {"cue_hit", "follow_lag_p50", "count_obo", "activity_iou"} <= marked
  assert "pauc" in marked and "backchannels" in marked
  # Either can win these, whatever else is in them.
  assert not marked & {*panel.HEADLINE, *panel.GOOD, *panel.BAD}
  assert not marked & {"timed_hit_0.4", "tool_answered", "done_turn"}


def test_the_shared_score_leaves_out_what_needs_duplex():
  log = drawn.log(
    "uu.aa...........", asks(Kind.TURN, 0, 2), asks(Kind.REPETITION, 8, 10)
  )
  found = _summary(log)
  assert found["done_turn"].value == 1 and found["done_repetition"].value == 0
  assert found[panel.SUMMARY.name].events == 2
  assert found[panel.SHARED.name].events == 1
  assert found[panel.SHARED.name].value > found[panel.SUMMARY.name].value
  # Where nothing of it is due, they are the same.
  plain = _summary(drawn.log("uu.aa.....", asks(Kind.TURN, 0, 2)))
  same = [plain[m.name].value for m in (panel.SUMMARY, panel.SHARED)]
  assert same[0] == same[1] > 0


def test_summary_by_hand():
  turn = asks(Kind.TURN, 0, 2)
  logs = [
    drawn.log(drawing, turn)
    for drawing in ("uu.aa.....", "uu..aa....", "uu........", "uu....aa..")
  ]
  found = _summary(*logs)
  assert found["responded"].value == 3 / 4
  assert found["responded"].events == 4
  # Latencies are 0.2, 0.4 and 0.8 s.
  assert found["latency_p10"].value == pytest.approx(0.2)
  assert found["latency_p50"].value == pytest.approx(0.4)
  assert found["latency_p90"].value == pytest.approx(0.8)
  assert found["latency_p50"].events == 3
  assert found["false_fires"].value == 0
  assert found["floor_transfer_p50"].value == 2
  assert found["yielded"].events == 0 and np.isnan(found["yielded"].value)
  # A rate: 2 unasked runs in 2 logs of 2 s.
  odd = _summary(drawn.log("...a......"), drawn.log("...a......"))
  assert odd["false_fires"].value == pytest.approx(30)


def test_a_ratio_weighs_items_by_their_events():
  turn = asks(Kind.TURN, 0, 4)
  logs = [drawn.log("uubb......", turn), drawn.log("u.........")]
  assert _summary(*logs)["overlap"].value == 2 / 5


def test_intervals():
  turn = asks(Kind.TURN, 0, 2)
  answered, silent = drawn.log("uu.aa.", turn), drawn.log("uu....", turn)
  found = _summary(*[answered, silent] * 50)["responded"]
  # Binomial of 100 at 1/2: 1.96 standard deviations are 9.8 %.
  assert found.value == 0.5
  assert found.low == pytest.approx(0.402, abs=0.02)
  assert found.high == pytest.approx(0.598, abs=0.02)
  again = _summary(*[answered, silent] * 50)["responded"]
  assert again == found
  sure = _summary(*[answered] * 10)["responded"]
  # Resamples know of no other answer; 1 - 0.025 ** (1 / 10) do.
  assert (sure.value, sure.high) == (1, 1)
  assert sure.low == pytest.approx(0.025 ** (1 / 10))
  alone = _summary(answered)["responded"]
  assert (alone.value, alone.low) == (1, pytest.approx(0.025))
  late = _summary(answered)["latency_p50"]
  assert late.value == pytest.approx(0.2) and np.isnan(late.low)
  fast = _summary(answered, silent, resamples=0)["responded"]
  assert fast.value == 0.5 and np.isnan(fast.high)


def test_quantiles_are_those_of_numpy():
  random = np.random.default_rng(0)
  values = random.integers(0, 20, size=37).astype(float)
  counts = random.multinomial(37, np.full(37, 1 / 37), 20).astype(float)
  for q in (0.1, 0.5, 0.9):
    found = statistics._quantiles(values, counts, q)
    wanted = [
      np.quantile(np.repeat(values, row.astype(int)), q, method="inverted_cdf")
      for row in counts
    ]
    np.testing.assert_array_equal(found, wanted)


def test_no_items():
  assert all(value.events == 0 for value in statistics.summarise([]).values())


def test_the_score_that_ranks_items():
  turns = [asks(Kind.TURN, 0, 2), asks(Kind.TURN, 10, 12)]
  for drawing, score in (
    ("uu.aa.....uu.aa.......", 1),
    ("uu.aa.....uu..........", 1 / 2),
    ("uu.aa.....uu.aa.....aa", 2 / 3),  # one run too many
    ("uu........uu..........", 0),
  ):
    item = panel.measure(drawn.log(drawing, *turns))
    assert panel.score(item) == pytest.approx(score), drawing
  assert np.isnan(panel.score(panel.measure(drawn.log("....a...."))))


@st.composite
def _annotations(draw):
  """A few of every kind, anywhere in the log."""
  found = []
  for kind in draw(st.lists(st.sampled_from(list(Kind)), max_size=6)):
    first = draw(st.integers(0, _TICKS - 10))
    stop = first + draw(st.integers(1, 8))
    due = stop + draw(st.integers(0, 8))
    is_due = kind == Kind.TIMED or draw(st.booleans())
    found.append(
      asks(
        kind,
        first,
        stop,
        due=due if is_due else None,
        until=due + 5 if draw(st.booleans()) else None,
        text="yes",
        group=draw(st.sampled_from(["", "a"])),
      )
    )
  return found


_drawings = st.text("ua.b", min_size=_TICKS, max_size=_TICKS)


@given(_drawings, _annotations(), st.integers(0, 300))
@settings(deadline=None, max_examples=150)
def test_a_shift_in_time_changes_nothing(drawing, annotations, shift):
  now = drawn.log(drawing, *annotations, recorded=drawing)
  then = drawn.log(
    "." * shift + drawing,
    *[
      dataclasses.replace(
        a,
        start=a.start + shift * TICK,
        end=a.end + shift * TICK,
        due=None if a.due is None else a.due + shift * TICK,
        until=None if a.until is None else a.until + shift * TICK,
      )
      for a in annotations
    ],
    recorded="." * shift + drawing,
  )
  before, after = panel.measure(now), panel.measure(then)
  assert before.keys() == after.keys()
  for name in before:  # the weights of rates are the minutes of the log
    found = sorted(value for value, _ in after[name])
    assert found == pytest.approx(sorted(value for value, _ in before[name]))


@given(_drawings, _annotations())
@settings(deadline=None, max_examples=150)
def test_a_silent_agent(drawing, annotations):
  users = drawing.replace("a", ".").replace("b", "u")
  found = _summary(drawn.log(users, *annotations), resamples=0)
  for name in ("false_fires", "interruptions", "takeover", "overlap"):
    assert found[name].value == 0 or not found[name].events
  for name in ("responded", "timed_hit_1.0", "cue_hit", "activity_iou"):
    assert found[name].value == 0 or not found[name].events
  for name in floor.SELECTIVE.values():
    assert found[name].value == 1 or not found[name].events
  for name in ("latency_p50", "yielded", "timed_error_p50", "said_right"):
    assert not found[name].events
  assert found["pauc"].value == 0.25 or not found["pauc"].events


@given(_drawings, _annotations())
@settings(deadline=None, max_examples=150)
def test_an_agent_that_always_talks(drawing, annotations):
  talk = {"u": "b", "b": "b", "a": "a", ".": "a"}
  always = "." + "".join(talk[letter] for letter in drawing)
  # Its one onset may be a reply to what is due then; let nothing be.
  late = [
    a
    for a in annotations
    if a.start > (1.5 if a.kind == Kind.ACTIVITY else TICK)
  ]
  found = _summary(drawn.log(always, *late), resamples=0)
  for name in (
    *("responded", "yielded", "cue_hit", "timed_hit_1.0", "pauc"),
    *("activity_iou", "follow_overlap", *floor.SELECTIVE.values()),
  ):
    assert found[name].value == 0 or not found[name].events
  assert found["takeover"].value == 1 or not found["takeover"].events
  if "u" in drawing or "b" in drawing:
    if found["overlap"].events:
      assert found["overlap"].value == 1


def test_what_cannot_be_scored_is_named():
  log = drawn.log("uu.aa.....", asks(Kind.TURN, 0, 2))
  cut = dataclasses.replace(log, ticks=log.ticks[:4])
  with pytest.raises(errors.UserError, match="drawn has 4 of 10 ticks"):
    panel.measure(cut)
  timed_without = drawn.log("uu.aa.....", asks(Kind.TIMED, 0, 2))
  with pytest.raises(
    errors.UserError, match="drawn: the annotation timed at 0"
  ):
    panel.measure(timed_without)
