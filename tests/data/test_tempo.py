"""Speech at another rate: its length, its pitch, and the times of its words."""

import numpy as np
import pytest

from tml_jax.data import tempo
from tml_jax.data.voices import procedural
from tml_jax.streams import clock

SPOKEN = procedural.speak("please hold the line", variant="low", prompt="x")


@pytest.mark.parametrize("rate", [0.8, 0.85, 1.2, 1.25])
def test_words_and_spans_follow(rate):
  made = tempo.changed(SPOKEN, rate=rate)
  before, after = SPOKEN.tracks[0], made.tracks[0]
  assert len(after.audio) == round(len(before.audio) / rate)
  assert made.duration == len(after.audio) / clock.SAMPLE_RATE
  for old, new in zip(
    before.words + before.spans, after.words + after.spans, strict=True
  ):
    assert new.start == pytest.approx(old.start / rate, abs=1e-4)
    assert new.end == pytest.approx(old.end / rate, abs=1e-4)
    assert new.end <= made.duration
  # What is heard is where the words are: loudness follows, and not later.
  was, now = _loudness(before.audio), _loudness(after.audio)
  moved = np.interp(np.arange(len(now)) * rate, np.arange(len(was)), was)
  lags = range(-800, 801, 80)  # 50 ms each way
  alike = [np.corrcoef(moved, np.roll(now, lag))[0, 1] for lag in lags]
  assert max(alike) > 0.95
  assert abs(lags[int(np.argmax(alike))]) <= 320, alike  # 20 ms


def _loudness(audio):
  """Mean magnitude of 50 ms around each sample."""
  return np.convolve(np.abs(audio), np.ones(800) / 800, mode="same")


@pytest.mark.parametrize("rate", [0.85, 1.2])
def test_the_pitch_stays(rate):
  time = np.arange(clock.SAMPLE_RATE) / clock.SAMPLE_RATE
  tone = 0.5 * np.sin(2 * np.pi * 200 * time).astype(np.float32)
  made = tempo.stretched(tone, rate=rate)
  spectrum = np.abs(np.fft.rfft(made * np.hanning(len(made)), 1 << 16))
  hertz = spectrum.argmax() * clock.SAMPLE_RATE / (1 << 16)
  assert hertz == pytest.approx(200, abs=2)
  assert np.std(made) == pytest.approx(np.std(tone), rel=0.02)
  np.testing.assert_array_equal(made, tempo.stretched(tone, rate=rate))


def test_the_same_rate_changes_nothing():
  assert tempo.changed(SPOKEN, rate=1.0) is SPOKEN
