"""The floor beside the recorded agent's, on drawings of ticks."""

import numpy as np
import pytest

from tests.helpers import drawn
from tml_jax.evals.metrics import panel, recorded, statistics
from tml_jax.streams.annotation import Kind


def _values(drawing, agent):
  """Values of the module's series; the recorded agent is drawn in `agent`."""
  found = drawn.values(drawing, recorded=agent)
  names = (
    "took_floor offset_error extra_floor overlapped backchannels talk_share"
    " speech_iou"
  )
  return {name: found.get(name) for name in names.split()}


def test_the_recorded_agent_beside_itself():
  found = _values("uuu.aa..uu..aaa.", "    aa      aaa ")
  assert found == {
    "took_floor": [1, 1],
    "offset_error": [0, 0],
    "extra_floor": [0, 0],
    "overlapped": [0, 0],
    "backchannels": [1],  # the second is as short as one
    "talk_share": [5],
    "speech_iou": [5],
  }


def test_changes_of_floor_are_compared_by_the_users_run():
  # Recorded: after each of three runs. Here: 0.4 s late, not at all, in
  # overlap; and once where it did not.
  agent_ = "    aa     aa       aa         "
  drawing = "uuu...aa..u......uubba.......uu.aa"
  found = _values(drawing, agent_)
  assert found["took_floor"] == [1, 0, 1]
  assert found["offset_error"] == [pytest.approx(0.4), pytest.approx(0.2)]
  assert found["extra_floor"] == [0, 0, 1]
  assert found["overlapped"] == [0, 1, 0]
  series = panel.measure(drawn.log(drawing, recorded=agent_))
  # Shares of ticks: values over weights.
  assert series["talk_share"] == [(7, 34)]
  assert series["speech_iou"] == [(2, 11)]


@pytest.mark.parametrize(
  "drawing, count",
  [
    ("a" * 5, 1),  # a second, alone
    ("a" * 6, 0),  # longer
    ("", 0),
    ("aa....a", 0),  # nothing but 0.8 s between
    ("a..........a", 2),  # 2 s between
    ("a.........a", 1),  # 1.8 s: the first goes on too soon
    ("aaaaaaaa.....a", 1),  # a second after a turn
  ],
)
def test_backchannels(drawing, count):
  assert recorded.backchannels(np.array([c == "a" for c in drawing], bool)) == (
    count
  )


def test_backchannels_are_a_rate():
  log = drawn.log("a" + 149 * "." + "a" + 149 * ".", recorded="a")
  value = statistics.summarise([panel.measure(log)])["backchannels"]
  assert (value.value, value.events) == (2.0, 1)


def test_annotations_or_nobody_recorded_leave_it_to_the_panel():
  asked = drawn.asks(Kind.TURN, 0, 3)
  for log in (
    drawn.log("uuu.aa", asked, recorded="    aa"),
    drawn.log("uuu.aa"),
  ):
    series = panel.measure(log)
    assert not series.keys() & {"took_floor", "talk_share", "onset_f1"}
    assert "false_fires" in series
  plain = panel.measure(drawn.log("uuu.aa", recorded="    aa"))
  assert "false_fires" not in plain and plain["overlap"] == [(0, 3)]
  assert panel.score(plain) == 1


@pytest.mark.parametrize(
  "onsets, theirs, count",
  [
    ([], [], 0),
    ([5], [], 0),
    ([5], [7], 1),  # 0.4 s
    ([5], [8], 0),
    ([7], [5], 1),  # or before
    ([4, 5, 6], [5], 1),  # an onset counts once
    ([5], [4, 5, 6], 1),
    ([3, 5], [5, 7], 2),  # the nearest pair would leave one without
    ([1, 10, 20], [2, 19], 2),
  ],
)
def test_onsets_are_paired_once_each(onsets, theirs, count):
  assert recorded.pairs(onsets, theirs) == count


def _score(*drawings):
  """The agreement over logs of (agent, recorded agent)."""
  logs = [drawn.log(ours, recorded=theirs) for ours, theirs in drawings]
  found = statistics.summarise([panel.measure(log) for log in logs])
  return found["call_score"]


THEIRS = "   aaaa    aaaa     aaaa     "


def test_agreement_is_kappa_times_f1():
  assert _score((THEIRS.replace(" ", "."), THEIRS)).value == 100
  # Three of twelve ticks are missing, one onset of three: by hand.
  ours = "...aaaa....aaaa.............."
  same, made, wanted = 25 / 29, 8 / 29, 12 / 29
  chance = made * wanted + (1 - made) * (1 - wanted)
  kappa = (same - chance) / (1 - chance)
  value = _score((ours, THEIRS))
  assert value.value == pytest.approx(100 * kappa * 2 * 2 / (2 + 3))
  assert value.events == 1


def test_no_share_of_time_is_an_agreement():
  for ours in ("." * 29, "a" * 29, "a..." * 7 + "a"):
    assert _score((ours, THEIRS)).value < 20, ours
  assert _score(("." * 29, THEIRS)).value == 0
  assert _score(("a" * 29, THEIRS)).value == 0
  # Against what they do is no better than chance.
  against = THEIRS.replace(" ", "x").replace("a", ".").replace("x", "a")
  assert _score((against, THEIRS)).value == 0


def test_who_never_speaks_is_no_measure():
  assert np.isnan(_score(("..aa..", "      ")).value)
  assert np.isnan(_score(("..aa..", "aaaaaa")).value)
