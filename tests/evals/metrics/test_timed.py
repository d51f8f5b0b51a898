"""Speech at the right moment, against sessions worked out by hand."""

import pytest

from tests.helpers.drawn import asks, values
from tml_jax.evals.metrics import numbers
from tml_jax.streams.annotation import Kind


def test_an_asked_time():
  #                        0123456789012345678901234
  ask = asks(Kind.TIMED, 0, 3, due=13)
  for drawing, error, hits in (
    ("uuu..........aa..........", [0.0], [1, 1, 1]),
    ("uuu...........aa.........", [0.2], [1, 1, 1]),
    ("uuu.......aa.............", [0.6], [0, 0, 1]),
    ("uuu............aa........", [0.4], [0, 1, 1]),
    ("uuu...aa.................", [1.4], [0, 0, 0]),
    ("uuu...aa.....aa..........", [], [0, 0, 0]),  # spoiled by what came first
    ("uuu..........aa...aa.....", [0.0], [1, 1, 1]),  # not by what comes later
    ("uuu.a.a.a.a.a.a.a.a.a.a.a", [1.8], [0, 0, 0]),  # one run
    ("uuu.a..a..a..a..a..a..a..", [1.8], [0, 0, 0]),
    ("uuu.a...a...a...a...a...a", [], [0, 0, 0]),  # many, the first too soon
    ("uuaa.....................", [], [0, 0, 0]),  # before all was asked
    ("uuu......................", [], [0, 0, 0]),
  ):
    found = values(drawing, ask)
    assert found.get("timed_error", []) == pytest.approx(error), drawing
    assert [found[f"timed_hit_{x}"][0] for x in (0.2, 0.4, 1.0)] == hits
    assert found["timed_miss"] == [float(not error)]
  unasked = values("uuu...aa.....aa..........", ask)["timed_false_fires"]
  assert unasked == [1]


def test_a_periodic_reminder():
  # Asked for in ticks 0..1, every 2 s, until told to stop in 35..36.
  reminders = [
    asks(Kind.TIMED, 0, 2, due=due, group="a") for due in (11, 21, 31)
  ]
  on_time = "uu" + ".........a" * 3 + "....uu........"
  found = values(on_time, *reminders)
  assert found["timed_hit_0.2"] == [1, 1, 1]
  assert found["timed_false_fires"] == [0]
  # One is left out, one comes twice, one after it was to stop.
  odd = "uu" + ".........a" + ".........." + ".....a...a" + "...uu....a..."
  found = values(odd, *reminders)
  assert found["timed_hit_0.2"] == [1, 0, 0]
  assert found["timed_miss"] == [0, 1, 1]
  assert found["timed_false_fires"] == [2]


def test_cues():
  cue = asks(Kind.CUE, 3, 5, due=6, until=8)
  for drawing, delay, alarms in (
    ("uuuuuubbuuuu", [0.2], 0),
    ("uuuuubbuuuuu", [0.0], 0),
    ("uuuuuuuubuuu", [0.6], 0),
    ("uuuuuuuuubuu", [], 1),
    ("uuuubbuuuuuu", [], 1),  # before the word was over
    ("uubuuubuuuuu", [], 1),  # spoiled
    ("ububububububub", [], 1),
    ("buuubuuubuuu", [], 2),
    ("uuuuuubuuubu", [0.2], 1),
  ):
    found = values(drawing, cue)
    assert found["cue_hit"] == [float(bool(delay))], drawing
    assert found.get("cue_delay", []) == pytest.approx(delay)
    assert found["cue_false_alarms"] == [alarms]


def test_repetitions():
  #            0         1         2
  #            0123456789012345678901234
  three = [
    asks(Kind.REPETITION, 5 * i, 5 * (i + 1), text=text, group="video")
    for i, text in enumerate(("one", "two", "three"))
  ]
  for drawing, says, obo, error in (
    ("......a....a....a....", {6: "one", 11: "two", 16: "three"}, 1, 0),
    ("......a....a.........", {6: "one", 11: "two"}, 1, 1),
    ("......a..............", {6: "one"}, 0, 3),  # none after the last but one
    ("................a....", {16: "5"}, 0, 2),
    ("................a....", {16: "what"}, 0, 3),
    ("...........a....a....", {11: "one", 16: "two"}, 1, 1),
    ("...........aa........", {11: "two ", 12: "three"}, 1, 0),
  ):
    found = values(drawing, *three, says=says)
    assert found["count_obo"] == [obo], drawing
    assert found["count_error"] == pytest.approx([error / 3.1])


def test_two_videos_are_counted_apart():
  first = [asks(Kind.REPETITION, i, i + 1, group="a") for i in range(2)]
  second = [asks(Kind.REPETITION, i, i + 1, group="b") for i in range(20, 24)]
  says = {3: "two", 25: "four"}
  found = values("...a.....................a....", *first, *second, says=says)
  assert found["count_error"] == [0, 0]


def test_numbers_in_words():
  for text, wanted in (
    ("one, two and three", [1, 2, 3]),
    ("twenty one 22 thirty", [21, 22, 30]),
    ("Twenty-one", [21]),
    ("dix-sept dix-huit", [17, 18]),
    ("двадцать один", [21]),
    ("uno dos tres", [1, 2, 3]),
    ("twenty twenty", [20, 20]),
    ("twenty times one", [20, 1]),
    ("stone tone", []),
    ("", []),
  ):
    assert numbers.spoken(text) == wanted, text


