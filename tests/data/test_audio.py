import functools
import itertools

import numpy as np
import pytest

from tests.helpers.sound import RATE, tone
from tml_jax.data import audio, source, utterance
from tml_jax.data.voices import procedural


def spans_of(samples):
  return audio.speech_spans(samples.astype(np.float32), name="made")


def test_spans_follow_the_bursts():
  """0.2 s silence, 0.5 s tone, 0.3 s gap, 0.4 s tone, 0.1 s gap, 0.3 s tone."""
  rng = np.random.default_rng(0)
  parts = [(0.2, 0), (0.5, 1), (0.3, 0), (0.4, 1), (0.1, 0), (0.3, 1), (0.2, 0)]
  samples = np.concatenate([level * tone(length) for length, level in parts])
  samples = samples + 1e-4 * rng.standard_normal(len(samples))
  spans = spans_of(samples)
  found = [(s.start, s.end) for s in spans]
  np.testing.assert_allclose(found, [(0.2, 0.7), (1.0, 1.8)], atol=0.011)


def test_silence_and_clicks_are_not_speech():
  assert spans_of(np.zeros(RATE)) == []
  assert spans_of(np.zeros(0)) == []
  noise = np.random.default_rng(0).standard_normal(RATE) * 1e-4
  assert spans_of(noise) == []
  samples = tone(2.0)
  samples[: RATE // 2] = 0
  samples[1000:1100] = 0.5  # 6 ms
  assert spans_of(samples)[0].start == pytest.approx(0.5, abs=0.011)


@functools.cache
def room(seconds, *, level_db):
  """Noise that falls with the frequency from 50 Hz on, as in rooms."""
  random = np.random.default_rng(0)
  spectrum = np.fft.rfft(random.standard_normal(round(seconds * RATE)))
  hertz = np.linspace(0, RATE / 2, len(spectrum))
  noise = np.fft.irfft(spectrum / np.maximum(hertz, 50) ** 0.75)
  return 10 ** (level_db / 20) * noise / np.sqrt(np.mean(noise**2))


@functools.cache
def white(seconds, *, level_db):
  noise = np.random.default_rng(0).standard_normal(round(seconds * RATE))
  return 10 ** (level_db / 20) * noise


@functools.cache
def spoken(*, share, seconds):
  """Speech at -23 dBFS spread over silence, and its frames [10 ms] bool."""
  samples = np.zeros(round(seconds * RATE))
  truth = np.zeros(round(seconds * 100), bool)
  at, texts = 0.5, itertools.cycle(["stop at six", "no more oil", "see me now"])
  while True:
    item = procedural.speak(next(texts), variant="low", prompt="p")
    if at + item.duration > seconds - 0.3:
      return samples, truth
    start = round(at * 100)
    found = item.tracks[0].audio
    samples[start * 160 : start * 160 + len(found)] = found
    truth[start : start + round(item.duration * 100)] = True
    at += max(item.duration / share, item.duration + 0.3)


def frames_of(spans, *, count):
  result = np.zeros(count, bool)
  for span in spans:
    result[round(span.start * 100) : round(span.end * 100)] = True
  return result


@pytest.mark.parametrize("share", [0.03, 0.2, 0.8])
@pytest.mark.parametrize("offset", [0.0, 0.005, -0.05])
@pytest.mark.parametrize(
  "noise, level_db",
  [(white, -120), (white, -70), (white, -55), (white, -43), (room, -43)],
)
def test_speech_is_found_in_noise(share, offset, noise, level_db):
  seconds = 60.0
  samples, truth = spoken(share=share, seconds=seconds)
  assert 0.5 * share < truth.mean() < 1.4 * share
  samples = samples + noise(seconds, level_db=level_db) + offset
  found = frames_of(spans_of(samples), count=len(truth))
  near = np.convolve(truth, np.ones(21), "same") > 0.5  # 0.1 s about it
  assert (found & near).sum() > 0.99 * found.sum()
  assert (found & truth).sum() > 0.95 * truth.sum()


def test_digital_silence_about_a_noisy_recording_is_not_its_noise():
  samples, truth = spoken(share=0.3, seconds=30.0)
  samples = np.pad(samples + white(30.0, level_db=-50), (5 * RATE, 5 * RATE))
  truth = np.pad(truth, (500, 500))
  found = frames_of(spans_of(samples), count=len(truth))
  assert (found & truth).sum() > 0.95 * truth.sum()
  assert found.sum() < 1.2 * truth.sum()


def test_a_room_in_which_nobody_speaks():
  for noise in (white, room):
    assert spans_of(noise(20.0, level_db=-55)) == []


def test_spans_that_are_doubtful_are_warned_of(caplog):
  spans_of(np.zeros(2 * RATE))
  assert "made: no speech was found in 2.0 s" in caplog.text
  caplog.clear()
  (span,) = spans_of(white(20.0, level_db=-30))
  assert (span.start, span.end) == (0, 20)
  assert "made: all of 20.0 s was taken for speech" in caplog.text
  caplog.clear()
  spans_of(spoken(share=0.2, seconds=20.0)[0])
  assert not caplog.text


def build(samples):
  return utterance.build(
    np.atleast_2d(samples), voice="v", language="en", prompt="p", text="one two"
  )


def test_build_trims_and_levels():
  padded = np.concatenate([np.zeros(8000), tone(1.0, level=0.01), np.zeros(9)])
  result = build(padded.astype(np.float32))
  track = result.tracks[0]
  assert result.duration == pytest.approx(1.0, abs=0.011)
  assert track.spans[0].start == 0
  assert track.spans[-1].end == pytest.approx(result.duration, abs=1e-6)
  level = audio.active_level(track.audio, list(track.spans))
  assert level == pytest.approx(utterance.LEVEL_DB, abs=0.2)
  assert [w.text for w in track.words] == ["one", "two"]


@pytest.mark.parametrize(
  "samples, reason",
  [
    (np.zeros(0), source.Reason.EMPTY),
    (np.zeros(RATE), source.Reason.SILENT),
    (tone(31.0), source.Reason.TOO_LONG),
    (
      np.where(np.arange(RATE) == 7, np.nan, tone(1.0)),
      source.Reason.NOT_FINITE,
    ),
    (32767 * tone(1.0), source.Reason.NOT_SCALED),
    (np.clip(5 * tone(1.0), -1, 1), source.Reason.CLIPPED),
    (np.stack([tone(1.0)] * 2), source.Reason.WRONG_CHANNELS),
  ],
)
def test_build_refuses(samples, reason):
  with pytest.raises(source.BadRecording) as caught:
    build(samples.astype(np.float32))
  assert caught.value.reason == reason


def test_words_share_the_active_time_by_letters():
  spans = [audio.Span(0.0, 1.0), audio.Span(1.5, 2.5)]
  words = utterance.spread_words("four five, sixsixsi", spans=spans)
  times = [(w.start, w.end) for w in words]
  np.testing.assert_allclose(times, [(0.0, 0.5), (0.5, 1.0), (1.5, 2.5)])
