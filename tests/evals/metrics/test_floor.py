"""Turn-taking against conversations worked out by hand."""

import dataclasses

import numpy as np
import pytest

from tests.helpers import drawn
from tests.helpers.drawn import asks, values
from tml_jax.evals.metrics import floor, panel, speech, statistics
from tml_jax.streams.annotation import Kind

# The user speaks in ticks 2..5 and 14..17; 32 ticks are 6.4 s.
_TURNS = (
  asks(Kind.TURN, 2, 6, due=7, until=14),
  asks(Kind.TURN, 14, 18, due=19),
)
#             0         1         2         3
#             01234567890123456789012345678901
_USER = "     ..uuuu........uuuu.............."


def _draw(agent: str) -> str:
  """The turns above with an agent's ticks, drawn by `a`."""
  user = _USER.strip()
  agent = agent.ljust(len(user), ".")
  both = {"u": {"a": "b", ".": "u"}, ".": {"a": "a", ".": "."}}
  return "".join(both[u][a] for u, a in zip(user, agent, strict=True))


@pytest.mark.parametrize(
  "agent, latency, interruptions, false_fires, overlap",
  [
    (".......aaa.........aaa", [0.2, 0.2], 0, 0, 0),
    ("", [], 0, 0, 0),
    ("...aaaa............aaa", [0.2], 1, 1, 3),  # no reply: it came before
    (".......aa.....aa....", [0.2], 0, 1, 2),  # begins with the user
    (".......aa..a.......aaa", [0.2, 0.2], 0, 0, 0),  # goes on after 2 ticks
    (".......aa...a......aaa", [0.2, 0.2], 0, 1, 0),  # and not after 3
    (".............aa.......", [1.4], 0, 0, 1),  # just in time, though late
    ("......aaaaaaaaaaa...a", [0.0, 0.4], 0, 0, 3),  # talks over the next turn
    ("......aaaaaaaaaaaa..a", [0.0], 0, 0, 4),  # and goes on: no reply to it
    (".......aa......a...aa", [0.2], 1, 1, 1),  # no reply: it spoke up before
    (".a.a.a.a.a.a.a.a.a.a.a", [], 0, 1, 8),  # one run, which nobody asked for
    (".a..a..a..a..a..a..a..", [], 0, 1, 8),
    ("a...a...a...a...a...a...", [], 2, 4, 2),  # each is one, and spoils a turn
  ],
)
def test_replies(agent, latency, interruptions, false_fires, overlap):
  found = values(_draw(agent), *_TURNS)
  assert sum(found["responded"]) == len(latency)
  assert found.get("latency", []) == pytest.approx(latency)
  assert sum(found["interruptions"]) == interruptions
  assert found["false_fires"] == [false_fires]
  assert found["overlap"] == [overlap]


def test_latency_is_to_the_sample():
  late = asks(Kind.TURN, 2, 5.25)  # the user ends in the middle of tick 5
  assert values(_draw(".......a"), late)["latency"] == pytest.approx([0.35])
  early = values(_draw(".....aa"), late)
  assert early["responded"] == [0] and early["interruptions"] == [1]


def test_a_reply_at_an_asked_time_has_no_latency():
  wait = asks(Kind.TURN, 2, 6, due=16)
  found = values("..uuuu..........aa", wait)
  assert "latency" not in found and found["late"] == [0]


def test_yields():
  turn, barge_in = asks(Kind.TURN, 0, 1), asks(Kind.BARGE_IN, 4, 8)
  #       01234567890123456
  for drawing, yielded, latency in (
    ("u.aabb uu", [1], [0.4]),
    ("u.aabbbbaaaaaaaaaa", [0], []),  # 2 s and no quiet tick
    ("u.aabbbbaaaaa...aa", [1], [1.8]),
    ("u.aabbbbaaaaa..aaa", [0], []),  # a gap that is none
    ("u.aabbbbaaaaaa...a", [0], []),
    ("u...uuuu..........", [], []),  # nothing to yield
    ("aaaabb uu.........", [0], []),  # speech that nobody asked for
    ("u.aaubububaaaaaaaa", [0], []),  # sounds in between are no giving way
    ("u.aabbuu.aa.......", [1], [0.4]),  # nor is a quick reply going on
    ("u.aabbbb.aa.......", [1], [0.8]),
  ):
    found = values(drawing, turn, barge_in)
    assert found.get("yielded", []) == yielded, drawing
    assert found.get("yield_latency", []) == pytest.approx(latency)


