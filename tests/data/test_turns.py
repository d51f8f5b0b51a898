"""Conversations as alternating turns, by hand."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.helpers import frames as small_frames
from tests.helpers import hearing, small_data
from tml_jax import errors
from tml_jax.config import Layout, SemanticEnd, TurnsConfig
from tml_jax.data import loader, mixture, turns, vad
from tml_jax.data.splits import Split
from tml_jax.streams import clock, framing, packing
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams import tokenizer as tokenizer_lib
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  VideoFrame,
  Word,
)

_BYTES = small_frames.ByteTokenizer()
_CONFIG = small_frames.CONFIG  # 5 tokens of text in, 6 out, marks included
_ONCE = TurnsConfig(semantic_end=SemanticEnd.OFF, minimum_interruption_s=0.1)
_IMAGE = np.zeros((40, 80, 3), np.uint8)


def _track(role, spans, *, windows, words=()):
  """A track that sounds everywhere; its level names the window."""
  level = (np.arange(windows, dtype=np.float32) + 1) / 1000
  return Track(
    role,
    np.repeat(level, clock.TICKS.samples),
    tuple(Word(*word) for word in words),
    tuple(Span(*span) for span in spans),
    str(role),
  )


def _timeline(user, agent, *, windows=30, words=(), events=(), video=()):
  return Timeline(
    id="t",
    duration=windows * clock.TICKS.seconds,
    tracks=(
      _track(Role.USER, user, windows=windows),
      _track(Role.AGENT, agent, windows=windows, words=words),
    ),
    events=tuple(Event(*event) for event in events),
    video=tuple(VideoFrame(time, _IMAGE) for time in video),
  )


def _laid_out(timeline, *, config=_CONFIG, settings=_ONCE):
  return turns.turn_based(
    timeline,
    detector=hearing.Spans(timeline),
    settings=settings,
    config=config,
    tokenizer=_BYTES,
  )


def _turns(timeline, **settings):
  """One letter and number a window: who, and from which window.

  u7 is the user's window 7, a9 the agent's 9, "." one with nothing in it.
  """
  result = _laid_out(timeline, settings=dataclasses.replace(_ONCE, **settings))
  timeline_lib.validate(result)
  count = clock.TICKS.num_windows(result.duration)
  frames = framing.frames(result, config=_CONFIG, tokenizer=_BYTES)
  assert len(frames) == count  # no text is left over
  user, agent = (t.audio.reshape(count, -1) for t in result.tracks)
  row = []
  for frame, heard, said in zip(frames, user, agent, strict=True):
    number = round(1000 * max(heard[0], said[0])) - 1
    if frame.user_dmel is not None:
      assert frame.own_dmel is None and not frame.speak
      assert not frame.say and not frame.text_out
      row.append(f"u{number}")
    else:
      row.append("." if frame.own_dmel is None else f"a{number}")
      assert (frame.own_dmel is None) == (number < 0)
  return " ".join(row), frames


def test_who_speaks_when():
  # The user from 1.0 to 1.7 s, the agent from 2.2 to 3.1, the user at 4.0.
  row, frames = _turns(
    _timeline(
      [(1.0, 1.7), (4.0, 4.5)],
      [(2.2, 3.1)],
      words=[(2.2, 2.6, "he"), (2.6, 3.1, "llo")],
    )
  )
  # Silence is gone but for 0.1 s; nobody answers the second turn.
  assert row == "u4 u5 u6 u7 u8 . a11 a12 a13 a14 a15 u19 u20 u21 u22 ."
  assert [f.window for f in frames if f.speak] == [5, 6, 7, 8, 9]
  said = [(f.window, bytes(f.say).decode()) for f in frames if f.say]
  assert said == [(5, "he"), (7, "llo")]
  assert [f.window for f in frames] == list(range(len(frames)))


@pytest.mark.parametrize("pause, count", [(0.4, 1), (0.8, 2)])
def test_a_pause_longer_than_the_timeout_is_an_early_question(pause, count):
  """The known failure: the agent is asked in the middle of a thought."""
  start = 1.7 + pause
  row, frames = _turns(
    _timeline([(1.0, 1.7), (start, start + 0.4)], [(4.0, 4.4)])
  )
  assert row.count(".") == count
  assert row.endswith("a20 a21")
  asked = [f for f in frames if f.user_dmel is None and f.own_dmel is None]
  assert [f.speak for f in asked] == [False] * (count - 1) + [True]


def test_barge_in_cuts_what_the_agent_had_not_said():
  # The agent from 2.0 to 4.4 s; the user at 3.0, noticed in window 15.
  row, _ = _turns(_timeline([(0.4, 1.0), (3.0, 5.0)], [(2.0, 4.4)]))
  assert row == (
    "u1 u2 u3 u4 . a10 a11 a12 a13 a14 a15"
    " u14 u15 u16 u17 u18 u19 u20 u21 u22 u23 u24 ."
  )


def test_who_goes_on_over_a_backchannel_goes_on_behind_it():
  row, frames = _turns(
    _timeline(
      [(0.4, 1.0), (3.0, 3.4)],
      [(2.0, 4.4)],
      words=[(2.0, 2.5, "a"), (3.1, 3.3, "b"), (3.5, 4.0, "c")],
    )
  )
  assert row == (
    "u1 u2 u3 u4 . a10 a11 a12 a13 a14 a15"
    " u14 u15 u16 . a16 a17 a18 a19 a20 a21"
  )
  assert bytes(t for f in frames for t in f.say) == b"abc"


def test_what_is_said_meanwhile_comes_after_the_turn():
  # A translation, from 1.4 s on, of what the user says until 3.0 s.
  row, _ = _turns(_timeline([(0.4, 3.0)], [(1.4, 3.4)]))
  user = " ".join(f"u{k}" for k in range(1, 15))
  agent = " ".join(f"a{k}" for k in range(7, 17))
  assert row == f"{user} . {agent}"


def test_a_word_that_is_too_short_to_interrupt_follows_the_reply():
  # 0.4 s at 3.0 s: heard when the agent has counted to the end.
  timeline = _timeline([(0.4, 1.0), (3.0, 3.4)], [(2.0, 4.4)])
  assert _turns(timeline, minimum_interruption_s=0.5)[0] == (
    "u1 u2 u3 u4 . a10 a11 a12 a13 a14 a15 a16 a17 a18 a19 a20 a21"
    " u14 u15 u16 ."
  )
  # With 0.6 s of speech it ends 0.5 s after it began, in window 17.
  timeline = _timeline([(0.4, 1.0), (3.0, 3.6)], [(2.0, 4.4)])
  assert _turns(timeline, minimum_interruption_s=0.5)[0] == (
    "u1 u2 u3 u4 . a10 a11 a12 a13 a14 a15 a16 a17"
    " u14 u15 u16 u17 . a18 a19 a20 a21"
  )


def test_the_agent_is_asked_while_silence_lasts():
  asked = dict(semantic_end=SemanticEnd.MODEL, maximum_silence_s=1.5)
  # Over at 1.5 s, in window 7: asked in 7, 8 and 9, as the user goes on in 10.
  # The reply at 4.0 s, window 20, is decided in 19: asked in 17, 18, 19.
  timeline = _timeline([(0.4, 1.0), (2.0, 3.0)], [(4.0, 4.3)])
  row, frames = _turns(timeline, **asked)
  assert row == "u1 u2 u3 u4 . . . u9 u10 u11 u12 u13 u14 . . . a20 a21"
  assert [f.window for f in frames if f.speak] == [15, 16]
  # At most 1 + (1.5 - 0.5) / 0.2 times: a reply that is later comes then.
  row, frames = _turns(_timeline([(0.4, 1.0)], [(4.0, 4.3)]), **asked)
  assert row == "u1 u2 u3 u4 . . . . . . a20 a21"
  # To the end of the recording, where nobody says anything.
  row, _ = _turns(_timeline([(0.4, 1.0)], [], windows=10), **asked)
  assert row == "u1 u2 u3 u4 . . ."
  # Once where the agent speaks at once, or has begun before.
  for start in (1.2, 1.6):
    timeline = _timeline([(0.4, 1.0)], [(start, start + 0.2)])
    assert _turns(timeline, **asked)[0] == f"u1 u2 u3 u4 . a{start * 5:.0f}"


def test_turns_are_those_of_the_detector_of_the_run(config, data_dir):
  """`lay_out` hears the microphone, not the spans of the recording."""
  pieces = tokenizer_lib.load(
    tokenizer_lib.path(data_dir), config=config.streams
  )
  by_turns = small_data.config(layout=Layout.TURNS)
  items = mixture.build(config, data_dir=data_dir, split=Split.TRAIN)
  differs = 0
  for timeline in (items[i] for i in range(10)):
    both = []
    for track in (
      timeline.tracks,
      [dataclasses.replace(track, spans=()) for track in timeline.tracks],
    ):
      agents = [t for t in timeline.tracks if t.role is Role.AGENT]
      others = [t for t in track if t.role is not Role.AGENT]
      told = dataclasses.replace(timeline, tracks=(*others, *agents))
      laid = turns.lay_out(told, config=by_turns, tokenizer=pieces)
      both.append(laid.tracks[0].audio)
    np.testing.assert_array_equal(*both)
    found = turns.user_turns(
      timeline, detector=hearing.Spans(timeline), settings=by_turns.turns
    )
    heard = turns.user_turns(
      timeline,
      detector=vad.create(by_turns.turns.vad),
      settings=by_turns.turns,
    )
    assert len(heard) > 0
    differs += [t.windows for t in found] != [t.windows for t in heard]
  assert differs


def test_an_agent_who_speaks_first_is_not_heard():
  assert _turns(_timeline([(2.0, 2.4)], [(0.4, 1.0)]))[0] == "u9 u10 u11 ."
  assert _turns(_timeline([], [(0.4, 1.0)]))[0] == "."


def test_typed_text_messages_and_video_keep_their_order():
  row, frames = _turns(
    _timeline(
      [(1.0, 1.4)],
      [(2.0, 2.3), (4.2, 4.5)],
      events=[
        (0.9, EventKind.SHOW, "too early"),
        (1.7, EventKind.SHOW, "abcdef"),
        (1.9, EventKind.CALL, "gh"),
        (3.0, EventKind.NOTE, "not seen"),
        (3.6, EventKind.RESULT, "result"),
      ],
      video=[0.2, 2.8, 5.0],
    )
  )
  # Windows with pictures are delivered with the next turn, messages take
  # windows of their own, and a long result two more.
  assert row == "u1 u4 u5 u6 . . . . a10 a11 u14 u18 . . a21 a22"
  assert [f.window for f in frames if len(f.patches)] == [0, 10]
  written = [(f.window, b) for f in frames for b in f.text_out]
  assert [w for w, _ in written] == [4, 5, 6]
  assert bytes(t for _, b in written for t in b.tokens) == b"abcdghef"
  read = [(f.window, b) for f in frames for b in f.text_in]
  assert [w for w, _ in read] == [11, 12]
  assert bytes(t for _, b in read for t in b.tokens) == b"result"


def test_a_lead_of_text_does_not_reach_into_the_question():
  lead = dataclasses.replace(_CONFIG, say_lead=2)
  timeline = _timeline([(0.4, 1.0)], [(2.0, 3.0)], words=[(2.0, 3.0, "abc")])
  result = _laid_out(timeline, config=lead)
  frames = framing.frames(result, config=lead, tokenizer=_BYTES)
  assert [f.window for f in frames if f.say] == [4]
  assert frames[4].user_dmel is None and frames[4].speak


def test_prepared_conversations(config, data_dir):
  """All that is said is there, and nobody hears while speaking."""
  pieces = tokenizer_lib.load(
    tokenizer_lib.path(data_dir), config=config.streams
  )
  by_turns = small_data.config(layout=Layout.TURNS)
  counts = np.zeros((2, 2), int)
  items = mixture.build(config, data_dir=data_dir, split=Split.TRAIN)
  for timeline in (items[i] for i in range(20)):
    result = turns.lay_out(timeline, config=by_turns, tokenizer=pieces)
    assert turns.lay_out(timeline, config=config, tokenizer=pieces) is timeline
    both = [
      framing.frames(t, config=config.streams, tokenizer=pieces)
      for t in (timeline, result)
    ]
    for frame in both[1]:
      assert frame.user_dmel is None or frame.own_dmel is None
      if frame.user_dmel is not None:
        assert not (frame.say or frame.text_out or frame.speak)
    texts = [[sorted(f.say) for f in frames if f.say] for frames in both]
    assert sorted(map(tuple, texts[0])) == sorted(map(tuple, texts[1]))
    sound = [np.stack([f.target_mel for f in fs if f.speak]) for fs in both]
    assert len(sound[1]) >= len(sound[0])
    for i, frames in enumerate(both):
      sizes = [
        len(frame_lib.layout(f, config=config.streams).tokens) for f in frames
      ]
      counts[i] += len(frames), sum(sizes)
  assert (counts[1] < counts[0]).all()


def test_the_loader_lays_out(config, data_dir):
  states = []
  for layout in Layout:
    cfg = small_data.config(layout=layout)
    batches = loader.Loader(cfg, data_dir=data_dir, split=Split.TRAIN)
    batch = next(batches)
    states.append(batches.get_state())
    batches.close()
    both = 0
    for row in range(len(batch.targets.tokens)):
      sequence = jax.tree.map(lambda x, row=row: x[row], batch)
      for frames in packing.unpack(sequence, config=cfg.streams):
        both += sum(
          f.own_dmel is not None and f.user_dmel is not None for f in frames
        )
    assert (both > 0) == (layout is Layout.DUPLEX)
  # A position in one layout means nothing in the other.
  with pytest.raises(errors.UserError, match="layout: 'duplex' then"):
    loader.Loader(cfg, data_dir=data_dir, split=Split.TRAIN).set_state(
      states[0]
    )
  # Nor where turns are cut otherwise; how a session goes on cuts none.
  for field, value in ("endpoint_s", 0.3), ("maximum_silence_s", 0.5):
    other = dataclasses.replace(
      cfg, turns=dataclasses.replace(cfg.turns, **{field: value})
    )
    batches = loader.Loader(other, data_dir=data_dir, split=Split.TRAIN)
    with pytest.raises(errors.UserError, match="turns: {.*} then"):
      batches.set_state(states[1])
    batches.close()
  same = dataclasses.replace(cfg.turns, resume_after_false_s=0.0)
  batches = loader.Loader(
    dataclasses.replace(cfg, turns=same), data_dir=data_dir, split=Split.TRAIN
  )
  batches.set_state(states[1])
  batches.close()
