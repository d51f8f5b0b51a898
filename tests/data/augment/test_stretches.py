"""A stretch of a long recording is changed as the whole is, bit for bit."""

import dataclasses

import numpy as np
import pytest

from tests.helpers import augmenting, recorded
from tml_jax.data import corpus, mixture, subset
from tml_jax.data.augment import TRANSFORMS, chain, transform
from tml_jax.data.splits import Split
from tml_jax.streams import clock, framing, tokenizer

SECONDS = 141.3
STRETCH = 40.0
CHAINS = [
  ("gain:1",),
  ("swap:1",),
  ("cut:1",),
  ("lost:1", "late:1"),
  ("echo:1",),
  ("noise:1",),
  ("room:1",),
  ("microphone:1",),
  ("band:1",),
  ("g711:1",),
  # A level is measured behind other transforms, each with its reach.
  ("swap:1", "gain:1", "echo:1", "room:1", "noise:1:snr=5", "noise:1:snr=9"),
  ("noise:1", "g711:1", "opus:1", "lost:1"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp("long")
  items = [
    augmenting.call(name="long", seconds=SECONDS),
    augmenting.call(name="short", seconds=9.0),
  ]
  recorded.write(path, **{"a-calls": items})
  return path


def config(*augment, **data):
  fields = dict(stretch_seconds=STRETCH, past_seconds=9.8) | data
  return recorded.config("a-calls:1", augment=augment, **fields)


def augmented(root, settings, *, margin=None):
  """What gives a whole, and what gives the stretches of a recording."""
  grid = clock.of(settings.streams)
  steps = mixture.transforms(settings)
  margin = chain.reach(steps) if margin is None else margin
  cut = subset.Cut(
    windows=round(settings.data.stretch_seconds / grid.seconds),
    past=mixture.past_windows(settings),
    grid=grid,
    margin=margin,
  )
  found = []
  for each in (None, cut):
    elements = subset.Subset(
      corpus.RecordSource(root / "a-calls"),
      split=Split.TRAIN,
      share=1e-9,
      cut=each,
    )
    found.append(
      chain.Augmented(elements, steps=steps, entry="a", seed=1, grid=grid)
    )
  return *found, elements


def differences(root, settings, *, margin=None):
  """Samples of all stretches that are not those of the whole."""
  whole, cut, elements = augmented(root, settings, margin=margin)
  expected, count, compared = whole(0, 0), 0, 0
  assert expected.metadata["augment"]
  for number in range(len(elements)):
    # Places of one epoch.
    item = cut(number, number)
    if not isinstance(item, framing.Excerpt):
      continue
    found = item.timeline
    first, stop = item.stretch.seconds(clock.of(settings.streams))
    span = slice(
      round(first * clock.SAMPLE_RATE),
      round(min(stop, SECONDS) * clock.SAMPLE_RATE),
    )
    for a, b in zip(expected.tracks, found.tracks, strict=True):
      assert (a.role, a.words, a.spans) == (b.role, b.words, b.spans)
      assert len(a.audio) == len(b.audio)
      count += int((a.audio[span] != b.audio[span]).sum())
      compared += len(a.audio[span])
    assert (expected.events, expected.muted) == (found.events, found.muted)
    assert expected.metadata == found.metadata
  assert compared > 2 * SECONDS * clock.SAMPLE_RATE
  return count


@pytest.mark.slow
@pytest.mark.parametrize("augment", CHAINS, ids="+".join)
def test_a_stretch_is_changed_as_the_whole_is(root, augment):
  assert differences(root, config(*augment)) == 0


@pytest.mark.parametrize(
  ("augment", "stretch"), [("room:1", 40.0), ("band:1", 29.8)]
)
def test_without_its_reach_it_would_not_be(root, augment, stretch):
  """The test above would see it: stretches begin or end with a chunk."""
  settings = config(augment, stretch_seconds=stretch)
  assert differences(root, settings, margin=0.0) > 0
  assert differences(root, settings) == 0


def test_every_transform_is_tried_or_takes_wholes(root):
  tried = {entry.partition(":")[0] for each in CHAINS for entry in each}
  wholes = {
    name
    for name in TRANSFORMS
    if TRANSFORMS[name].takes is transform.Takes.WHOLE
  }
  assert tried | wholes == {*TRANSFORMS} and wholes == {"speed"}


def test_speed_leaves_stretches_as_they_are_and_counts_them(root, caplog):
  caplog.set_level("INFO")
  _, cut, elements = augmented(root, config("speed:1:factor=0.9"))
  items = [cut(number, number) for number in range(len(elements))]
  for item in items:
    if isinstance(item, framing.Excerpt):
      assert item.timeline.duration == SECONDS
      assert "augment" not in item.timeline.metadata
    else:
      assert item.duration == pytest.approx(9.0 / 0.9)
  assert "speed left 4 recordings as they are" in caplog.text
  assert "a stretch of a long recording" in caplog.text


def test_memory_is_that_of_a_stretch(root):
  """Outside of what was asked for there is nothing, not even noise."""
  settings = config("noise:1", "gain:1", "room:1")
  _, cut, elements = augmented(root, settings)
  reach = chain.reach(mixture.transforms(settings))
  checked = 0
  for number in range(len(elements)):
    item = cut(number, number)
    if isinstance(item, framing.Excerpt):
      first, stop = item.stretch.seconds(clock.of(settings.streams))
      for track in item.timeline.tracks:
        begin = max(0, round((first - reach) * clock.SAMPLE_RATE))
        end = round(min(stop + reach, SECONDS) * clock.SAMPLE_RATE)
        assert not track.audio[:begin].any() and not track.audio[end:].any()
        checked += 1
  assert checked == 8


def test_a_long_recording_is_measured_in_four_chunks():
  item = augmenting.call(seconds=300.0)
  places = transform.places(item)
  assert len(places) == 4
  assert all(p.end - p.start == corpus.CHUNK_SECONDS for p in places)
  assert transform.places(augmenting.apply("swap", item)) == places
  short = augmenting.call(seconds=119.0)
  assert [(p.start, p.end) for p in transform.places(short)] == [(0, 119)]


def test_places_are_where_both_speak():
  item = augmenting.call(seconds=300.0)
  user, agent = item.tracks
  late = tuple(s for s in user.spans if s.start > 190)
  tracks = (dataclasses.replace(user, spans=late), agent)
  item = dataclasses.replace(item, tracks=tracks)
  assert min(p.start for p in transform.places(item)) >= 180


def test_stretches_join_to_frames_of_the_augmented_whole(root):
  """Through the framing, as the loader does it."""
  settings = config("noise:1:snr=3..9", "room:1", "cut:1", "lost:1")
  streams = settings.streams
  pieces = tokenizer.load(tokenizer.path(root), config=streams)
  whole, cut, elements = augmented(root, settings)
  joined = {}
  for number in range(len(elements)):
    item = cut(number, number)
    if isinstance(item, framing.Excerpt):
      for frame in framing.frames(
        item.timeline, config=streams, tokenizer=pieces, stretch=item.stretch
      ):
        if not frame.is_past:
          joined[frame.window] = frame
  expected = framing.frames(whole(0, 0), config=streams, tokenizer=pieces)
  assert [*joined] == [frame.window for frame in expected]
  for a, b in zip(joined.values(), expected, strict=True):
    assert (a.say, a.speak) == (b.say, b.speak)
    for name in ("own_dmel", "user_dmel", "target_mel"):
      x, y = getattr(a, name), getattr(b, name)
      assert (x is None) == (y is None)
      if x is not None:
        np.testing.assert_array_equal(x, y)


def test_splits_that_are_not_trained_on_stay_as_they_are(root):
  fields = {"heldout_share": 0.7}
  for split, name in ((Split.TRAIN, "long"), (Split.HELDOUT, "short")):
    found, plain = (
      mixture.open_mixture(each, data_dir=root, split=split).items[0]
      for each in (config("gain:1:db=-20", **fields), config(**fields))
    )
    assert found.id == plain.id == name
    assert augmenting.same(found, plain) == (split == Split.HELDOUT)
