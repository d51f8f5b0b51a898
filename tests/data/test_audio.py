import wave

import numpy as np
import pytest

from tml_jax.data import audio, source, utterance

RATE = 16_000


def write_wav(path, samples, *, rate=RATE):
  """[channels, n] float to 16-bit PCM."""
  with wave.open(str(path), "wb") as file:
    file.setnchannels(len(samples))
    file.setsampwidth(2)
    file.setframerate(rate)
    file.writeframes(np.round(samples.T * 32767).astype("<i2").tobytes())


def tone(seconds, *, frequency=300.0, rate=RATE, level=0.3):
  times = np.arange(round(seconds * rate)) / rate
  return (level * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def test_spans_follow_the_bursts():
  """0.2 s silence, 0.5 s tone, 0.3 s gap, 0.4 s tone, 0.1 s gap, 0.3 s tone."""
  rng = np.random.default_rng(0)
  parts = [(0.2, 0), (0.5, 1), (0.3, 0), (0.4, 1), (0.1, 0), (0.3, 1), (0.2, 0)]
  samples = np.concatenate([level * tone(length) for length, level in parts])
  samples = samples + 1e-4 * rng.standard_normal(len(samples))
  spans = audio.speech_spans(samples.astype(np.float32))
  found = [(s.start, s.end) for s in spans]
  np.testing.assert_allclose(found, [(0.2, 0.7), (1.0, 1.8)], atol=0.011)


def test_silence_and_clicks_are_not_speech():
  assert audio.speech_spans(np.zeros(RATE, np.float32)) == []
  assert audio.speech_spans(np.zeros(0, np.float32)) == []
  noise = np.random.default_rng(0).standard_normal(RATE) * 1e-4
  assert audio.speech_spans(noise.astype(np.float32)) == []
  samples = tone(2.0)
  samples[: RATE // 2] = 0
  samples[1000:1100] = 0.5  # 6 ms
  assert audio.speech_spans(samples)[0].start == pytest.approx(0.5, abs=0.011)


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
