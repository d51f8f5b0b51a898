"""Words and spans that a recording lacks, by real recognisers."""

import dataclasses
import json

import numpy as np
import pytest

from tests.helpers import planted_calls, speech, streamed, tiny_whisper
from tml_jax import errors
from tml_jax.data import audio as audio_lib
from tml_jax.data.mend import options, recognition, stage
from tml_jax.data.mend.options import Annotation, Mending
from tml_jax.data.source import Reason
from tml_jax.streams.timeline import Role, Span, Timeline, Track

WORDS = Mending(check=(), annotate=(Annotation.WORDS,))
SPEECH = Mending(check=(), annotate=(Annotation.SPEECH,))


def said(sounds, *, language="en"):
  """A call of recorded prompts, half a second apart, without words."""
  gap = np.zeros(8_000, np.float32)
  audio = np.concatenate([gap, *(x for s in sounds for x in (s, gap))])
  tracks = tuple(
    Track(role, a, (), tuple(audio_lib.speech_spans(a, name="")), "")
    for role, a in ((Role.USER, audio), (Role.AGENT, 0 * audio))
  )
  return Timeline(
    "a", len(audio) / 16_000, tracks, metadata={"language": language}
  )


@pytest.fixture(scope="module")
def item():
  return said([c for c in speech.clips(40) if len(c) > 24_000][:3])


@pytest.mark.slow
def test_pocketsphinx_writes_words_into_tracks_without(item):
  (result,) = stage.apply(item, mending=WORDS)
  user, agent = result.item.tracks
  assert result.done == ("words by pocketsphinx",)
  assert len(user.words) > 3 and agent.words == ()
  starts = [word.start for word in user.words]
  assert starts == sorted(starts)
  for word in user.words:  # each lies in a span, give or take its soft ends
    assert any(
      s.start - 0.3 < (word.start + word.end) / 2 < s.end + 0.3
      for s in user.spans
    )
    assert word.text.isascii() and "(" not in word.text


@pytest.mark.slow
def test_words_that_are_there_stay():
  good = planted_calls.call(seconds=30.0)
  (result,) = stage.apply(good, mending=WORDS)
  assert result.item is good and result.done == ()


@pytest.mark.parametrize("language", ["fr", ""])
def test_a_language_without_a_model_is_skipped(item, language):
  other = dataclasses.replace(item, metadata={"language": language})
  (result,) = stage.apply(other, mending=WORDS)
  assert result.reason is Reason.NO_RECOGNISER
  assert "pocketsphinx knows en" in result.detail


def test_a_language_without_a_model_is_said_before_work():
  recognition.check("pocketsphinx", language="en_US")
  with pytest.raises(errors.UserError, match="no model of the language 'fr'"):
    recognition.check("pocketsphinx", language="fr")


@pytest.mark.parametrize(
  ("chosen", "text"),
  [
    ("pocketsphinks", "did you mean 'pocketsphinx'"),
    ("pocketsphinx:x", "takes no argument"),
    ("whisper", "there is no generation_config.json"),
    ("whisper:/nowhere", "there is no generation_config.json"),
  ],
)
def test_recognisers_that_are_none(chosen, text):
  with pytest.raises(errors.UserError, match=text):
    recognition.check(chosen, language="en")


def test_a_folder_without_heads_that_tell_times(tmp_path):
  (tmp_path / "generation_config.json").write_text("{}")
  with pytest.raises(errors.UserError, match="no alignment_heads"):
    recognition.check(f"whisper:{tmp_path}", language="en")
  (tmp_path / "generation_config.json").write_text("{")
  with pytest.raises(errors.UserError, match="is broken"):
    recognition.check(f"whisper:{tmp_path}", language="")


@pytest.mark.slow
def test_whisper_by_a_local_path(tmp_path):
  """A tiny one with random weights: its words are nonsense with times."""
  tiny_whisper.save(tmp_path / "tiny")
  chosen = f"whisper:{tmp_path / 'tiny'}"
  recognition.check(chosen, language="fr")
  with pytest.raises(errors.UserError, match="language 'xx'"):
    recognition.check(chosen, language="xx")
  call = planted_calls.call(seconds=30.0)
  track = dataclasses.replace(
    call.track(Role.USER), words=(), spans=(Span(1.0, 4.0), Span(9.0, 12.5))
  )
  words = recognition.of_language(chosen, language="en", name="a").words_of(
    track
  )
  assert words
  for word in words:
    assert 0.8 <= word.start <= word.end <= 12.7
    assert not 4.2 < (word.start + word.end) / 2 < 8.8


def test_spans_are_recognised_in_parts_of_half_a_minute():
  spans = [Span(0.0, 1.0), Span(1.2, 2.0), Span(5.0, 65.0)]
  assert [*recognition.stretches(spans)] == [
    (0.0, 2.0),
    (5.0, 25.0),
    (25.0, 45.0),
    (45.0, 65.0),
  ]


def test_silero_writes_spans_where_the_format_has_none(item):
  (result,) = stage.apply(item, mending=SPEECH)
  found, by_level = result.item.track(Role.USER).spans, item.tracks[0].spans
  assert result.done == ("speech by Silero",)
  assert found != by_level
  both = [np.zeros(len(item.tracks[0].audio) // 160, bool) for _ in range(2)]
  for mask, spans in zip(both, (found, by_level), strict=True):
    for span in spans:
      mask[round(span.start * 100) : round(span.end * 100)] = True
  assert (both[0] == both[1]).mean() > 0.9
  given = dataclasses.replace(
    item,
    tracks=(dataclasses.replace(item.tracks[0], spans=(Span(0.5, 1.0),)),),
  )
  (kept,) = stage.apply(given, mending=SPEECH)
  assert kept.item.tracks[0].spans == (Span(0.5, 1.0),) and kept.done == ()


@pytest.mark.slow
def test_prepare_says_what_was_written(tmp_path):
  """The whole way, with another text of what makes a unit."""
  import soundfile

  from tml_jax import prepare
  from tml_jax.data import corpus
  from tml_jax.data.prepare import runners

  calls = tmp_path / "calls"
  calls.mkdir()
  clips = [c for c in speech.clips(40) if len(c) > 24_000][:2]
  sound = np.concatenate(clips)
  soundfile.write(calls / "a.wav", np.stack([sound, sound[::-1]], 1), 16_000)
  before = streamed.prepare(
    "stereo", calls, tmp_path / "d/c", user="left", language="en"
  )
  assert before["mended"] == {}
  arguments = dict(
    src=str(calls),
    dst=str(tmp_path / "d/c"),
    options={"user": "left", "language": "en"},
    size=(40, 80),
    runner=runners.Runner.LOCAL,
    beam_options=(),
    processes=1,
    verify=False,
    rebuild=False,
    mending=options.Mending(annotate=(Annotation.WORDS,)),
  )
  found = prepare.prepare_source("stereo", **arguments)
  assert found["mended"]["words by pocketsphinx"]["count"] == 1
  (made,) = corpus.RecordSource(tmp_path / "d/c")
  assert made.track(Role.USER).words
  page = (tmp_path / "d/c/report.html").read_text(encoding="utf-8")
  assert "words by pocketsphinx" in page and "echo of the agent" in page
  stored = json.loads((tmp_path / "d/c/report.json").read_text())
  assert stored["measures"].keys() == found["measures"].keys()
