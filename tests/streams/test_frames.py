"""Timeline, frames, packed sequence, frames; and what may depend on what."""

import dataclasses

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.helpers.frames import CONFIG, ByteTokenizer, levels, recording
from tml_jax.config import SayText
from tml_jax.streams import clock, framing, packing
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.timeline import Event, EventKind, Role, Span, Track, Word


def assert_same(got: Frame, want: Frame):
  for field in dataclasses.fields(Frame):
    a, b = getattr(got, field.name), getattr(want, field.name)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
      np.testing.assert_array_equal(a, b, err_msg=field.name)
    else:
      assert type(a) is type(b) and a == b, field.name


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.lists(recording(), min_size=1, max_size=6))
def test_unpack_gives_the_frames_back(recordings):
  sequences = packing.pack(recordings, config=CONFIG)
  got = {}
  for sequence in sequences:
    for frames in packing.unpack(sequence, config=CONFIG):
      got.setdefault(frames[0].window, []).append(frames)
  # A recording cut in two comes back as two segments with running clocks.
  for frames in recordings:
    for want in frames:
      found = [
        f
        for group in got.values()
        for g in group
        for f in g
        if f.window == want.window
      ]
      assert any(_equal(f, want) for f in found)
  assert sum(len(g) for group in got.values() for g in group) == sum(
    map(len, recordings)
  )


def _equal(got, want):
  try:
    assert_same(got, want)
  except AssertionError:
    return False
  return True


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.lists(recording(), min_size=1, max_size=6))
def test_sequences_obey_the_grammar_and_the_bounds(recordings):
  table = frame_lib.transitions(CONFIG, vocab_size=320)
  for sequence in packing.pack(recordings, config=CONFIG):
    shapes = jax.tree.map(np.shape, packing.empty_sequence(CONFIG))
    assert jax.tree.map(np.shape, sequence) == shapes
    state, targets = frame_lib.State.SAY, sequence.targets
    used = targets.positions < CONFIG.seq_len
    for target, position in zip(
      targets.tokens[used], targets.positions[used], strict=True
    ):
      # Every target is the very next token of the same segment.
      assert sequence.packed.inputs.tokens[position + 1] == target
      segments = sequence.packed.segment_ids
      assert segments[position] == segments[position + 1] > 0
      state = table[state, target]
      assert state != frame_lib.FORBIDDEN
      if state >= frame_lib.State.QUIET:
        state = frame_lib.State.SAY


def test_short_recordings_are_never_cut():
  rng = np.random.default_rng(0)
  quiet = [
    Frame(k, None, levels(rng), frame_lib.no_patches(), ()) for k in range(6)
  ]
  sequences = packing.pack([quiet] * 5, config=CONFIG)
  lengths = [
    len(r) for s in sequences for r in packing.unpack(s, config=CONFIG)
  ]
  assert lengths == [6] * 5


def test_long_recording_continues_with_its_clock():
  rng = np.random.default_rng(0)
  frames = [
    Frame(k, None, levels(rng), frame_lib.no_patches(), ()) for k in range(25)
  ]
  sequences = packing.pack([frames], config=CONFIG)
  windows = [
    f.window
    for s in sequences
    for r in packing.unpack(s, config=CONFIG)
    for f in r
  ]
  assert windows == list(range(25)) and len(sequences) == 3
  assert all(s.packed.positions[0] == 0 for s in sequences)


def test_frame_too_big_for_a_sequence_names_the_limit():
  frame = Frame(7, None, None, np.zeros((8, 2, 40, 40, 3), np.uint8), ())
  with pytest.raises(
    ValueError, match="window 7 needs 8.*max_patches allows 6"
  ):
    packing.pack([[frame]], config=CONFIG)


def _timeline(seed, *, user_end=2.0, text="hello there you"):
  rng = np.random.default_rng(seed)
  user = rng.normal(size=48_000).astype(np.float32) * 0.1
  agent = rng.normal(size=48_000).astype(np.float32) * 0.1
  words = tuple(
    Word(2.0 + 0.3 * i, 2.3 + 0.3 * i, w) for i, w in enumerate(text.split())
  )
  return timeline_lib.Timeline(
    id="t",
    duration=3.0,
    tracks=(
      Track(Role.USER, user, (), (Span(0.5, user_end),), "u"),
      Track(Role.AGENT, agent, words, (Span(2.0, 2.9),), "a"),
    ),
    events=(
      Event(0.25, EventKind.USER_TEXT, "typed text that overflows"),
      Event(1.0, EventKind.CALL, "weather in Rome"),
      Event(1.1, EventKind.NOTE, "never seen"),
    ),
  )


