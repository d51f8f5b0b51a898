"""Voices; recordings, and those of programs where they are installed."""

import dataclasses
import gzip
import pathlib
import shutil
import subprocess

import av
import numpy as np
import pytest

from tests.helpers import sound
from tml_jax import errors
from tml_jax.data import audio, source, utterance
from tml_jax.data.voices import (
  asterisk,
  espeak,
  festival,
  flite,
  phrases,
  procedural,
  programs,
)

ROOT = source.Settings(root=pathlib.Path("/"))


def needs_asterisk():
  if not any(pathlib.Path("/usr/share/asterisk/sounds").glob("en_??_*")):
    pytest.skip("needs Debian's asterisk-core-sounds-en-g722")


def needs_espeak():
  if shutil.which("espeak-ng") is None:
    pytest.skip("needs Debian's espeak-ng")


def check(item):
  """What holds for every utterance of every voice."""
  (track,) = item.tracks
  assert len(track.audio) == round(item.duration * 16_000)
  assert track.spans[0].start == 0
  assert track.spans[-1].end == pytest.approx(item.duration, abs=1e-5)
  assert track.words[0].start == pytest.approx(0, abs=1e-9)
  assert track.words[-1].end == pytest.approx(item.duration, abs=1e-5)
  assert " ".join(w.text for w in track.words) == " ".join(
    item.metadata["text"].split()
  )
  for before, after in zip(track.words[:-1], track.words[1:], strict=True):
    assert before.start < before.end <= after.start + 1e-9
  level = audio.active_level(track.audio, list(track.spans))
  assert level == pytest.approx(utterance.LEVEL_DB, abs=0.5)
  assert np.abs(track.audio).max() < 1


@pytest.mark.parametrize("variant", procedural.SPEAKERS)
def test_procedural_voice(variant):
  voice = procedural.open_voice(variant, settings=ROOT)
  assert len(voice) == len(phrases.PHRASES)
  for i in range(0, len(voice), 29):
    item = voice[i]
    check(item)
    np.testing.assert_array_equal(
      item.tracks[0].audio, voice[i].tracks[0].audio
    )


def test_procedural_words_are_exact():
  track = procedural.speak("stop at six", variant="low", prompt="p").tracks[0]
  outside = np.ones(len(track.audio), bool)
  for word in track.words:
    outside[round(word.start * 16_000) : round(word.end * 16_000)] = False
  assert outside.sum() == 2 * 960  # two gaps of 60 ms
  assert not track.audio[outside].any()
  for word in track.words:
    inside = track.audio[round(word.start * 16_000) :][: 16 * 60]
    assert np.sqrt(np.mean(inside**2)) > 1e-3


@pytest.mark.parametrize("variant", procedural.SPEAKERS)
def test_procedural_pitch_is_the_speakers(variant):
  samples = (
    procedural.speak("mama", variant=variant, prompt="p").tracks[0].audio
  )
  samples = samples - samples.mean()
  correlation = np.correlate(samples, samples, "full")[len(samples) - 1 :]
  low, high = 16_000 // 350, 16_000 // 75
  period = low + np.argmax(correlation[low:high])
  pitch = procedural.SPEAKERS[variant].pitch
  assert 0.9 * pitch < 16_000 / period < 1.25 * pitch


def test_procedural_fricatives_are_high_and_vowels_low():
  def centroid(text):
    samples = procedural.speak(text, variant="low", prompt="p").tracks[0].audio
    power = np.abs(np.fft.rfft(samples)) ** 2
    return np.average(np.linspace(0, 8000, len(power)), weights=power)

  assert centroid("sss") > 4000
  assert centroid("oo") < 800


def test_unknown_procedural_voice():
  with pytest.raises(errors.UserError, match="there are low"):
    procedural.open_voice("loud", settings=ROOT)


@pytest.mark.parametrize(
  "written, spoken",
  [
    ("three", "three"),
    ("[ascending tones]", ""),
    ("(1 second of silence)", ""),
    ("<beep ascending>", ""),
    ("at [@]", "at"),
    ("IAX (note: no 2) .", "IAX."),
    ("Wait.  Now!", "Wait. Now!"),
  ],
)
def test_notes_are_left_out(written, spoken):
  assert asterisk.spoken_text(written) == spoken


def write_prompt(path, samples):
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w", format="g722") as file:
    stream = file.add_stream("g722", rate=16_000, layout="mono")
    frame = av.AudioFrame.from_ndarray(
      np.round(samples[None] * 32767).astype(np.int16), format="s16"
    )
    frame.sample_rate = 16_000
    for packet in [*stream.encode(frame), *stream.encode(None)]:
      file.mux(packet)


@pytest.fixture
def unpacked(tmp_path):
  """A folder into which small packages were unpacked."""
  sounds = tmp_path / "usr/share/asterisk/sounds/en_US_f_Somebody"
  write_prompt(sounds / "digits/3.g722", sound.tone(0.6))
  write_prompt(sounds / "beep.g722", sound.tone(0.6))
  write_prompt(sounds / "other.g722", sound.tone(0.6))
  (sounds / "hello.g722").write_bytes(b"")
  doc = tmp_path / "usr/share/doc/asterisk-core-sounds-en"
  doc.mkdir(parents=True)
  with gzip.open(doc / "core-sounds-en.txt.gz", "wt") as file:
    file.write("\ufeff; Comment: no prompt\n\ndigits/3: three\n")
    file.write("beep: [a tone]\nhello: Hello.\n")
  return source.Settings(root=tmp_path)


