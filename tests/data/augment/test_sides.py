"""Roles that change, turns that are cut, windows that are absent."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.helpers import augmenting, small_data, sound
from tml_jax.data.augment import transform
from tml_jax.streams import clock, framing, microphone, tokenizer
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  VideoFrame,
  Word,
)

RATE = sound.RATE


@pytest.fixture(scope="module")
def tokenizer_of_calls(tmp_path_factory):
  path = tokenizer.path(tmp_path_factory.mktemp("pieces"))
  config = small_data.config().streams
  tokenizer.train(["yes", "no"], path=path, config=config)
  return tokenizer.load(path, config=config)


def test_swapped_roles_take_everything_with_them():
  item = augmenting.call(
    events=(
      Event(1.0, EventKind.USER_TEXT, "typed"),
      Event(2.0, EventKind.SHOW, "shown"),
      Event(3.0, EventKind.NOTE, "noted"),
    )
  )
  found = augmenting.apply("swap", item)
  for role, other in ((Role.USER, Role.AGENT), (Role.AGENT, Role.USER)):
    for field in ("audio", "words", "spans", "voice"):
      old, new = (
        getattr(item.track(role), field),
        getattr(found.track(other), field),
      )
      assert new is old
  assert [(e.time, e.kind, e.text) for e in found.events] == [
    (1.0, EventKind.SHOW, "typed"),
    (2.0, EventKind.USER_TEXT, "shown"),
    (3.0, EventKind.NOTE, "noted"),
  ]
  assert augmenting.same(augmenting.apply("swap", found), item)


def _image():
  return np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(
  ("changes", "why"),
  [
    ({"metadata": {"kind": "speech_text"}}, "no conversation"),
    ({"metadata": {}}, "no conversation"),
    ({"video": (VideoFrame(0.0, _image()),)}, "video"),
    ({"muted": (Span(1.0, 2.0),)}, "a microphone that is off"),
    ({"events": (Event(1.0, EventKind.RESULT, "x"),)}, "kind result"),
    ({"events": (Event(1.0, EventKind.CALL, "x"),)}, "kind call"),
    ({"tracks": ()}, "tracks of nobody"),
    (
      {"metadata": augmenting.CONVERSATION | {"annotations": [{}]}},
      "annotations",
    ),
  ],
)
def test_what_belongs_to_one_role_is_not_swapped(changes, why):
  item = dataclasses.replace(augmenting.call(), **changes)
  with pytest.raises(transform.NotFor, match=why):
    augmenting.apply("swap", item)


def test_an_environment_is_not_swapped():
  item = augmenting.call()
  room = augmenting.track(Role.ENVIRONMENT, spans=[(0, 1)], seconds=2.0)
  item = dataclasses.replace(item, tracks=(*item.tracks, room))
  with pytest.raises(transform.NotFor, match="tracks of agent, environment"):
    augmenting.apply("swap", item)


def overlap(*, begin, end, pause=None):
  """The agent speaks from 1 to 5 s, the user from `begin` to `end`."""
  agent = [(1.0, 5.0)] if pause is None else [(1.0, pause), (pause + 0.7, 5.0)]
  tracks = (
    augmenting.track(Role.USER, spans=[(begin, end)], seconds=9.0),
    augmenting.track(Role.AGENT, spans=[*agent, (7.0, 8.0)], seconds=9.0),
  )
  return Timeline(id="o", duration=9.0, tracks=tracks)


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
  begin=st.floats(1.6, 3.9),
  lasts=st.floats(1.05, 3.0),
  after=st.floats(0.0, 1.0),
  seed=st.integers(0, 99),
)
def test_an_interrupted_agent_ends_soon(begin, lasts, after, seed):
  item = overlap(begin=begin, end=begin + lasts)
  after = round(after, 3)
  found = augmenting.apply("cut", item, seed=seed, after=after)
  user, agent = found.track(Role.USER), found.track(Role.AGENT)
  assert user is item.track(Role.USER)  # the interruption is where it was
  at, before = begin + after, item.track(Role.AGENT)
  assert agent.spans == (Span(1.0, at), Span(7.0, 8.0))
  sample = round(at * RATE)
  fade = RATE // 100
  assert not agent.audio[sample : 5 * RATE].any()
  rest = np.ones(len(agent.audio), bool)
  rest[sample - fade : 5 * RATE] = False
  np.testing.assert_array_equal(agent.audio[rest], before.audio[rest])
  assert (np.abs(agent.audio) <= np.abs(before.audio)).all()
  words = [w for w in before.words if w.start < at or w.start >= 7.0]
  assert [w.start for w in agent.words] == [w.start for w in words]
  for word, old in zip(agent.words, words, strict=True):
    is_whole = old.end <= at or old.start >= 7.0
    assert word == (old if is_whole else Word(old.start, at, old.text))


@pytest.mark.parametrize(
  "item",
  [
    overlap(begin=2.0, end=2.6),  # a backchannel
    overlap(begin=1.2, end=3.0),  # both begin
    overlap(begin=4.9, end=6.0),  # the agent is ending anyway
    overlap(begin=2.0, end=3.05, pause=2.4),  # what is left has been cut off
    overlap(begin=5.5, end=6.6),  # no overlap
  ],
)
def test_what_is_no_interruption_cuts_nothing(item):
  with pytest.raises(transform.NotFor, match="no interruption"):
    augmenting.apply("cut", item, after=0.5)


def test_an_agent_is_not_left_silent_for_long():
  item = overlap(begin=1.6, end=2.7)
  with pytest.raises(transform.NotFor):
    augmenting.apply("cut", item, after=0.2, rest=1)
  found = augmenting.apply("cut", item, after=0.2, rest=2.5)
  assert found.track(Role.AGENT).spans[0].end == 1.6 + 0.2


@pytest.mark.parametrize("ms", [200, 400])
@pytest.mark.parametrize(
  ("name", "options", "low", "high"),
  [
    ("lost", {"rate": 0.1}, 0.05, 0.16),
    ("late", {"rate": 6, "stall": 0.8}, 0.03, 0.16),
    ("lost", {"rate": 0}, 0, 0),
    ("lost", {"rate": 1}, 1, 1),
    ("late", {"rate": 0}, 0, 0),
  ],
)
def test_absent_windows_are_absent_and_the_clock_runs_on(
  name, options, low, high, ms
):
  grid = clock.Grid(ms)
  item = augmenting.call(seconds=120.0)
  found = augmenting.apply(name, item, grid=grid, **options)
  count = grid.num_windows(item.duration)
  gone = framing._windows(found.muted, grid=grid)
  assert low <= len(gone) / count <= high
  # Whole windows, and none beside them.
  for span in found.muted:
    for edge in (span.start, span.end):
      assert abs(edge / grid.seconds - round(edge / grid.seconds)) < 1e-6
  np.testing.assert_array_equal(
    microphone.hear(found, grid=grid), microphone.hear(item, grid=grid)
  )
  if name == "late" and gone:
    runs = np.split(gone, np.flatnonzero(np.diff(gone) > 1) + 1)
    at_end = runs[-1][-1] == count - 1
    assert all(len(r) >= 0.8 / grid.seconds for r in runs[: -1 or None])
    assert at_end or len(runs[-1]) >= 0.8 / grid.seconds


def test_frames_of_absent_windows_have_no_sound(tokenizer_of_calls):
  config = small_data.config().streams
  item = augmenting.call(muted=(Span(3.05, 3.1),))
  found = augmenting.apply("lost", item, rate=0.3)
  frames = framing.frames(found, config=config, tokenizer=tokenizer_of_calls)
  before = framing.frames(item, config=config, tokenizer=tokenizer_of_calls)
  gone = {*framing._windows(found.muted, grid=clock.of(config))}
  assert 15 in gone and 5 < len(gone) < 40
  for frame, old in zip(frames, before, strict=True):
    assert (frame.user_dmel is None) == (frame.window in gone)
    assert (frame.say, frame.speak) == (old.say, old.speak)
    if frame.user_dmel is not None:
      np.testing.assert_array_equal(frame.user_dmel, old.user_dmel)


def test_speed_moves_everything_by_one_factor():
  item = augmenting.rich()
  found = augmenting.apply("speed", item, factor=0.8)
  assert found.duration == item.duration / 0.8
  for a, b in zip(item.tracks, found.tracks, strict=True):
    assert len(b.audio) == round(len(a.audio) / 0.8)
    for old, new in zip(
      [*a.words, *a.spans], [*b.words, *b.spans], strict=True
    ):
      assert (new.start, new.end) == (old.start / 0.8, old.end / 0.8)
  for field in ("video", "events"):
    assert [x.time for x in getattr(found, field)] == [
      x.time / 0.8 for x in getattr(item, field)
    ]
  assert found.muted == (Span(5.0 / 0.8, 5.4 / 0.8),)


def test_speed_sounds_higher_by_the_factor():
  times = np.arange(4 * RATE) / RATE
  tone = (0.5 * np.sin(2 * np.pi * 1000 * times)).astype(np.float32)
  item = augmenting.call(seconds=4.5)
  user = dataclasses.replace(item.tracks[0], audio=tone, words=(), spans=())
  item = dataclasses.replace(item, tracks=(user,))
  for factor in (0.8, 1.1, 1.25):
    found = augmenting.apply("speed", item, factor=factor).tracks[0].audio
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found))))
    frequency = spectrum.argmax() * RATE / len(found)
    assert abs(frequency - 1000 * factor) < 0.5
    assert abs(np.abs(found[RATE:-RATE]).max() - 0.5) < 0.01


def test_annotated_recordings_keep_their_speed():
  item = dataclasses.replace(augmenting.call(), metadata={"annotations": [{}]})
  with pytest.raises(transform.NotFor, match="annotations"):
    augmenting.apply("speed", item, factor=0.9)