def test_frames_follow_the_clock():
  timeline = _timeline(0)
  frames = framing.frames(timeline, config=CONFIG, tokenizer=ByteTokenizer())
  # Speech sounds in windows 10..14, so it is decided in frames 9..13.
  assert [f.window for f in frames if f.speak] == [9, 10, 11, 12, 13]
  assert [f.window for f in frames if f.own_dmel is not None] == [
    10,
    11,
    12,
    13,
    14,
  ]
  said = [t for f in frames for t in f.say]
  assert bytes(said).decode() == "hellothereyou"
  assert frames[9].say[:1] == (ord("h"),)
  typed = [b for f in frames for b in f.text_in]
  assert typed[0].channel == Control.USER_TEXT
  assert (
    bytes(t for b in typed for t in b.tokens) == b"typed text that overflows"
  )
  assert [b.complete for b in typed] == [False] * (len(typed) - 1) + [True]
  assert all(sum(map(len, f.text_in)) <= CONFIG.max_text_in for f in frames)
  call = [b for f in frames for b in f.text_out]
  assert bytes(t for b in call for t in b.tokens) == b"weather in Rome"
  assert len(frames) >= clock.TICKS.num_windows(timeline.duration)


@pytest.mark.parametrize("ms", [100, 200])
@pytest.mark.parametrize("mute", [False, True])
def test_positions_are_counted_without_sound(ms, mute):
  image = np.zeros((40, 80, 3), np.uint8)
  timeline = dataclasses.replace(
    _timeline(0),
    video=tuple(timeline_lib.VideoFrame(t, image) for t in (0.3, 0.35, 1.4)),
    muted=(Span(0.4, 1.0),) if mute else (),
  )
  config, pieces = _on(ms), ByteTokenizer()
  frames = framing.frames(timeline, config=config, tokenizer=pieces)
  count = framing.count_positions(timeline, config=config, tokenizer=pieces)
  (sequence,) = packing.pack([frames], config=config)
  assert count == framing.length(frames, config=config)
  assert count == int((sequence.packed.segment_ids > 0).sum())


def test_a_word_of_70000_letters_adds_no_minutes(caplog):
  """It would be 12,000 windows of text; the recording has 15."""
  long = dataclasses.replace(_timeline(0, text="hello " + "a" * 70_000))
  frames = framing.frames(long, config=CONFIG, tokenizer=ByteTokenizer())
  limit = clock.TICKS.num_windows(framing.MAX_SILENCE)
  assert len(frames) == 15 + limit
  assert "t: left out text that is not placed 30 s after its end" in caplog.text
  caplog.clear()
  typed = dataclasses.replace(_timeline(0), events=(), tracks=())
  typed = dataclasses.replace(
    typed, events=(Event(2.9, EventKind.USER_TEXT, "typed " * 50),)
  )
  frames = framing.frames(typed, config=CONFIG, tokenizer=ByteTokenizer())
  written = [t for f in frames for b in f.text_in for t in b.tokens]
  assert bytes(written).decode() == "typed " * 50 and not caplog.text


def test_frames_without_say_text():
  silent = dataclasses.replace(CONFIG, say_text=SayText.NONE)
  with_text, without = (
    framing.frames(_timeline(0), config=config, tokenizer=ByteTokenizer())
    for config in (CONFIG, silent)
  )
  assert not any(f.say for f in without)
  # Sound and messages stay; no room was taken from these.
  for a, b in zip(with_text, without, strict=False):
    assert a.speak == b.speak and a.text_in == b.text_in
  calls = [[b for f in run for b in f.text_out] for run in (with_text, without)]
  assert [sum(len(b.tokens) for b in call) for call in calls] == [15, 15]
  table = frame_lib.transitions(silent, vocab_size=364)
  assert (table[frame_lib.State.SAY, :300] == frame_lib.FORBIDDEN).all()
  assert (table[frame_lib.State.BURST, :300] == frame_lib.State.BURST).all()


def _on(ms: int):
  """The config with other windows, and room for them."""
  return dataclasses.replace(
    CONFIG,
    turn_ms=ms,
    seq_len=512,
    max_audio=256,
    max_speak=64,
    max_targets=256,
  )


