"""All scenario families: what holds for each, measured on what is heard."""

import functools
import pickle

import msgpack
import numpy as np
import pytest

from experiments import interaction
from tests.helpers import small_data
from tests.helpers.families import of, onsets
from tml_jax import errors, inspect
from tml_jax.data import corpus, scenarios, splits
from tml_jax.data.corpus import coding
from tml_jax.data.scenarios import family, instructed
from tml_jax.data.splits import Split
from tml_jax.streams import (
  annotation,
  clock,
  framing,
  packing,
  timeline,
  tokenizer,
)
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import EventKind, Role

SHARE = 0.1
DEV_SHARE = 0.2  # where it is opened
COUNT = 8
STREAMS = interaction.get_config("interactive").streams
NEW = [
  name
  for name in scenarios.FAMILIES
  if issubclass(scenarios.FAMILIES[name], instructed.Instructed)
]
SILENT = {Kind.PAUSE, Kind.SILENT_UNTIL}  # the agent says nothing meanwhile
UNANSWERED = {
  Kind.BACKCHANNEL,
  Kind.VOCAL_TIC,
  Kind.SIDE_TALK,
  Kind.BACKGROUND,
}


@pytest.fixture(scope="module", name="voices")
def _voices(data_dir):
  return {
    v: corpus.RecordSource(data_dir / v.replace(":", "-"))
    for v in small_data.VOICES
  }


@pytest.fixture(scope="module", name="open_family")
def _open_family(voices):
  @functools.cache
  def open_family(name, split=Split.TRAIN, *, share=SHARE):
    return scenarios.FAMILIES[name](
      voices,
      split=split,
      seed=0,
      heldout_share=share,
      dev_share=DEV_SHARE if split == Split.DEV else 0.0,
      length=10**6,
      video_size=family.VideoSize(STREAMS.video_height, STREAMS.video_width),
    )

  return open_family


@pytest.fixture(scope="module", name="items_of")
def _items_of(open_family):
  @functools.cache
  def items(name, split=Split.TRAIN, *, count=COUNT):
    return [open_family(name, split)[i] for i in range(count)]

  return items


def window(seconds: float) -> int:
  return round(seconds / clock.TICKS.seconds)


def speaking(item, role=Role.AGENT) -> np.ndarray:
  """[windows] bool, from the audio."""
  audio = item.track(role).audio.reshape(-1, clock.TICKS.samples)
  return np.abs(audio).max(axis=1) > 1e-3


@pytest.mark.parametrize("name", scenarios.FAMILIES)
def test_items_are_valid_and_depend_on_their_index(name, open_family, items_of):
  source = open_family(name)
  again = pickle.loads(pickle.dumps(source))
  for i, item in enumerate(items_of(name)):
    timeline.validate(item)
    assert source.duration[0] <= item.duration <= source.duration[1]
    assert coding.encode(again[i]) == coding.encode(item)
    assert msgpack.unpackb(msgpack.packb(item.metadata)) == (item.metadata)
    for track in item.tracks:
      spans = track.spans
      assert all(
        a.end <= b.start + 1e-6
        for a, b in zip(spans[:-1], spans[1:], strict=True)
      )
  assert (
    len({b"".join(coding.encode(item)) for item in items_of(name)}) == COUNT
  )


@pytest.mark.parametrize("name", scenarios.FAMILIES)
def test_annotations_lie_in_the_recording(name, items_of):
  for item in items_of(name):
    found = annotation.of(item)
    assert found
    for a in found:
      assert a.end <= item.duration + 1e-6
      assert a.due is None or 0 <= a.due < item.duration
      assert a.until is None or a.until >= (a.due or a.end)
      assert (a.due is None) == (a.text == "")
      assert a.kind not in UNANSWERED | {Kind.PAUSE} or a.due is None


@pytest.mark.parametrize("name", scenarios.FAMILIES)
def test_the_agent_speaks_where_annotations_say(name, items_of):
  for item in items_of(name):
    asked = sorted(
      (a for a in annotation.of(item) if a.due is not None),
      key=lambda a: a.due,
    )
    said = [w.text for w in item.track(Role.AGENT).words]
    assert " ".join(said) == " ".join(a.text for a in asked)
    due = {window(a.due) for a in asked}
    heard = onsets(item)
    assert all(speaking(item)[w] for w in due)
    if name == "follow":
      assert heard[0] in due
    elif name == "activity":
      assert set(heard) == due | {window(a.end) + 1 for a in asked}
    else:
      assert set(heard) == due
    for a in of(item, *SILENT):
      between = slice(
        clock.TICKS.num_windows(a.start), clock.TICKS.window_of(a.end) + 1
      )
      assert not speaking(item)[between].any()
    assert not of(item, *UNANSWERED) or speaking(item).any()


@pytest.mark.parametrize("name", scenarios.FAMILIES)
def test_a_reply_comes_a_window_of_silence_after_the_turn(name, items_of):
  for item in items_of(name):
    for a in of(item, Kind.TURN):
      if a.end > a.start:  # spoken
        last = (round(a.end * clock.SAMPLE_RATE) - 1) // clock.TICKS.samples
        assert window(a.due) == last + 2


