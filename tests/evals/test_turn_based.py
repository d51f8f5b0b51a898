"""The harness of a turn-based agent: who hears and sounds when."""

import dataclasses

import numpy as np
import pytest

from tests.helpers import hearing, small_session
from tml_jax import errors
from tml_jax.config import Layout, SemanticEnd, Start, TurnsConfig
from tml_jax.data import turns as turns_lib
from tml_jax.data import vad
from tml_jax.evals import run, suites, turn_based
from tml_jax.live import session, user
from tml_jax.live.transport import Answer, Past
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
# A time-out, and nothing else that helps.
_PLAIN = TurnsConfig(
  semantic_end=SemanticEnd.OFF,
  minimum_interruption_s=0.1,
  resume_after_false_s=0.0,
  start=Start.AT_END,
)
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


def _scripted(timeline, script, **settings):
  """Sound windows and all frames of a model that decides by a script.

  Args:
    timeline: the user.
    script: tokens of each frame that the model is asked for, in order; then
      it is quiet.
    settings: of the harness, where they differ from `_PLAIN`.

  Returns:
    The windows that sound, the frames of the conversation, and what the model
    has in its context: whether it only listened, and the frame.
  """
  live, seen, script = session.Session(_CONFIG, seed=0), [], [*script]
  kept = None
  turns = dataclasses.replace(_PLAIN, **settings)
  talk = turn_based.Turns(
    user.UserPart(timeline, tokenizer=_TOKENIZER, grid=clock.TICKS),
    config=dataclasses.replace(_CONFIG, turns=turns),
    make_vad=lambda: hearing.Spans(timeline),
  )
  while (arrived := talk.bring()) is not None:
    if arrived.past is Past.KEPT:
      kept = live.state(), len(seen)
    elif arrived.past is Past.AS_KEPT:
      live = session.Session.of_state(_CONFIG, state=kept[0])
      seen = seen[: kept[1]]
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
    endpoint_s=endpoint_seconds,
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


@pytest.mark.parametrize(
  "seconds, minimum, last",
  [
    (0.4, 0.5, 17),  # too short: the reply goes on to its end
    (0.6, 0.5, 16),  # 0.5 s of it are heard at 3.25 s, in window 16
    (0.6, 0.3, 15),
    (0.2, 0.1, 14),
  ],
)
def test_what_is_too_short_does_not_interrupt(seconds, minimum, last):
  # A reply in windows 8 to 17; the user at 2.75 s, in window 13.
  sounding, _, seen = _scripted(
    _timeline([(0.4, 1.0), (2.75, 2.75 + seconds)]),
    [[_SPEAK]] * (last - 7) + [[_QUIET], [_SPEAK], [_QUIET]],
    minimum_interruption_s=minimum,
  )
  if last == 17:
    # It is heard, and asked about, when nobody speaks any more: over at 3.65 s.
    assert sounding == [*range(8, 18), 19]
  else:
    # What is asked first is the user's words, and `<quiet>` is no answer.
    assert sounding == [*range(8, last + 1)]
  heard = [f.window for _, f in seen if f.user_dmel is not None]
  assert heard[4:] == [*range(heard[4], heard[4] + len(heard[4:]))]
  assert len(heard) == 4 + len(
    range(13, int(np.ceil((2.75 + seconds) / 0.2 - 1e-6)))
  )


def _false_interruption(spans, script, **settings):
  """Interrupted in window 16: 0.5 s of speech are heard at 3.25 s."""
  return _scripted(
    _timeline([(0.4, 1.0), (2.75, 3.35), *spans]),
    [[_SPEAK]] * 9 + script,
    minimum_interruption_s=0.5,
    resume_after_false_s=1.0,
    **settings,
  )


def test_a_reply_goes_on_where_a_false_interruption_cut_it():
  go_on = [[5, _SPEAK]] * 3
  sounding, frames, seen = _false_interruption([], [[_QUIET], *go_on])
  # 1.0 s after 3.35 s is noticed at 4.4 s, the end of window 21.
  assert sounding == [*range(8, 17), 22, 23, 24]
  assert [f.window for f in frames if f.say] == [21, 22, 23]
  # It knows nothing of the user's words: its own sound follows its own.
  assert sum(f.user_dmel is not None for _, f in seen) == 4
  own = [f.window for _, f in seen if f.own_dmel is not None]
  assert own == [*range(5, 17)]
  # A voice that goes on is waited for.
  sounding, _, _ = _false_interruption(
    [(4.05, 4.5)], [[_QUIET], [_QUIET], *go_on]
  )
  assert sounding == [*range(8, 17), 28, 29, 30]  # 4.5 s + 1.0 s


def test_what_is_answered_or_followed_was_no_false_interruption():
  # Answered at once: over at 3.85 s, in window 19.
  sounding, _, _ = _false_interruption([], [[_SPEAK], [_QUIET], [_SPEAK]])
  assert sounding == [*range(8, 17), 20]
  # A message is an answer, too.
  sounding, _, _ = _false_interruption([], [[_SHOW, 3, _END, _QUIET]])
  assert sounding == [*range(8, 17)]
  # Never.
  sounding, _, _ = _scripted(
    _timeline([(0.4, 1.0), (2.75, 3.35)]),
    [[_SPEAK]] * 7 + [[_QUIET], [_SPEAK]],
  )
  assert sounding == [*range(8, 15)]


