"""Users who react: what they do, and that it is the script where nobody does.

Drawings have a letter a tick (`scripts`); what the agent does is drawn below
what the user makes of it.
"""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.helpers import scripts
from tests.helpers.drawn import asks
from tml_jax.data import scenarios
from tml_jax.data.splits import Split
from tml_jax.evals import suites
from tml_jax.live import moves, reacting
from tml_jax.live.moves import Trigger
from tml_jax.live.reacting import Users
from tml_jax.logs import observe
from tml_jax.streams import annotation, clock, microphone
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Role

WAIT = "-" * reacting.PATIENCE


@pytest.fixture(scope="module", name="items")
def _items(config, data_dir):
  """Scripts of every family."""
  suite = suites.Interactivity(
    config,
    data_dir=str(data_dir),
    split=Split.HELDOUT,
    count=4,
    families=tuple(scenarios.FAMILIES),
  )
  found = {family: [] for family in scenarios.FAMILIES}
  for item in suite.items():
    found[item.family].append(item.load())
  return found


def _as_recorded(script):
  sounds = observe.recorded_activity(script)
  return lambda tick, position: position < len(sounds) and sounds[position]


@pytest.mark.parametrize("family", list(scenarios.FAMILIES))
def test_who_meets_the_recorded_agent_plays_the_script(items, family):
  for script in items[family]:
    user = scripts.play(script, _as_recorded(script))
    assert user.plan.moves[-1].first == len(user.steps)
    held = user.timeline
    assert held.duration == script.duration
    for got, want in zip(held.tracks, script.tracks, strict=True):
      np.testing.assert_array_equal(got.audio, want.audio)
      assert (got.words, got.spans) == (want.words, want.spans)
    assert held.events == script.events
    assert annotation.of(held) == annotation.of(script)
    assert [f.time for f in held.video] == [f.time for f in script.video]
    heard = [user.heard(k) for k in range(len(user.steps))]
    np.testing.assert_array_equal(
      heard, microphone.hear(script, grid=clock.TICKS)
    )


@pytest.mark.parametrize("family", list(scenarios.FAMILIES))
def test_whatever_the_agent_does_a_conversation_ends(items, family):
  for i, script in enumerate(items[family]):
    random = np.random.default_rng(i)
    for agent in (
      lambda tick, position: False,
      lambda tick, position: True,
      lambda tick, position, r=random: r.random() < 0.3,
    ):
      _check(script, scripts.play(script, agent))


def test_triggers_of_the_families(items):
  """Read off annotations alone; no family names one."""
  found = {
    family: {move.trigger for s in of for move in moves.plan_of(s).moves}
    for family, of in items.items()
  }
  for family in ("reply", "turns", "tool_call", "typed", "timed_reply", "draw"):
    assert found[family] == {Trigger.PLANNED, Trigger.REPLY_END}, family
  for family in ("barge_in", "correction"):
    assert Trigger.REPLY_ONSET in found[family], family
  assert Trigger.WHILE_SPEAKING in found["backchannel"]
  for family in ("activity", "count", "cue", "follow", "silent_until"):
    assert found[family] == {Trigger.PLANNED}, family


# The user asks in ticks 2 and 3 and hears a reply in 6 to 8; then once more.
_TWICE = "..uu..aaa..uu..aaa.."
_TURNS = (
  asks(Kind.TURN, 2, 4, due=6, until=11, text="one"),
  asks(Kind.TURN, 11, 13, due=15, until=20, text="two"),
)


def _held(user):
  return annotation.of(user.told)


def _starts(user, kind):
  return [round(a.start / 0.2) for a in _held(user) if a.kind == kind]


def test_who_gets_no_reply_asks_again_and_gives_up():
  user = scripts.play(scripts.script(_TWICE, *_TURNS), [])
  once = "..uu.." + WAIT + "uu.." + WAIT
  assert scripts.drawing(user) == (
    once + "....." + "uu.." + WAIT + "uu.." + WAIT + "....."
  )
  first, again, *_ = turns = _held(user)
  assert [a.text for a in turns] == ["one", "one", "two", "two"]
  assert again.start == pytest.approx((6 + reacting.PATIENCE) * 0.2)
  assert again.due - again.end == pytest.approx(first.due - first.end)
  # The chance of the first is over when the user asks again.
  assert first.until == again.start


