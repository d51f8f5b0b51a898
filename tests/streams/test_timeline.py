"""Validation, the clock and the tokenizer."""

import dataclasses

import hypothesis
import numpy as np
import pytest
import sentencepiece
from hypothesis import strategies as st

from tests.helpers import frames as small_frames
from tml_jax import errors
from tml_jax.streams import clock, patches, sentencepieces, tokenizer
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import (
  Role,
  Span,
  Timeline,
  Track,
  VideoFrame,
  Word,
)


def _timeline():
  rng = np.random.default_rng(0)
  audio = rng.uniform(-1, 1, 3200).astype(np.float32)
  image = rng.integers(0, 256, (40, 80, 3)).astype(np.uint8)
  return Timeline(
    id="x",
    duration=0.5,
    tracks=(
      Track(Role.USER, audio, (Word(0, 0.1, "hé"),), (Span(0, 0.1),), "v"),
    ),
    video=(VideoFrame(0.2, image),),
    events=(timeline_lib.Event(0.1, timeline_lib.EventKind.CALL, "x"),),
    metadata={"a": [1, {"b": "c"}]},
    muted=(Span(0.2, 0.4),),
  )


def test_validate_names_field_and_value():
  good = _timeline()
  timeline_lib.validate(good)
  track = good.tracks[0]
  stereo = dataclasses.replace(track, audio=np.zeros((2, 100), np.float32))
  broken = {
    "duration": dataclasses.replace(good, duration=0.0),
    r"\(2, 100\)": dataclasses.replace(good, tracks=(stereo,)),
    "more than": dataclasses.replace(good, duration=0.1, muted=()),
    "finite": dataclasses.replace(
      good,
      tracks=(
        dataclasses.replace(track, audio=np.full(9, np.nan, np.float32)),
      ),
    ),
  }
  for message, timeline in broken.items():
    with pytest.raises(ValueError, match=message):
      timeline_lib.validate(timeline)


@pytest.mark.parametrize(
  "start, end", [(-0.1, 0.1), (0.3, 0.2), (0.1, 9.0), (float("nan"), 0.1)]
)
def test_validate_refuses_times_outside_the_recording(start, end):
  good = _timeline()
  track = good.tracks[0]
  word = dataclasses.replace(track, words=(Word(start, end, "a"),))
  span = dataclasses.replace(track, spans=(Span(start, end),))
  when = end if start == 0.1 else start
  event = dataclasses.replace(good.events[0], time=when)
  cases = [
    ("user word", dataclasses.replace(good, tracks=(word,))),
    ("user span", dataclasses.replace(good, tracks=(span,))),
  ]
  if not 0 <= when <= good.duration:
    cases.append(("event", dataclasses.replace(good, events=(event,))))
  for what, timeline in cases:
    with pytest.raises(ValueError, match=f"{what} from .* lasts 0.5 s"):
      timeline_lib.validate(timeline)


@pytest.mark.parametrize(
  "text, message",
  [
    (None, "is None and no text"),
    (3, "is 3 and no text"),
    (b"a", "is b'a' and no text"),
    ("a\ud800", r"has half of a character, '\\ud800'"),
  ],
)
def test_validate_refuses_what_is_no_text(text, message):
  good = _timeline()
  track = good.tracks[0]
  word = dataclasses.replace(track, words=(Word(0, 0.1, text),))
  cases = {
    "user word at 0 s": dataclasses.replace(good, tracks=(word,)),
    "call at 0.1 s": dataclasses.replace(
      good, events=(dataclasses.replace(good.events[0], text=text),)
    ),
    "user voice": dataclasses.replace(
      good, tracks=(dataclasses.replace(track, voice=text),)
    ),
    "id": dataclasses.replace(good, id=text),
  }
  for what, timeline in cases.items():
    with pytest.raises(ValueError, match=f"{what} {message}"):
      timeline_lib.validate(timeline)


def test_two_users_must_be_mixed():
  track = _timeline().tracks[0]
  timeline = Timeline(id="y", duration=1.0, tracks=(track, track))
  with pytest.raises(ValueError, match="2 tracks with role user"):
    timeline.track(Role.USER)


@hypothesis.given(st.integers(0, 10**6))
def test_window_boundaries(k):
  assert clock.TICKS.window_of(k * 0.2) == k
  assert clock.TICKS.num_windows(k * 0.2) == k
  assert clock.TICKS.window_of(k * 0.2 + 0.199) == k
  assert clock.TICKS.num_windows(k * 0.2 + 0.001) == k + 1