def test_the_model_is_asked_while_silence_lasts():
  asked = dict(semantic_end=SemanticEnd.MODEL, maximum_silence_s=1.0)
  # Silent since 2.0 s: asked at the ends of windows 12, 13, 14.
  sounding, _, seen = _scripted(
    _timeline([(1.0, 2.0)]), [[_QUIET], [_QUIET], [_SPEAK]], **asked
  )
  assert sounding == [15]
  assert [quiet for quiet, _ in seen] == 6 * [True] + 4 * [False]
  sounding, _, seen = _scripted(
    _timeline([(1.0, 2.0)]), [[_QUIET]] * 3 + [[_SPEAK]], **asked
  )
  assert sounding == [] and len(seen) == 6 + 3  # three times, no more
  # The user goes on at 2.8 s, noticed in window 14; over at 3.9 s, in 19.
  timeline = _timeline([(1.0, 2.0), (2.8, 3.4)])
  sounding, _, _ = _scripted(timeline, [[_QUIET], [_QUIET], [_SPEAK]], **asked)
  assert sounding == [20]
  # Who has written something may still speak.
  show = [_SHOW, 3, _END, _QUIET]
  sounding, frames, _ = _scripted(
    _timeline([(1.0, 2.0)]), [show, [_QUIET], [_QUIET], [_SPEAK]], **asked
  )
  assert sounding == [15]
  assert [f.window for f in frames if f.text_out] == [12]


def test_a_speculative_start_has_written_its_messages():
  show, early = [_SHOW, 3, _END, _QUIET], dict(start=Start.SPECULATIVE)
  # Silent since the end of window 9: begun in 10, over in 12, 3 x 4 windows.
  for count, first in ((11, 13), (12, 14)):
    sounding, frames, _ = _scripted(
      _timeline([(1.0, 2.0)]), [show] * count + [[_SPEAK]], **early
    )
    assert sounding == [first]
    assert len(frames[12].text_out) == count
  # What was begun in a pause is thrown away, and begun again in window 15.
  timeline = _timeline([(1.0, 2.0), (2.3, 3.0)])
  sounding, frames, seen = _scripted(
    timeline, [show] * 11 + [[_SPEAK]], **early
  )
  assert sounding == [18]
  assert [f.window for f in frames if f.text_out] == [17]
  assert [quiet for quiet, _ in seen][:12] == 11 * [True] + [False]


def test_messages_take_no_time_until_they_do():
  show = [_SHOW, 3, _END, _QUIET]
  sounding, frames, _ = _scripted(
    _timeline([(1.0, 2.0)]), [show, show, [_SPEAK], [_QUIET]]
  )
  assert sounding == [13] and len(frames[12].text_out) == 2
  sounding, frames, _ = _scripted(
    _timeline([(1.0, 2.0)]), [show] * 6 + [[_SPEAK]]
  )
  assert [len(f.text_out) for f in frames[12:15]] == [4, 2, 0]
  assert sounding == [14]
  # In the middle of a reply, too: what sounds goes on in the next window.
  sounding, frames, seen = _scripted(
    _timeline([(1.0, 2.0)]),
    [[_SPEAK], show, show, [_SPEAK], [_SPEAK], [_QUIET]],
  )
  assert sounding == [13, 14, 15]
  assert [len(f.text_out) for f in frames[12:16]] == [0, 2, 0, 0]
  own = [f.own_dmel is not None for _, f in seen[6:]]
  assert own == [False, True, False, False, True, True]


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


@pytest.mark.parametrize(
  "settings",
  [
    _PLAIN,
    dataclasses.replace(_PLAIN, endpoint_s=0.3),
    TurnsConfig(),
    TurnsConfig(endpoint_s=0.2, maximum_silence_s=1.0),
  ],
)
def test_the_same_frames_as_in_training(settings):
  """What the model perceives of turns is what it was trained on."""
  timeline = _timeline(
    [(1.0, 2.0), (4.1, 5.3)], events=[(3.0, EventKind.USER_TEXT, "longer")]
  )
  _, _, seen = _scripted(timeline, [], **vars(settings))
  got = [frame for _, frame in seen]
  want = framing.frames(
    turns_lib.turn_based(
      timeline,
      detector=hearing.Spans(timeline),
      settings=settings,
      config=_CONFIG.streams,
      tokenizer=_TOKENIZER,
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
    turn_based.connect(long)


_USERS = [
  [(0.5, 1.5), (4.0, 5.0), (6.0, 6.4)],
  # Goes on as soon as somebody answers.
  [(0.5 + 1.3 * i, 0.9 + 1.3 * i) for i in range(6)],
  [],
  [(0.3, 7.9)],
]


_TURNS = dataclasses.replace(_CONFIG, turns=_PLAIN)


def _converse(timelines, *, first=0, config=_TURNS):
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
    connect=turn_based.connect(config),
  )
  for each in held.values():
    assert len(each.seconds) == len(each.frames)
  return [held[i].frames for i in range(len(timelines))]


def _in_turn(timeline):
  """[windows] bool, at whose end the detector hears the user."""
  part = user.UserPart(timeline, tokenizer=_TOKENIZER, grid=clock.TICKS)
  detector, endpointer = vad.EnergyVad(), endpoint.Endpointer(_PLAIN)
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
  # With all that good harnesses do, sessions that go back among them.
  full = dataclasses.replace(
    _CONFIG,
    turns=TurnsConfig(
      endpoint_s=0.3, minimum_interruption_s=0.2, resume_after_false_s=0.3
    ),
  )
  recordings = _converse(timelines, config=full)
  for frames in recordings:
    sounding = np.array([f.own_dmel is not None for f in frames])
    speaks = np.array([f.speak for f in frames])
    np.testing.assert_array_equal(sounding[1:], speaks[:-1])
  others = [_decisions(frames) for frames in recordings]
  assert others != decided
  alone = _converse([timelines[1]], first=1, config=full)
  assert _decisions(alone[0]) == others[1]


def _decisions(frames):
  return [
    (f.window, f.say, f.text_out, f.speak, f.own_dmel is None) for f in frames
  ]