@pytest.mark.parametrize("name", scenarios.FAMILIES)
def test_a_recording_fits_one_sequence(name, items_of, data_dir):
  pieces = tokenizer.load(tokenizer.path(data_dir), config=STREAMS)
  for item in items_of(name)[:4]:
    frames = framing.frames(item, config=STREAMS, tokenizer=pieces)
    packed = packing.pack([frames], config=STREAMS)
    assert len(packed) == 1
    assert packed[0].packed.segment_ids.max() == 1


@pytest.mark.parametrize("name", scenarios.FAMILIES)
def test_splits_share_nothing_that_is_asked(name, items_of):
  for split in Split:
    assert any(item.metadata["asked"] for item in items_of(name, split))
    for item in items_of(name, split):
      for asked in item.metadata["asked"]:
        dev = DEV_SHARE if split == Split.DEV else 0.0
        assert splits.contains(split, asked, share=SHARE, dev=dev)
        assert asked not in scenarios.FAMILIES[name].words


@pytest.mark.parametrize("name", ["barge_in", "correction"])
def test_the_agent_gives_way(name, items_of):
  found = 0
  for item in items_of(name):
    for a in of(item, Kind.BARGE_IN):
      begun, active = clock.TICKS.window_of(a.start), speaking(item)
      (turn,) = [t for t in of(item, Kind.TURN) if t.start == a.start]
      silent = slice(begun + 3, window(turn.due))
      assert active[begun : begun + 2].all() and not active[silent].any()
      found += 1
  assert found >= COUNT // 2


def test_the_agent_goes_on_under_backchannels(items_of):
  kinds = set()
  for item in items_of("backchannel"):
    (turn,) = of(item, Kind.TURN)
    for a in of(item, *UNANSWERED):
      begin = clock.TICKS.window_of(a.start)
      if a.start > turn.due:  # it does not give way within a second
        until = max(begin + 6, clock.TICKS.num_windows(a.end) + 1)
        assert speaking(item)[begin:until].all()
      else:  # it does not answer within two
        assert not speaking(item)[
          begin : clock.TICKS.num_windows(a.end) + 10
        ].any()
      kinds.add(a.kind)
  assert kinds == {Kind.BACKCHANNEL, Kind.VOCAL_TIC}


def test_side_talk_is_lower_and_never_over_the_user(items_of):
  for item in items_of("side_talk"):
    for a in of(item, *UNANSWERED):
      heard = window(a.start), clock.TICKS.num_windows(a.end)
      assert not any(heard[0] < w < heard[1] + 10 for w in onsets(item))
      if speaking(item)[heard[0]]:
        assert speaking(item)[heard[0] : heard[0] + 6].all()
    beside = item.track(Role.ENVIRONMENT)
    spans = item.track(Role.USER).spans
    for s in beside.spans:
      assert all(s.end <= u.start or s.start >= u.end for u in spans)
      part = beside.audio[round(s.start * 16_000) : round(s.end * 16_000)]
      level = 10 * np.log10(np.mean(part**2))
      assert -44 < level < -32  # 12 to 18 dB under -23, and a margin


def test_reminders_come_every_so_many_seconds(items_of):
  for item in items_of("reminder"):
    dues = [a.due for a in of(item, Kind.TIMED)]
    names = [w.text for w in item.track(Role.USER).words][1]
    seconds = ["three", "four", "five"].index(names) + 3
    assert np.allclose(np.diff(dues), seconds) and len(dues) >= 2
    (goodbye,) = of(item, Kind.TURN)
    assert goodbye.text == "goodbye"
    assert dues[-1] < goodbye.start and goodbye.due < dues[-1] + seconds
    assert item.duration > goodbye.due + seconds
    end = of(item, Kind.TIMED)[0].end
    assert seconds <= dues[0] - end <= seconds + clock.TICKS.seconds


def test_elapsed_time_is_between_the_two_words(items_of):
  names = "three four five six seven eight nine".split()
  for item in items_of("elapsed"):
    words = item.track(Role.USER).words
    marks = [w.end for w in words if w.text == "new"]
    for a, mark in zip(of(item, Kind.TURN), marks, strict=True):
      said, unit = a.text.split()
      assert unit == "seconds"
      assert abs(a.end - mark - (names.index(said) + 3)) < 0.3


def test_cues_are_answered_over_the_user(items_of):
  for item in items_of("cue"):
    words = item.track(Role.USER).words
    assert words[0].text == "urgent"
    for a in of(item, Kind.CUE):
      assert a.text.split()[0] == words[1].text
      assert 0.2 <= a.due - a.end <= 0.4 + 1e-6
      first = window(a.due)
      both = speaking(item)[first : first + 2]
      user = framing.speech_windows(item.track(Role.USER), grid=clock.TICKS)
      assert both[0] and {first, first + 1} & set(user)
    said = " ".join(w.text for w in words[1:])
    cue = of(item, Kind.CUE)[0].text
    assert said.count(cue) == len(of(item, Kind.CUE)) + 1


