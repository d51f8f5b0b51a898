"""The harness of a turn-based agent: who hears and sounds when."""

import dataclasses

import numpy as np
import pytest

from tests.helpers import small_session
from tml_jax import errors
from tml_jax.config import Layout
from tml_jax.data import turns as turns_lib
from tml_jax.evals import run, suites, turn_based, vad
from tml_jax.live import session, user
from tml_jax.live.transport import Answer
from tml_jax.streams import clock, endpoint, framing
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.frame import Control
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
)

_TOKENIZER = small_session.Letters()
_CONFIG = small_session.config(temperature=1.0)
_ENDPOINT = 0.5
_QUIET, _SPEAK, _SHOW, _END = (
  frame_lib.token_id(control, config=_CONFIG.streams)
  for control in (Control.QUIET, Control.SPEAK, Control.SHOW, Control.END)
)
_MEL = np.full((clock.TICKS.fine_frames, clock.MEL_CHANNELS), -2.0, np.float32)


def _timeline(spans, *, windows=40, seed=0, events=()):
  """Somebody hums in `spans`, in a room that is not quite silent."""
  random = np.random.default_rng(seed)
  sound = 1e-3 * random.normal(size=windows * clock.TICKS.samples)
  for start, end in spans:
    part = slice(*(round(t * clock.SAMPLE_RATE) for t in (start, end)))
    sound[part] += 0.1 * random.normal(size=part.stop - part.start)
  return Timeline(
    id=f"test/{seed}",
    duration=windows * clock.TICKS.seconds,
    tracks=(
      Track(
        Role.USER,
        sound.astype(np.float32),
        (),
        tuple(Span(*span) for span in spans),
        "user",
      ),
    ),
    events=tuple(Event(*event) for event in events),
  )


class Spans:
  """Hears what the recording says, to 10 ms."""

  hop = 160

  def __init__(self, timeline):
    self._spans = timeline.tracks[0].spans
    self._window = 0

  def push(self, samples):
    times = 0.2 * self._window + 0.01 * np.arange(20) + 0.005
    self._window += 1
    inside = [(times > s.start) & (times < s.end) for s in self._spans]
    return np.any(inside, axis=0) if inside else np.zeros(20, bool)


def _scripted(timeline, script, *, endpoint_seconds=_ENDPOINT):
  """Sound windows and all frames of a model that decides by a script.

  Args:
    timeline: the user.
    script: tokens of each frame that the model is asked for, in order; then
      it is quiet.
    endpoint_seconds: of the harness.
  """
  live, seen, script = session.Session(_CONFIG, seed=0), [], [*script]
  talk = turn_based.Turns(
    user.UserPart(timeline, tokenizer=_TOKENIZER, grid=clock.TICKS),
    config=_CONFIG,
    make_vad=lambda: Spans(timeline),
    endpoint_seconds=endpoint_seconds,
  )
  while (arrived := talk.bring()) is not None:
    tokens = [_QUIET]
    if arrived.is_asked and script:
      tokens = script.pop(0)
    finished = live.play(live.receive(arrived), tokens=tokens, mel=_MEL)
    seen.append((not arrived.is_asked, finished))
    talk.take(
      Answer(
        frame=finished,
        sound=None,
        messages=(),
        is_reading=live.has_text,
        refused=None,
        seconds=0.0,
      )
    )
  frames = talk.frames
  assert [f.window for f in frames] == list(range(len(frames)))
  # The clock of the model counts the windows that it was given.
  assert [f.window for _, f in seen] == list(range(len(seen)))
  return _sounding(frames), frames, seen


def _sounding(frames):
  """Windows in which the agent is heard."""
  return [f.window for f in frames if f.own_dmel is not None]


@pytest.mark.parametrize(
  "endpoint_seconds, decided", [(0.3, 11), (0.5, 12), (0.7, 13)]
)
def test_a_reply_is_late_by_the_timeout(endpoint_seconds, decided):
  # The user from 1.0 to 2.0 s: silent since the end of window 9.
  sounding, frames, seen = _scripted(
    _timeline([(1.0, 2.0)]),
    [[3, 4, _SPEAK], [_SPEAK], [5, _SPEAK], [_QUIET]],
    endpoint_seconds=endpoint_seconds,
  )
  assert sounding == [decided + 1, decided + 2, decided + 3]
  assert [(f.window, f.say) for f in frames if f.say] == [
    (decided, (3, 4)),
    (decided + 2, (5,)),
  ]
  # It was given windows 4 to 9 in one go, asked in an empty one, and then
  # heard itself alone.
  assert [quiet for quiet, _ in seen] == 6 * [True] + 4 * [False]
  assert [f.user_dmel is None for _, f in seen] == 6 * [False] + 4 * [True]
  assert [f.own_dmel is None for _, f in seen] == 7 * [True] + 3 * [False]