@pytest.mark.parametrize("kind, name", floor.SELECTIVE.items())
def test_selectivity(kind, name):
  # A turn in ticks 0..1, its reply from 3 on, and an event in ticks 5 and 6.
  turn, event = asks(Kind.TURN, 0, 2), asks(kind, 5, 7)
  for drawing, kept in (
    ("uu.aabbaaaaaaa......", 1),
    ("uu.aabbaaa.aaa......", 1),  # 1 s later it may be over
    ("uu.aabbaa..aaa......", 1),  # a gap that is none
    ("uu.aabbaa...aa......", 0),
    ("uu.aabu.............", 0),
  ):
    assert values(drawing, turn, event)[name] == [kept], drawing
  # The agent is silent when it happens: it stays so for 2 s.
  for drawing, kept in (
    (".....uu...........aa", 1),
    (".....uu..........aaa", 1),
    (".....uu.........aaaa", 0),
    (".....ub.............", 0),
    ("bbbbbbbbbbbbbbbbbbbb", 0),  # speaks, but nobody asked
  ):
    assert values(drawing, event)[name] == [kept], drawing


def test_an_event_at_the_end_of_a_reply_says_nothing():
  turn, event = asks(Kind.TURN, 0, 2), asks(Kind.BACKCHANNEL, 5, 7)
  #                           01234567890123456789
  ending = dict(recorded="...aaaaaa")
  name = "selectivity_backchannel"
  assert name not in values("uu.aabba............", turn, event, **ending)
  assert values("uu..................", turn, event, **ending)[name] == [1]
  long = dict(recorded="...aaaaaaaaaaa")
  assert values("uu.aabba............", turn, event, **long)[name] == [0]


def test_the_end_of_a_word_is_not_that_of_the_reply():
  turn, event = asks(Kind.TURN, 0, 2), asks(Kind.BACKCHANNEL, 5, 7)
  words = tuple((0.2 * k, 0.2 * k + 0.15) for k in range(3, 14))
  log = dataclasses.replace(
    drawn.log("uu.aabbaaaaaaa......", turn, event), recorded=words
  )
  assert panel.measure(log)["selectivity_backchannel"] == [(1, 1)]


def test_a_reply_that_was_due_is_no_answer_to_side_talk():
  turn, aside = asks(Kind.TURN, 0, 2), asks(Kind.SIDE_TALK, 2, 4)
  found = values("uuuu.aaa........", turn, aside)
  assert found["selectivity_side_talk"] == [1]
  assert found["responded"] == [1] and found["false_fires"] == [0]


def test_takeover_in_a_pause():
  turn = asks(Kind.TURN, 0, 9)
  pause = asks(Kind.PAUSE, 3, 6)
  for drawing, takeover in (
    ("uuu...uuu.aa", 0),
    ("uuu..auuu.aa", 1),
    ("uuu...buu.aa", 0),  # at the moment the user goes on
    ("ubb...uuu.aa", 0),  # over before: an interruption
    ("ubbaa.uuu.aa", 1),
  ):
    assert values(drawing, turn, pause)["takeover"] == [takeover], drawing


def test_floor_transfers():
  #               0123456789012345678
  found = values("uuu..aa..uubbaa.u.a", recorded="....aa......aaa...a")
  assert found[floor.TRANSFER] == [2, -2, 1]
  assert found[floor.RECORDED] == [1, -1, 1]
  within = values("uubbuu.aa")  # a backchannel of the agent takes no floor
  assert within[floor.TRANSFER] == [1]


def test_waiting_for_the_agent_moves_no_recorded_transfer():
  # The user waited from tick 3 to 9 before the script went on.
  turn = asks(Kind.TURN, 0, 3, due=4)
  found = values("uuu......aa", turn, recorded=".........aa")
  assert found[floor.TRANSFER] == [6]
  assert found[floor.RECORDED] == [1]


def test_distance_of_floor_transfers():
  same = panel.measure(drawn.log("uu.aa", recorded="...aa"))
  other = panel.measure(drawn.log("uu...aa", recorded="...aa.."))
  silent = panel.measure(drawn.log("uu.....", recorded="...aa.."))

  def distance(*items):
    return statistics.summarise(list(items))["floor_transfer_js"].value

  assert distance(same) == 0
  assert distance(other) == pytest.approx(1)  # no bin is shared
  # p = (1/2, 1/2), q = (1, 0): JS = 1 - 3/4 log2(3) + 1/2 = 0.3113 bits.
  assert distance(same, other) == pytest.approx(np.sqrt(0.311278), abs=1e-5)
  assert np.isnan(distance(silent))


def test_runs():
  active = np.array([letter == "a" for letter in "aa..a.aaa"])
  assert speech.runs_of(active) == [(0, 2), (4, 5), (6, 9)]
  assert speech.runs_of(np.zeros(3, bool)) == []