def test_following_is_two_to_four_windows_behind(items_of):
  for item in items_of("follow"):
    user = item.track(Role.USER).words[1:]
    agent = item.track(Role.AGENT).words
    assert [w.text for w in user] == [w.text for w in agent]
    for heard, said in zip(user, agent, strict=True):
      assert 0.2 <= said.start - heard.end <= 0.9


def test_the_count_is_what_the_video_shows(items_of):
  """An observer of the pixels alone, window by window."""
  for item in items_of("count"):
    images = [frame.image for frame in item.video]
    rest, returns = images[0], []
    for k in range(1, len(images)):
      here = (images[k] == rest).all()
      if here and not (images[k - 1] == rest).all():
        returns.append(k)
    assert [window(a.end) for a in of(item, Kind.REPETITION)] == returns
    assert [window(a.due) for a in of(item, Kind.REPETITION)] == [
      k + 1 for k in returns
    ]
    assert [clock.TICKS.window_of(f.time) for f in item.video] == list(
      range(len(images))
    )


def test_activity_is_what_the_video_shows(items_of):
  for item in items_of("activity"):
    images = [frame.image for frame in item.video]
    moving = [
      k for k in range(1, len(images)) if (images[k] != images[k - 1]).any()
    ]
    expected = [
      k
      for a in of(item, Kind.ACTIVITY)
      for k in range(window(a.start), window(a.end))
    ]
    assert moving == expected


def test_silence_ends_with_a_tone_or_a_square(items_of):
  ways = set()
  for item in items_of("silent_until"):
    (a,) = of(item, Kind.SILENT_UNTIL)
    if item.video:
      colours = [
        len(np.unique(f.image.reshape(-1, 3), axis=0)) for f in item.video
      ]
      assert colours.index(2) == window(a.end) == window(a.due) - 1
      assert set(colours[: window(a.end)]) == {1}
    else:
      (tone,) = item.track(Role.ENVIRONMENT).spans
      assert tone.start == pytest.approx(a.end, abs=1e-3)
      assert window(a.due) == (clock.TICKS.num_windows(tone.end) - 1) + 2
    ways.add(bool(item.video))
  assert ways == {True, False}


def test_typed_text_is_said(items_of):
  alone = 0
  for item in items_of("typed"):
    said = " ".join(w.text for w in item.track(Role.AGENT).words)
    for event in item.events:
      assert event.kind == EventKind.USER_TEXT and event.text in said
    for a in of(item, Kind.TURN):
      if a.start == a.end:
        alone += 1
        assert window(a.due) == clock.TICKS.window_of(a.start) + 3
  assert alone


def test_a_word_that_is_held_out_or_missing_is_refused(
  open_family, voices, caplog
):
  with pytest.raises(errors.UserError, match="holds out .* lower it"):
    open_family("barge_in", share=0.6)

  class Mute(list):
    __hash__ = object.__hash__

  spoken = voices[small_data.VOICES[0]]
  mute = Mute(
    item
    for item in (spoken[i] for i in range(len(spoken)))
    if item.metadata["prompt"] != instructed.CUE
  )
  with pytest.raises(errors.UserError, match="lacks the prompts vm-Urgent"):
    scenarios.FAMILIES["cue"](
      {"mute": mute},
      split=Split.TRAIN,
      seed=0,
      heldout_share=SHARE,
      length=10,
      video_size=family.VideoSize(40, 40),
    )
  # With two others it is left out, and said.
  cue = scenarios.FAMILIES["cue"](
    {"mute": mute} | {name: voices[name] for name in small_data.VOICES},
    split=Split.TRAIN,
    seed=0,
    heldout_share=SHARE,
    length=10,
    video_size=family.VideoSize(40, 40),
  )
  assert sorted(cue._banks) == sorted(small_data.VOICES)
  assert "left out of scenario 'cue': voice mute" in caplog.text


@pytest.mark.slow
def test_the_gallery_shows_every_family_of_the_mixture(data_dir, tmp_path):
  config = small_data.config(mixture=("count:1.0", "typed:0.5"))
  given = {
    "data_dir": data_dir,
    "tokenizer_file": tokenizer.path(str(data_dir)),
    "out": tmp_path,
  }
  inspect.draw_gallery(config, **given)
  page = (tmp_path / "gallery.html").read_text(encoding="utf-8")
  for name, words in (("count", "swing"), ("typed", "in silence")):
    assert words in page and f"src='{name}.png'" in page
  images = {path.name for path in tmp_path.glob("*.png")}
  assert images == {"count.png", "typed.png", "gallery.png"}
  config = small_data.config(mixture=("calls:1.0",))
  with pytest.raises(errors.UserError, match="has no scenario family"):
    inspect.draw_gallery(config, **given)