def test_a_late_reply_is_waited_for_and_moves_all_that_follows():
  script = scripts.script(_TWICE, *_TURNS)
  late = lambda tick, _: tick in (9, 10, 11) or 18 <= tick < 21  # noqa: E731
  user = scripts.play(script, late)
  assert scripts.drawing(user) == "..uu..---aaa..uu..aaa.."
  first, second = _held(user)
  # What was due before is due when it was; what is asked later comes later.
  assert (first.due, first.end) == pytest.approx((1.2, 0.8))
  assert second.due == pytest.approx(15 * 0.2 + 0.6)
  assert first.until == pytest.approx(second.start)
  agent = user.told.track(Role.AGENT).spans
  assert [round(s.start / 0.2) for s in agent] == [9, 18]


def test_the_next_question_comes_as_long_after_the_end():
  script = scripts.script(_TWICE, *_TURNS)
  user = scripts.play(script, [6 <= k < 13 or 19 <= k < 22 for k in range(30)])
  assert scripts.drawing(user) == "..uu..aaaaaaa--uu..aaa.."
  # At least as late as planned, where the reply is short.
  user = scripts.play(script, [k in (6, 15) for k in range(30)])
  assert scripts.drawing(user) == "..uu..a....uu..a...."
  # Whoever never ends is talked over.
  user = scripts.play(script, [k >= 6 for k in range(200)])
  drawn = scripts.drawing(user)
  assert drawn.startswith("..uu..aaaaa" + "a" * reacting.PATIENCE + "bb")
  assert len(drawn) == len(_TWICE) + 2 * reacting.PATIENCE


# Interrupted in ticks 10 and 11; the agent stops in 12, replies from 15 on.
_BARGE = "..uu..aaaabb...aaa.."
_BARGES = (
  asks(Kind.TURN, 2, 4, due=6),
  asks(Kind.BARGE_IN, 10, 12),
  asks(Kind.TURN, 10, 12, due=15),
)


def test_a_barge_in_comes_so_long_after_the_onset():
  script = scripts.script(_BARGE, *_BARGES)
  user = scripts.play(script, [9 <= k < 15 or 18 <= k < 21 for k in range(30)])
  assert scripts.drawing(user) == "..uu..---aaaabb...aaa.."
  assert _starts(user, Kind.BARGE_IN) == [13]


def test_who_does_not_give_way_is_interrupted_again():
  script = scripts.script(_BARGE, *_BARGES)
  user = scripts.play(script, [6 <= k for k in range(200)])
  # At once where the reply was due, and twice.
  said = "..uu..aaaa" + 3 * "bbaaa" + "aaa" + "aa"
  assert scripts.drawing(user).startswith(said)
  assert _starts(user, Kind.BARGE_IN) == [10, 15, 20]
  assert _starts(user, Kind.TURN) == [2, 10, 15, 20]
  # One that stops in the second is not interrupted a third time.
  agent = [6 <= k < 17 or 20 <= k < 23 for k in range(40)]
  user = scripts.play(script, agent)
  assert scripts.drawing(user) == "..uu..aaaabbaaabb...aaa.."
  assert _starts(user, Kind.BARGE_IN) == [10, 15]


def test_who_gives_way_and_says_nothing_is_asked_again():
  script = scripts.script(_BARGE, *_BARGES)
  user = scripts.play(script, [6 <= k < 12 for k in range(40)])
  drawn = scripts.drawing(user)
  assert drawn == "..uu..aaaabb..." + WAIT + "uu..." + WAIT + "....."
  # There was nothing to interrupt then.
  assert len(_starts(user, Kind.BARGE_IN)) == 1
  assert len(_starts(user, Kind.TURN)) == 3


