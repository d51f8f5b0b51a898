"""The harness of a turn-based agent, with a small model of random weights."""

import dataclasses

import numpy as np
import pytest

from tests.sampling import small
from tml_jax import errors
from tml_jax.config import Layout
from tml_jax.data import layouts
from tml_jax.evals import live as live_lib
from tml_jax.evals import run, suites, turn_based
from tml_jax.sampling import user, vad
from tml_jax.streams import clock, endpoint, framing
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
)

_TOKENIZER = small.Letters()
_CONFIG = small.config(temperature=1.0)
_ENDPOINT = 0.5


def _timeline(spans, *, windows=40, seed=0, events=()):
  """Somebody hums in `spans`, in a room that is not quite silent."""
  random = np.random.default_rng(seed)
  sound = 1e-3 * random.normal(size=windows * clock.TURN_SAMPLES)
  for start, end in spans:
    part = slice(*(round(t * clock.SAMPLE_RATE) for t in (start, end)))
    sound[part] += 0.1 * random.normal(size=part.stop - part.start)
  return Timeline(
    id=f"test/{seed}",
    duration=windows * clock.TURN_SECONDS,
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


def _converse(timelines, *, endpoint_seconds=_ENDPOINT, hold=None):
  """Recordings of timelines, whose sessions have the seeds 0, 1, ..."""
  held = {}
  run.converse(
    _CONFIG,
    model=small.model(_CONFIG),
    variables=small.variables(_CONFIG),
    items=[
      suites.Item("test", seed=i, load=lambda t=t: t)
      for i, t in enumerate(timelines)
    ],
    tokenizer=_TOKENIZER,
    done=lambda done: held.__setitem__(done.index, done),
    windows=0,
    hold=hold
    or turn_based.hold(
      _CONFIG, vad="energy", endpoint_seconds=endpoint_seconds
    ),
  )
  for each in held.values():
    assert len(each.seconds) == len(each.frames)
  return [held[i].frames for i in range(len(timelines))]


def _sounding(frames):
  return np.array([frame.own_dmel is not None for frame in frames])


def _decisions(frames):
  return [
    (f.window, f.say, f.text_out, f.speak, f.own_dmel is None) for f in frames
  ]


def _in_turn(timeline):
  """[windows] bool, at whose end the detector hears the user."""
  part = user.UserPart(timeline, tokenizer=_TOKENIZER)
  detector, endpointer = vad.EnergyVad(), endpoint.Endpointer(_ENDPOINT)
  busy = []
  for k in range(len(part)):
    endpointer.push(detector.push(part.samples(k)), hop=detector.hop)
    busy.append(endpointer.in_turn)
  return np.array(busy)


_USERS = [
  [(0.5, 1.5), (4.0, 5.0), (6.0, 6.4)],
  [(1.0, 2.0), (2.3, 3.0), (5.0, 7.5)],
  [],
  [(0.3, 7.9)],
]


def test_windows_turns_and_barge_in():
  timelines = [_timeline(spans, seed=i) for i, spans in enumerate(_USERS)]
  recordings = _converse(timelines)
  interrupted = 0
  for timeline, frames in zip(timelines, recordings, strict=True):
    assert [f.window for f in frames] == list(range(40))
    busy = _in_turn(timeline)
    sounding = _sounding(frames)
    speaks = np.array([f.speak for f in frames])
    # What is decided in a window sounds in the next, and nothing else does.
    np.testing.assert_array_equal(sounding[1:], speaks[:-1])
    assert not sounding[0]
    # Never a decision to speak while the user is heard, so at most the window
    # in which that is noticed.
    assert not (speaks & busy).any()
    assert not (sounding & busy)[1:][busy[:-1]].any()
    interrupted += int((sounding & busy).sum())
    for frame in frames:
      assert frame.user_dmel is not None  # the recording has the user's part
      assert (frame.target_mel is not None) == frame.speak
      if busy[frame.window]:
        assert not frame.say and not frame.text_out
  assert interrupted  # a reply was cut
  assert any(f.speak for f in recordings[0])
  # Nobody asks the model before the user has said something.
  for i in (2, 3):
    assert not any(f.speak or f.say or f.text_out for f in recordings[i])


@pytest.mark.parametrize("endpoint_seconds", [0.3, 0.5, 0.7])
def test_a_reply_is_late_by_the_timeout(endpoint_seconds):
  """The first decision comes with the window in which the time-out ends."""
  recordings = _converse(
    [_timeline([(1.0, 2.0)], seed=i) for i in range(8)],
    endpoint_seconds=endpoint_seconds,
  )
  decided = [
    next((f.window for f in frames if f.say or f.text_out or f.speak), None)
    for frames in recordings
  ]
  # The detector hears on for 0.1 s, to 2.1.
  due = clock.num_windows(2.1 + endpoint_seconds) - 1
  assert set(decided) <= {due, None} and due in decided


def test_typed_text_is_answered_and_read_to_its_end():
  text = "a longer line"  # three windows
  timeline = _timeline([], events=[(2.1, EventKind.USER_TEXT, text)])
  seen = []

  hold = turn_based.hold(_CONFIG, vad="energy", endpoint_seconds=_ENDPOINT)

  def spy(part, live, frames):
    steps = hold(part, live, frames)
    step = next(steps)
    while True:
      frame = yield step
      seen.append((step.quiet, frame))
      try:
        step = steps.send(frame)
      except StopIteration:
        return

  (frames,) = _converse([timeline], hold=spy)
  read = [t for _, f in seen for b in f.text_in for t in b.tokens]
  assert read == _TOKENIZER.encode(text)
  given = [f for quiet, f in seen if quiet and f.text_in]
  assert len(given) == 5 and not any(f.speak or f.say for f in given)
  # The clock of the model counts the windows that it was given.
  assert [f.window for _, f in seen] == list(range(len(seen)))
  first = next(f for f in frames if f.say or f.text_out or f.speak)
  assert first.window == 10  # 2.0 to 2.2 s


def test_who_shares_the_pool_does_not_matter():
  timelines = [_timeline(_USERS[i % len(_USERS)], seed=i) for i in range(18)]
  together = [_decisions(frames) for frames in _converse(timelines)]
  assert [_decisions(frames) for frames in _converse(timelines)] == together
  # Conversation 0 alone: it has the seed of its place.
  assert [_decisions(f) for f in _converse(timelines[:1])] == together[:1]


def test_the_same_frames_as_in_training():
  """What the model perceives of spoken turns is what it was trained on."""
  timeline = _timeline([(1.0, 2.0), (4.1, 5.3)])

  class Spans:
    """Hears what the recording says."""

    hop = 160

    def __init__(self):
      self._window = 0

    def push(self, samples):
      times = 0.2 * self._window + 0.01 * np.arange(20) + 0.005
      self._window += 1
      spans = timeline.tracks[0].spans
      return np.any([(times > s.start) & (times < s.end) for s in spans], 0)

  part = user.UserPart(timeline, tokenizer=_TOKENIZER)
  pool = small.pool(_CONFIG, slots=1)
  live = pool.join(seed=0)
  steps = turn_based.turns(
    part,
    live,
    [],
    config=_CONFIG,
    make_vad=Spans,
    endpoint_seconds=_ENDPOINT,
  )
  got, step = [], next(steps)
  try:
    while True:
      # The model never answers.
      ticked = pool.tick({live: step.inputs}, quiet={live})
      got.append(ticked.frames[live])
      step = steps.send(got[-1])
  except StopIteration:
    pass
  want = framing.frames(
    layouts.turn_based(timeline, config=_CONFIG.streams, tokenizer=_TOKENIZER),
    config=_CONFIG.streams,
    tokenizer=_TOKENIZER,
  )
  assert len(got) == len(want) > 12
  for a, b in zip(got, want, strict=True):
    assert (a.window, a.own_dmel, a.speak) == (b.window, b.own_dmel, b.speak)
    assert (a.user_dmel is None) == (b.user_dmel is None)
    if a.user_dmel is not None:
      np.testing.assert_array_equal(a.user_dmel, b.user_dmel)


def test_the_layout_of_a_run_says_how_it_is_met():
  assert turn_based.as_trained(_CONFIG) is live_lib.duplex
  data = dataclasses.replace(_CONFIG.data, layout=Layout.TURNS)
  hold = turn_based.as_trained(dataclasses.replace(_CONFIG, data=data))
  assert hold.func is turn_based.turns
  with pytest.raises(errors.UserError, match="--vad=loud"):
    turn_based.hold(_CONFIG, vad="loud", endpoint_seconds=0.5)
