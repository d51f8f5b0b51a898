"""What holds for every transform."""

import copy

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.helpers import augmenting
from tml_jax import errors
from tml_jax.data.augment import TRANSFORMS, transform
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import Role, Timeline

NAMES = list(TRANSFORMS)
# What a transform may change besides sound; all else stays.
CHANGES = {
  "swap": {"roles", "events"},
  "speed": {"words", "spans", "events", "video", "muted", "duration"},
  "cut": {"words", "spans"},
  "lost": {"muted"},
  "late": {"muted"},
}
SILENT = {"swap", "lost", "late"}  # these change no sound


def parts(timeline):
  return {
    "id": timeline.id,
    "duration": timeline.duration,
    "roles": [t.role for t in timeline.tracks],
    "voices": [t.voice for t in timeline.tracks],
    "words": [t.words for t in timeline.tracks],
    "spans": [t.spans for t in timeline.tracks],
    "video": [(f.time, f.image.tobytes()) for f in timeline.video],
    "events": timeline.events,
    "muted": timeline.muted,
    "metadata": timeline.metadata,
  }


def test_the_list_is_what_is_documented():
  assert NAMES == sorted(NAMES) and len(NAMES) == 13


@pytest.mark.parametrize("name", NAMES)
@hypothesis.settings(deadline=None, max_examples=5)
@hypothesis.given(
  seed=st.integers(0, 2**31), seconds=st.floats(9.0, 14.0), plain=st.booleans()
)
def test_a_transform_is_pure_and_leaves_a_valid_recording(
  name, seed, seconds, plain
):
  make = augmenting.call if plain else augmenting.rich
  item = make(seconds=round(seconds, 3))
  kept = copy.deepcopy(item)
  try:
    found = augmenting.apply(name, item, seed=seed)
    again = augmenting.apply(name, item, seed=seed)
  except transform.NotFor:
    assert name == "swap" and not plain
    return
  assert augmenting.same(item, kept), "the given recording was written to"
  assert augmenting.same(found, again)
  timeline_lib.validate(found)
  before, after = parts(item), parts(found)
  changed = {key for key in before if before[key] != after[key]}
  assert changed <= CHANGES.get(name, set())
  if name in SILENT:
    for a, b in zip(item.tracks, found.tracks, strict=True):
      np.testing.assert_array_equal(a.audio, b.audio)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_differ(name):
  item = augmenting.call(seconds=14.0)
  found = [augmenting.apply(name, item, seed=seed) for seed in range(6)]
  is_same = [augmenting.same(found[0], other) for other in found[1:]]
  assert all(is_same) == (name in ("swap", "band"))  # nothing is drawn


@pytest.mark.parametrize("name", NAMES)
def test_whose_sound_is_changed(name):
  item = augmenting.call(seconds=14.0)
  found = augmenting.apply(name, item)
  for role in (Role.USER, Role.AGENT):
    is_same = np.array_equal(item.track(role).audio, found.track(role).audio)
    both, agents = (
      ("gain", "speed", "swap"),
      (*("gain", "speed"), "cut", "swap"),
    )
    users = {*NAMES} - SILENT - {"cut"} | {*both}
    assert is_same != (name in (users if role == Role.USER else agents)), role


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_of_nothing_is_left_or_valid(name):
  item = Timeline(id="empty", duration=0.4, tracks=())
  try:
    found = augmenting.apply(name, item)
  except transform.NotFor:
    return
  timeline_lib.validate(found)
  assert found.tracks == ()


@pytest.mark.parametrize("name", NAMES)
def test_options_that_cannot_be_are_refused(name):
  with pytest.raises(errors.UserError, match="has no option 'nonsense'"):
    augmenting.made(name, nonsense=1)
  for option, default in TRANSFORMS[name].OPTIONS.items():
    if option == "folder":
      continue
    for value in ("loud", "9e9", "3..1", "nan"):
      with pytest.raises(errors.UserError, match=f"{option}='{value}'"):
        augmenting.made(name, **{option: value})
    augmenting.made(name, **{option: default})