def test_patches_put_every_pixel_once():
  images = [np.arange(80 * 120 * 3).reshape(80, 120, 3) % 251 for _ in range(3)]
  images = [(i + n).astype(np.uint8) for n, i in enumerate(images)]
  cut = patches.cut(images, height=80, width=120)
  assert cut.shape == (6, 2, 40, 40, 3)
  # Row-major: patch 4 is row 1, column 1; the pair is the last two frames.
  np.testing.assert_array_equal(cut[4, 0], images[1][40:80, 40:80])
  np.testing.assert_array_equal(cut[4, 1], images[2][40:80, 40:80])
  single = patches.cut(images[:1], height=80, width=120)
  np.testing.assert_array_equal(single[:, 0], single[:, 1])
  assert len(patches.cut([], height=80, width=120)) == 0
  with pytest.raises(ValueError, match=r"\(80, 120, 3\).*\(40, 40, 3\)"):
    patches.cut(images, height=40, width=40)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  path = str(tmp_path_factory.mktemp("tok") / tokenizer.FILENAME)
  config = dataclasses.replace(small_frames.CONFIG, text_vocab_size=400)
  sentences = ["press one to repeat the message", "três pês e um café"] * 20
  return tokenizer.train(sentences, path=path, config=config), path, config


# Letters that the library gives a meaning, or that normal forms change.
_ODD = " \t\n\r\0▁▅<>/x3²é\u0301\u200c\u200d\ufeff\ufffd"


@hypothesis.given(st.text(max_size=40) | st.text(_ODD, max_size=12))
@hypothesis.example("3² \u200c\r\n\t a  b ")
@hypothesis.example("<0x41><unk></s>▁▁ ▁")
def test_every_text_comes_back_byte_for_byte(trained, text):
  tok, _, config = trained
  ids = tok.encode(text)
  assert all(0 <= i < config.text_vocab_size for i in ids)
  assert tok.decode(ids) == text


def test_words_one_after_the_other_have_spaces_between(trained):
  tok, _, _ = trained
  words = "press one to repeat".split()
  spelled = [token for word in words for token in tok.encode(word)]
  assert tok.decode(spelled) == "press one to repeat"
  assert tok.encode("") == []


def test_every_transcript_counts_in_training(tmp_path):
  """Also long ones, and those with letters that the library reserves."""
  config = dataclasses.replace(small_frames.CONFIG, text_vocab_size=400)
  sentences = ["plain " * 20, "quux " * 20_000, "zzz\tyyy▅www\0vvv\nkkk"]
  path = str(tmp_path / tokenizer.FILENAME)
  tok = tokenizer.train(sentences, path=path, config=config)
  for word in ("plain", "quux"):
    assert len(tok.encode(word)) <= 3
  for letter in "zywvk":  # a piece, and not bytes
    assert len(tok.encode(f"a{letter}")) == len(tok.encode("al"))
  lines = [*sentencepieces._lines("é" * 70_000)]
  assert max(map(len, lines)) <= 4097
  assert sum(len(line) - 1 for line in lines) == 70_000


def test_a_tokenizer_that_changes_text_is_reported(tmp_path, caplog):
  """One of an older version: with the library's own normalisation."""
  model = tmp_path / tokenizer.FILENAME
  with open(model, "wb") as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(["press one to repeat"] * 9),
      model_writer=file,
      vocab_size=300,
      hard_vocab_limit=False,
      byte_fallback=True,
      minloglevel=2,
    )
  tok = tokenizer.load(str(model), config=small_frames.CONFIG)
  assert "changes text" in caplog.text
  assert tok.decode(tok.encode("press one")) == "press one"


def test_control_names_stay_text(trained):
  tok, _, config = trained
  assert max(tok.encode("<speak> <end> </s>")) < config.text_vocab_size
  assert tok.decode(tok.encode("<speak>")) == "<speak>"


def test_tokenizer_errors_name_the_file(trained, tmp_path):
  _, path, config = trained
  small = dataclasses.replace(config, text_vocab_size=30)
  with pytest.raises(errors.UserError, match="no tokenizer at"):
    tokenizer.load(str(tmp_path / "none"), config=config)
  (tmp_path / "bad").write_bytes(b"xx")
  with pytest.raises(errors.UserError, match="not a sentencepiece model"):
    tokenizer.load(str(tmp_path / "bad"), config=config)
  with pytest.raises(errors.UserError, match="text_vocab_size = 30"):
    tokenizer.load(path, config=small)
  with pytest.raises(errors.UserError, match="no transcripts"):
    tokenizer.train([" "], path=path, config=config)