def test_a_backchannel_needs_somebody_who_speaks():
  script = scripts.script(
    "..uu..aaabaa...",
    asks(Kind.TURN, 2, 4, due=6, text="long"),
    asks(Kind.BACKCHANNEL, 9, 10),
  )
  said = scripts.play(script, [6 <= k < 12 for k in range(15)])
  assert scripts.drawing(said) == "..uu..aaabaa..."
  late = scripts.play(script, [8 <= k < 14 for k in range(20)])
  assert _starts(late, Kind.BACKCHANNEL) == [11]
  dropped = scripts.play(script, [k == 6 for k in range(15)])
  assert scripts.drawing(dropped).startswith("..uu..a.....")
  assert not _starts(dropped, Kind.BACKCHANNEL)
  # Nothing of it is heard, nor told.
  assert np.abs(dropped.heard(9)).max() < 0.02
  assert np.abs(said.heard(9)).max() > 0.1
  assert len(dropped.timeline.track(Role.USER).words) == 1
  # A hum is no answer to anything: it comes when it comes.
  script = scripts.script(
    "..uu..aaabaa...",
    asks(Kind.TURN, 2, 4, due=6, text="long"),
    asks(Kind.VOCAL_TIC, 9, 10),
  )
  user = scripts.play(script, [k == 6 for k in range(15)])
  assert _starts(user, Kind.VOCAL_TIC) == [9]


def test_times_that_a_clock_keeps_are_not_waited_for():
  """A reminder is due by the clock, whatever came of the one before."""
  script = scripts.script(
    "..uu...a....a......",
    asks(Kind.TIMED, 2, 4, due=7, group="reminder"),
    asks(Kind.TIMED, 2, 4, due=12, group="reminder"),
  )
  assert len(scripts.play(script, []).steps) == 19
  alone = asks(Kind.TIMED, 2, 4, due=7)
  user = scripts.play(scripts.script("..uu...a...........", alone), [])
  assert _starts(user, Kind.TIMED) == [2, 7 + reacting.PATIENCE]


def test_a_result_is_waited_for_but_not_asked_for_again():
  question = asks(Kind.TOOL, 4, 8, due=10, call="calculator 3+4")
  script = scripts.script("..uu......aa.....", question)
  user = scripts.play(script, [])
  assert scripts.drawing(user) == "..uu......" + WAIT + "......."
  assert _held(user) == (question,)


def test_who_asks_how_long_ago_begins_where_the_time_does():
  turn = asks(Kind.TURN, 9, 11, due=13, text="one second")
  drawing = ".uu......uu..aa..."
  user = scripts.play(scripts.script(drawing, turn), [])
  assert scripts.drawing(user).count("uu") == 3
  since = dataclasses.replace(turn, since=0.2)
  user = scripts.play(scripts.script(drawing, since), [])
  assert scripts.drawing(user) == (
    ".uu......uu.." + WAIT + "uu......uu.." + WAIT + "....."
  )
  first, second = _held(user)
  assert second.start - second.since == pytest.approx(first.start - first.since)


def test_what_else_is_heard_is_not_broken_by_waiting():
  """Where something sounds over the moment, the user does not wait there."""
  script = scripts.script("..uu.ee....", asks(Kind.TURN, 2, 4, due=6))
  assert moves.plan_of(script).asks == ()
  assert len(scripts.play(script, []).steps) == 11


def test_scripted_users_wait_for_nothing():
  script = scripts.script(_BARGE, *_BARGES)
  for agent in ([], [True] * 40):
    user = scripts.play(script, agent, users=Users.SCRIPTED)
    assert [s.position for s in user.steps] == list(range(len(_BARGE)))
    assert annotation.of(user.timeline) == annotation.of(script)


def test_without_annotations_a_script_is_played_as_it_is():
  """As recorded calls are, which last as long as they last."""
  script = scripts.script("..uu..aa..u..")
  tracks = [
    dataclasses.replace(track, audio=track.audio[: 12 * 3200 + 1000])
    for track in script.tracks
  ]
  duration = (12 * 3200 + 1000) / clock.SAMPLE_RATE
  script = dataclasses.replace(script, duration=duration, tracks=tuple(tracks))
  user = scripts.play(script, [])
  assert [s.position for s in user.steps] == list(range(13))
  held = user.timeline
  timeline_lib.validate(held)
  assert held.duration == duration
  for got, want in zip(held.tracks, script.tracks, strict=True):
    np.testing.assert_array_equal(got.audio, want.audio)