def test_activities():
  activity = asks(Kind.ACTIVITY, 10, 20)
  for drawing, iou in (
    ("." * 10 + "a" + "." * 9 + "a" + "." * 9, 1.0),
    ("." * 12 + "a" + "." * 9 + "a" + "." * 7, 8 / 12),
    ("." * 5 + "a" + "." * 14 + "a" + "." * 9, 10 / 15),
    ("." * 12 + "a" + "." * 17, 0.0),  # and no stop
    ("." * 30, 0.0),
  ):
    assert values(drawing, activity)["activity_iou"] == [pytest.approx(iou)]


def test_silent_until():
  quiet = asks(Kind.SILENT_UNTIL, 2, 10, due=12, until=20)
  for drawing, pauc, premature in (
    ("..........a.............", 1.0, 0),
    ("...............a........", 0.5 * 0.25 + 0.5, 0),
    ("........................", 0.25, 0),
    (".....a..................", 0.0, 1),
    (".....a....a.............", 0.0, 1),
    (".....a.........a........", 0.0, 1),
    (".aaaaaaaaaaaaaaaaaaaaaaa", 0.0, 1),
    (".....................a..", 0.25, 0),  # too late
  ):
    found = values(drawing, quiet)
    assert found["pauc"] == [pytest.approx(pauc)], drawing
    assert found["premature"] == [premature], drawing


def test_tools():
  tool = asks(Kind.TOOL, 4, 12, due=13, call="calculator 1+2", text="three")
  good = dict(calls={6: "calculator 1+2"}, results={12: (1, "3")})
  says = {13: "three"}
  found = values("uuuu..aa.....aa...", tool, says=says, **good)
  assert found["tool_called"] == found["tool_answered"] == [1]
  assert found["tool_latency"] == pytest.approx([0.2])
  assert found["call_latency"] == pytest.approx([0.4])
  assert found["talk_through_tool"] == [2]  # of 8
  assert found["done_tool"] == found["right_tool"] == [1]
  assert found["tool_unjudged"] == [0]
  silent = values("uuuu..............", tool)
  assert silent["tool_called"] == silent["tool_answered"] == [0]
  assert silent["talk_through_tool"] == [0]
  assert "tool_latency" not in silent and "call_latency" not in silent


def test_only_the_right_call_counts():
  tool = asks(Kind.TOOL, 4, 12, due=13, call="calculator 1+2", text="three")
  drawing, says = "uuuu.........aa...", {13: "three"}
  arrived = {12: (1, "3")}
  for calls, results, called, answered in (
    ({6: "calculator  1+2"}, arrived, 1, 1),
    ({6: "calculator 1+3"}, arrived, 0, 0),  # other arguments
    ({6: "search 1+2"}, arrived, 0, 0),
    ({2: "calculator 1+2"}, arrived, 0, 0),  # before it was asked for
    ({}, arrived, 0, 0),  # said on schedule, and never called
    ({6: "calculator 1+2"}, {}, 1, 0),  # nothing has come
    ({6: "calculator 1+2"}, {15: (1, "3")}, 1, 0),  # it could not know yet
    ({6: "calculator 9+9", 8: "calculator 1+2"}, {12: (2, "3")}, 1, 1),
  ):
    found = values(drawing, tool, says=says, calls=calls, results=results)
    assert found["tool_called"] == [called], calls
    assert found["tool_answered"] == [answered], (calls, results)
    assert found["right_tool"] == [answered]
    assert found["false_fires"] == [1 - answered]
  late = values(
    drawing,
    tool,
    says=says,
    calls={10: "calculator 1+2"},
    results=arrived,
  )
  assert late["tool_answered"] == [1] and late["done_tool"] == [0]


def test_an_item_that_names_no_call_is_counted_and_left_out():
  tool = asks(Kind.TOOL, 4, 12, due=13)
  found = values("uuuu.........aa...", tool)
  assert found["tool_unjudged"] == [1] and "tool_answered" not in found
  assert found["false_fires"] == [0]  # it is asked for


def test_two_results_in_one_breath():
  tools = [
    asks(Kind.TOOL, 2, 8, due=10, call="calculator 1+2", text="three"),
    asks(Kind.TOOL, 4, 9, due=13, call="calculator 2+2", text="four"),
  ]
  calls = {3: "calculator 1+2", 5: "calculator 2+2"}
  results = {8: (1, "3"), 9: (2, "4")}
  for says, right in (
    ({10: "three", 13: "four"}, [1, 1]),
    ({10: "three", 13: "five"}, [0, 0]),  # it goes on with the first
  ):
    found = values(
      "uuuu......aa.aa.", *tools, says=says, calls=calls, results=results
    )
    assert found["right_tool"] == right, says


def test_following():
  follow = asks(Kind.FOLLOW, 2, 10, due=5, until=12, text="yes it is")
  found = values(
    "..uuubbb.b.aa...", follow, says={5: "Yes", 9: " it", 11: " is."}
  )
  assert found["follow_overlap"] == [4]  # of 7
  assert found["follow_lag"] == pytest.approx([0.6])
  assert found["false_fires"] == [0] and found["said_right"] == [1]
  assert "overlap" not in found
  silent = values("..uuuuuu.u......", follow)
  assert silent["follow_overlap"] == [0] and "follow_lag" not in silent


def test_the_right_words():
  turn = asks(Kind.TURN, 0, 2, text="press one")
  for says, right in (
    ({3: "Press one."}, [1]),
    ({3: "press ", 4: "one"}, [1]),
    ({2: "press", 3: " one"}, [1]),  # the text may lead the sound
    ({3: "press two"}, [0]),
    ({}, [0]),
  ):
    assert values("uu.aa.", turn, says=says)["said_right"] == right
  assert "said_right" not in values("uu....", turn)
  assert "said_right" not in values("uu.aa.", asks(Kind.TURN, 0, 2))