@pytest.mark.parametrize("pause, count", [(0.4, 1), (0.8, 2)])
def test_a_pause_longer_than_the_timeout_is_answered_too_early(pause, count):
  """The known failure of such systems."""
  start = 1.7 + pause
  sounding, _, seen = _scripted(
    _timeline([(1.0, 1.7), (start, 4.0)]), [[_SPEAK]] * 40
  )
  asked = [f for quiet, f in seen if not quiet and f.own_dmel is None]
  assert len(asked) == count
  if count == 1:
    assert sounding[0] == 23
  else:
    # Decided at 2.2 s; the user goes on at 2.5 and is talked over.
    assert sounding[:3] == [11, 12, 23]


def test_barge_in_stops_the_agent_at_once():
  # A long reply from window 8 on; the user at 2.75 s, in window 13.
  sounding, frames, seen = _scripted(
    _timeline([(0.4, 1.0), (2.75, 4.0)]), [[3, _SPEAK]] * 30
  )
  # 0.05 s are too short to notice; window 14 is the last that sounds.
  first = [w for w in sounding if w < 20]
  assert first == list(range(8, 15))
  stopped = [
    i for i, (quiet, f) in enumerate(seen) if quiet and f.own_dmel is not None
  ]
  assert len(stopped) == 1
  # What was said stays, and the user's turn comes behind it, from its start.
  heard = [f.user_dmel for _, f in seen[stopped[0] + 1 : stopped[0] + 9]]
  assert [x is None for x in heard] == [False] * 7 + [True]  # 13 to 19
  assert not any(f.say or f.speak for f in frames[14:22])
  assert sounding[len(first)] == 23  # 4.0 s + 0.5 s, and a window


def test_messages_take_no_time_until_they_do():
  show = [_SHOW, 3, _END, _QUIET]
  sounding, frames, _ = _scripted(
    _timeline([(1.0, 2.0)]), [show, show, [_SPEAK], [_QUIET]]
  )
  assert sounding == [13] and len(frames[12].text_out) == 2
  sounding, frames, _ = _scripted(
    _timeline([(1.0, 2.0)]), [show] * 6 + [[_SPEAK]]
  )
  assert [len(f.text_out) for f in frames[12:16]] == [4, 1, 1, 0]
  assert sounding == [16]


def test_typed_text_is_a_turn_and_is_read_to_its_end():
  text = "a longer line"
  sounding, _, seen = _scripted(
    _timeline([], events=[(2.1, EventKind.USER_TEXT, text)]), [[_SPEAK]]
  )
  assert sounding == [11]  # 2.1 s is in window 10
  read = [t for _, f in seen for b in f.text_in for t in b.tokens]
  assert read == _TOKENIZER.encode(text)
  assert [quiet for quiet, _ in seen] == [True] * 5 + [False] * 2
  assert not seen[5][1].text_in


def test_text_waits_for_the_end_of_a_reply():
  sounding, _, _ = _scripted(
    _timeline([(1.0, 2.0)], events=[(2.8, EventKind.RESULT, "x")]),
    [[_SPEAK]] * 3 + [[_QUIET], [_SPEAK]],
  )
  # 13 to 15, and what answers the result comes right behind.
  assert sounding == [13, 14, 15, 16]


def test_a_user_who_never_speaks_and_one_who_never_stops():
  for spans in ([], [(0.3, 8.0)]):
    sounding, frames, seen = _scripted(_timeline(spans), [[_SPEAK]] * 9)
    assert (sounding, seen, len(frames)) == ([], [], 40)


def test_the_same_frames_as_in_training():
  """What the model perceives of turns is what it was trained on."""
  timeline = _timeline(
    [(1.0, 2.0), (4.1, 5.3)], events=[(3.0, EventKind.USER_TEXT, "longer")]
  )
  _, _, seen = _scripted(timeline, [])
  got = [frame for _, frame in seen]
  want = framing.frames(
    turns_lib.turn_based(
      timeline, config=_CONFIG.streams, tokenizer=_TOKENIZER
    ),
    config=_CONFIG.streams,
    tokenizer=_TOKENIZER,
  )
  assert len(got) == len(want) > 12
  for a, b in zip(got, want, strict=True):
    assert (a.window, a.own_dmel, a.speak) == (b.window, b.own_dmel, b.speak)
    assert a.text_in == b.text_in
    assert (a.user_dmel is None) == (b.user_dmel is None)
    if a.user_dmel is not None:
      np.testing.assert_array_equal(a.user_dmel, b.user_dmel)