def _check(script, user):
  """A conversation that could have been composed so."""
  assert len(user.steps) <= user.most_ticks
  held = user.timeline
  timeline_lib.validate(held)
  assert held.duration == pytest.approx(len(user.steps) * 0.2)
  for track in held.tracks:
    assert len(track.audio) == len(user.steps) * clock.TICKS.samples
  spans = held.track(Role.USER).spans
  for one, other in zip(spans[:-1], spans[1:], strict=True):
    assert one.end <= other.start + 1e-6
  # Every word that is told is heard, to the sample, and none is cut.
  theirs = {w.text: w for w in script.track(Role.USER).words}
  audio, said = held.track(Role.USER).audio, script.track(Role.USER).audio
  if len(theirs) == len(script.track(Role.USER).words):
    for word in held.track(Role.USER).words:
      was = theirs[word.text]
      shift = round((word.start - was.start) * clock.SAMPLE_RATE)
      low, high = (round(t * clock.SAMPLE_RATE) for t in (was.start, was.end))
      np.testing.assert_array_equal(
        audio[low + shift : high + shift], said[low:high]
      )
  for a in annotation.of(held):
    assert 0 <= a.start <= a.end <= held.duration + 1e-6
    assert a.until is None or a.start <= a.until <= held.duration + 1e-6
  kinds = {a.kind for a in annotation.of(script)} - {Kind.BACKCHANNEL}
  assert kinds <= {a.kind for a in annotation.of(held)}


@st.composite
def _scripts(draw):
  """Questions with replies, interruptions, backchannels and pauses."""
  drawing, asked = "..", []
  for _ in range(draw(st.integers(1, 4))):
    start = len(drawing)
    drawing += "u" * draw(st.integers(1, 4))
    end = len(drawing)
    if draw(st.booleans()):
      drawing += "." * draw(st.integers(1, 3))
      due = len(drawing)
      kind = draw(st.sampled_from([Kind.TURN, Kind.TIMED, Kind.TOOL]))
      drawing += "aaaa"
      begin, over = (start, end) if kind is not Kind.TOOL else (end, due)
      asked.append(asks(kind, begin, over, due=due, until=due + 4))
      into = draw(st.sampled_from(["", "b", "bb"]))
      if into:
        kind = draw(st.sampled_from([Kind.BACKCHANNEL, Kind.BARGE_IN]))
        at = len(drawing)
        drawing += into
        asked.append(asks(kind, at, len(drawing)))
        if kind is Kind.BARGE_IN:
          drawing += "..aa"
          stop = len(drawing)
          asked.append(asks(Kind.TURN, at, stop - 4, due=stop - 2))
        else:
          drawing += "aaa"
    drawing += "." * draw(st.integers(1, 5))
  return drawing, tuple(asked)


@hypothesis.given(drawn=_scripts(), agent=st.lists(st.booleans(), max_size=120))
def test_any_agent_any_script(drawn, agent):
  script = scripts.script(drawn[0], *drawn[1])
  user = scripts.play(script, agent)
  _check(script, user)
  # From the script and the agent's ticks alone.
  again = scripts.play(script, agent)
  assert again.steps == user.steps
  for one, other in zip(
    user.timeline.tracks, again.timeline.tracks, strict=True
  ):
    np.testing.assert_array_equal(one.audio, other.audio)
  assert annotation.of(user.told) == annotation.of(again.told)


@hypothesis.given(drawn=_scripts())
def test_any_script_is_played_to_its_own_agent(drawn):
  script = scripts.script(drawn[0], *drawn[1])
  user = scripts.play(script, _as_recorded(script))
  windows = clock.TICKS.num_windows(script.duration)
  assert [s.position for s in user.steps] == list(range(windows))
  assert not any(s.is_dropped for s in user.steps)