@pytest.mark.parametrize("ms", [50, 100, 400, 800])
def test_windows_of_other_lengths(ms):
  config, timeline = _on(ms), _timeline(0)
  grid, pieces = clock.of(config), ByteTokenizer()
  frames = framing.frames(timeline, config=config, tokenizer=pieces)
  # Speech from 2.0 to 2.9 s, decided a window ahead.
  sounds = [k for k in range(len(frames)) if 2000 - ms < k * ms < 2900]
  assert [f.window + 1 for f in frames if f.speak] == sounds
  assert [f.window for f in frames if f.own_dmel is not None] == sounds
  said = [t for f in frames for t in f.say]
  assert bytes(said).decode() == "hellothereyou"
  # The same sound as on the grid of ticks, but for rounding.
  on_ticks = framing.frames(timeline, config=CONFIG, tokenizer=pieces)
  heard, want = (
    np.concatenate([f.user_dmel for f in each]).astype(int)[:60]
    for each in (frames, on_ticks)
  )
  assert heard.shape == (60, 80)
  assert (heard != want).mean() < 1e-3 and np.abs(heard - want).max() <= 1
  first, last = sounds[0] * grid.fine_frames, 160
  mel = np.concatenate([f.target_mel for f in frames if f.speak])
  ticks = np.concatenate([f.target_mel for f in on_ticks if f.speak])
  np.testing.assert_allclose(
    mel[last - first : 232 - first], ticks[: 232 - last], atol=1e-4
  )
  packed = packing.pack([frames], config=config)
  assert packed[0].speech.mel.shape[1:] == (grid.fine_frames, 80)
  unpacked = packing.unpack(packed[0], config=config)[0]
  for a, b in zip(frames, unpacked, strict=True):
    assert_same(a, b)


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
  st.sampled_from([100, 200, 400]), st.integers(1, 14), st.integers(0, 99)
)
def test_no_frame_depends_on_a_later_window(ms, k, seed):
  """What changes after window k leaves inputs <= k and decisions < k alone."""
  before, config = _timeline(1), _on(ms)
  k = min(k, 2800 // ms)
  cut = k * clock.of(config).samples
  rng = np.random.default_rng(seed)
  tracks = []
  for track in before.tracks:
    audio = track.audio.copy()
    audio[cut:] = rng.normal(size=len(audio) - cut)
    tracks.append(dataclasses.replace(track, audio=audio))
  after = dataclasses.replace(before, tracks=tuple(tracks))
  a = framing.frames(before, config=config, tokenizer=ByteTokenizer())
  b = framing.frames(after, config=config, tokenizer=ByteTokenizer())
  for x, y in zip(a[:k], b[:k], strict=True):
    # A decision's sound is played in the next window.
    keep = x.window + 1 < k
    assert_same(
      x if keep else dataclasses.replace(x, target_mel=None),
      y if keep else dataclasses.replace(y, target_mel=None),
    )


@hypothesis.given(
  st.lists(
    st.tuples(
      st.sampled_from(frame_lib.CHANNELS_OUT),
      st.lists(st.integers(0, 299), max_size=12),
    ),
    max_size=5,
  ),
  st.integers(3, 9),
)
def test_text_queue_drops_nothing(messages, budget):
  queue = frame_lib.TextQueue()
  for channel, tokens in messages:
    queue.push(channel, tokens)
  got, still_open = [], {}
  for _ in range(100):
    bursts = queue.take(budget)
    assert sum(map(len, bursts)) <= budget
    for b in bursts:
      still_open.setdefault(b.channel, []).extend(b.tokens)
      if b.complete:
        got.append((b.channel, still_open.pop(b.channel)))
  assert not queue and not still_open
  for channel in frame_lib.CHANNELS_OUT:  # in order within a channel
    assert [m for m in got if m[0] == channel] == [
      m for m in messages if m[0] == channel
    ]


@hypothesis.given(st.integers(0, 60), st.integers(0, 60), st.integers(3, 9))
def test_no_channel_holds_up_another(first, second, budget):
  """Of two that wait, each gets a burst before the other gets two."""
  queue = frame_lib.TextQueue()
  queue.push(Control.RESULT, [0] * first)
  queue.push(Control.USER_TEXT, [1] * second)
  order = []
  while queue:
    order += [burst.channel for burst in queue.take(budget)]
  counts = {channel: order.count(channel) for channel in set(order)}
  both = 2 * min(counts.values())
  assert set(order[:both:2]) == {Control.RESULT}
  assert set(order[1:both:2]) == {Control.USER_TEXT}