def test_the_layout_of_a_run_says_how_it_is_met():
  assert turn_based.as_trained(_CONFIG) is user.Recorded
  data = dataclasses.replace(_CONFIG.data, layout=Layout.TURNS)
  connect = turn_based.as_trained(dataclasses.replace(_CONFIG, data=data))
  assert connect.func is turn_based.Turns
  streams = dataclasses.replace(_CONFIG.streams, turn_ms=400)
  long = dataclasses.replace(_CONFIG, streams=streams)
  with pytest.raises(errors.UserError, match="take --agent=duplex"):
    turn_based.connect(long, vad="energy", endpoint_seconds=0.5)
  with pytest.raises(errors.UserError, match="--vad=loud"):
    turn_based.connect(_CONFIG, vad="loud", endpoint_seconds=0.5)


_USERS = [
  [(0.5, 1.5), (4.0, 5.0), (6.0, 6.4)],
  # Goes on as soon as somebody answers.
  [(0.5 + 1.3 * i, 0.9 + 1.3 * i) for i in range(6)],
  [],
  [(0.3, 7.9)],
]


def _converse(timelines, *, first=0):
  """Recordings of timelines, whose sessions have the seeds 0, 1, ..."""
  held = {}
  run.converse(
    _CONFIG,
    model=small_session.model(_CONFIG),
    variables=small_session.variables(_CONFIG),
    items=[
      suites.Item("test", seed=first + i, load=lambda t=t: t)
      for i, t in enumerate(timelines)
    ],
    tokenizer=_TOKENIZER,
    done=lambda done: held.__setitem__(done.index, done),
    connect=turn_based.connect(
      _CONFIG, vad="energy", endpoint_seconds=_ENDPOINT
    ),
  )
  for each in held.values():
    assert len(each.seconds) == len(each.frames)
  return [held[i].frames for i in range(len(timelines))]


def _in_turn(timeline):
  """[windows] bool, at whose end the detector hears the user."""
  part = user.UserPart(timeline, tokenizer=_TOKENIZER, grid=clock.TICKS)
  detector, endpointer = vad.EnergyVad(), endpoint.Endpointer(_ENDPOINT)
  busy = []
  for k in range(len(part)):
    endpointer.push(detector.push(part.samples(k)), hop=detector.hop)
    busy.append(endpointer.in_turn)
  return np.array(busy)


@pytest.mark.slow  # compiles a tick
def test_a_model_of_random_weights():
  timelines = [
    _timeline(_USERS[i % len(_USERS)], seed=i) for i in range(18)
  ]  # 16 at a time
  recordings = _converse(timelines)
  interrupted = 0
  for timeline, frames in zip(timelines, recordings, strict=True):
    assert [f.window for f in frames] == list(range(40))
    busy = _in_turn(timeline)
    sounding = np.array([f.own_dmel is not None for f in frames])
    speaks = np.array([f.speak for f in frames])
    # What is decided in a window sounds in the next, and nothing else does.
    np.testing.assert_array_equal(sounding[1:], speaks[:-1])
    # Never a decision to speak while the user is heard: at most the window
    # sounds in which that is noticed.
    assert not sounding[0] and not (speaks & busy).any()
    assert not (sounding & busy)[1:][busy[:-1]].any()
    interrupted += int((sounding & busy).sum())
    for frame in frames:
      assert frame.user_dmel is not None  # the recording has the user's part
      assert (frame.target_mel is not None) == frame.speak
  assert interrupted  # a reply was cut
  for i in (2, 3):  # nobody asked the model
    assert not any(f.speak or f.say or f.text_out for f in recordings[i])
  # The same again, and conversation 5 alone.
  decided = [_decisions(frames) for frames in recordings]
  assert [_decisions(frames) for frames in _converse(timelines)] == decided
  assert _decisions(_converse([timelines[5]], first=5)[0]) == decided[5]


def _decisions(frames):
  return [
    (f.window, f.say, f.text_out, f.speak, f.own_dmel is None) for f in frames
  ]