def test_prompts_from_a_folder(unpacked):
  prompts = asterisk.open_prompts("en", settings=unpacked)
  found = {}
  for i in range(len(prompts)):
    try:
      item = prompts[i]
      check(item)
      found[item.metadata["prompt"]] = item.metadata["text"]
    except source.BadRecording as error:
      found[error.detail.split(":")[0].split(".")[0]] = error.reason
  assert found == {
    "beep": source.Reason.NO_SPEECH,
    "digits/3": "three",
    "hello": source.Reason.EMPTY,
    "other": source.Reason.NO_TRANSCRIPT,
  }


def test_missing_packages_are_named(tmp_path, unpacked):
  empty = source.Settings(root=tmp_path / "nothing")
  with pytest.raises(errors.UserError, match="asterisk-core-sounds-fr-g722"):
    asterisk.open_prompts("fr", settings=empty)
  with pytest.raises(errors.UserError, match="'es'"):
    asterisk.open_prompts("ess", settings=empty)
  (unpacked.root / "usr/share/doc/asterisk-core-sounds-en").rename(
    unpacked.root / "gone"
  )
  with pytest.raises(errors.UserError, match="asterisk-core-sounds-en"):
    asterisk.open_prompts("en", settings=unpacked)


@pytest.mark.parametrize("language", asterisk.LANGUAGES)
def test_installed_prompts(language):
  needs_asterisk()
  prompts = asterisk.open_prompts(language, settings=ROOT)
  assert len(prompts) > 500
  good, bad = 0, 0
  for i in range(0, len(prompts), 40):
    try:
      check(prompts[i])
      good += 1
    except source.BadRecording:
      bad += 1
  assert good > 3 * bad


def test_missing_espeak_is_named(monkeypatch):
  monkeypatch.setenv("PATH", "")
  with pytest.raises(errors.UserError, match="Debian package espeak-ng"):
    espeak.open_voice("en-us", settings=ROOT)


def test_espeak_speaks_phrases_without_transcripts(tmp_path):
  needs_espeak()
  settings = source.Settings(root=tmp_path)
  voice = espeak.open_voice("en-us+f3", settings=settings)
  assert len(voice) == len(phrases.PHRASES)
  for i in range(0, len(voice), 40):
    check(voice[i])
  with pytest.raises(errors.UserError, match="asterisk-core-sounds-fr"):
    espeak.open_voice("fr-fr", settings=settings)


def test_espeak_speaks_the_transcripts(unpacked):
  needs_espeak()
  voice = espeak.open_voice("en-gb", settings=unpacked)
  texts = {voice[i].metadata["prompt"] for i in range(len(voice))}
  assert texts == {"digits/3", "hello", *phrases.DELAYS}


@pytest.mark.parametrize("variant", ["en-uss", "en-us+f33", "+f3"])
def test_espeak_refuses_unknown_voices(variant):
  needs_espeak()
  with pytest.raises(errors.UserError, match="has no"):
    espeak.open_voice(variant, settings=ROOT)


OTHERS = {
  "flite": (flite.open_voice, "flite", "awb"),
  "festival": (festival.open_voice, "text2wave", "ked_diphone"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_programs_speak(name, unpacked):
  open_voice, program, variant = OTHERS[name]
  if shutil.which(program) is None:
    pytest.skip(f"needs Debian's {name}")
  if name == "festival" and variant not in festival.installed():
    pytest.skip("needs Debian's festvox-kdlpc16k")
  voice = open_voice(variant, settings=unpacked)
  assert {voice[i].metadata["prompt"] for i in range(len(voice))} == (
    {"digits/3", "hello", *phrases.DELAYS}
  )
  for i in range(len(voice)):
    item = voice[i]
    check(item)
    assert item.tracks[0].voice == f"{name}:{variant}"
    assert item.metadata["language"] == "en"
  # What procedural voices say, whatever is installed.
  says = dataclasses.replace(unpacked, says=source.Says.PHRASES)
  assert len(open_voice(variant, settings=says)) == len(phrases.PHRASES)
  with pytest.raises(errors.UserError, match=f"{name}:awbb.*'awbb'"):
    open_voice("awbb", settings=unpacked)


@pytest.mark.parametrize("name", OTHERS)
def test_another_program_that_is_missing_is_named(name, monkeypatch):
  open_voice, program, variant = OTHERS[name]
  monkeypatch.setenv("PATH", "")
  with pytest.raises(errors.UserError, match=f"the program {program}.*{name}"):
    open_voice(variant, settings=ROOT)


def test_a_program_that_fails_costs_one_recording(unpacked):
  def fails(text, *, voice):
    raise subprocess.CalledProcessError(3, ["speaker"], stderr=b"no breath")

  voice = programs.Voice(
    "x",
    program=programs.Program("speaker", fails, lambda: "1"),
    language="en",
    settings=unpacked,
  )
  with pytest.raises(source.BadRecording, match="ended with 3: no breath"):
    voice[0]
