import numpy as np
import pytest

from tests.helpers.sound import RATE, tone, write_wav
from tml_jax.data import audio, source, utterance


def reason_of(call):
  with pytest.raises(source.BadRecording) as caught:
    call()
  return caught.value.reason


def test_decode_returns_what_was_written(tmp_path):
  samples = np.stack([tone(0.5), tone(0.5, frequency=500)])
  write_wav(tmp_path / "a.wav", samples, rate=44_100)
  recording = audio.decode(tmp_path / "a.wav")
  assert recording.sample_rate == 44_100
  np.testing.assert_allclose(recording.samples, samples, atol=1e-4)


def test_decode_refuses_broken_files(tmp_path):
  path = tmp_path / "a.wav"
  path.write_bytes(b"")
  assert reason_of(lambda: audio.decode(path)) == source.Reason.EMPTY
  path.write_bytes(b"no audio at all" * 100)
  assert reason_of(lambda: audio.decode(path)) == source.Reason.UNREADABLE
  write_wav(path, tone(1.0)[None])
  whole = path.read_bytes()
  for size in (len(whole) // 2, len(whole) - 2, 60, 20):
    path.write_bytes(whole[:size])
    assert reason_of(lambda: audio.decode(path)) == source.Reason.TRUNCATED
  write_wav(path, np.zeros((1, 0)))
  assert reason_of(lambda: audio.decode(path)) == source.Reason.EMPTY
  missing = tmp_path / "b.wav"
  assert reason_of(lambda: audio.decode(missing)) == source.Reason.UNREADABLE


def test_a_coding_without_a_decoder_is_refused(tmp_path):
  path = tmp_path / "a.wav"
  write_wav(path, tone(0.1)[None])
  data = bytearray(path.read_bytes())
  data[20:22] = b"\xff\x7f"  # the number of the coding
  path.write_bytes(data)
  assert reason_of(lambda: audio.decode(path)) == source.Reason.UNREADABLE


def test_a_length_that_was_unknown_when_written_is_no_truncation(tmp_path):
  path = tmp_path / "a.wav"
  write_wav(path, tone(0.1)[None])
  data = bytearray(path.read_bytes())
  data[40:44] = b"\xff" * 4
  path.write_bytes(data)
  np.testing.assert_allclose(
    audio.decode(path).samples[0], tone(0.1), atol=1e-4
  )


def test_resample_keeps_pitch_and_length():
  samples = tone(1.0, frequency=440, rate=22_050)
  result = audio.resample(samples, sample_rate=22_050)
  assert abs(len(result) - RATE) < 40
  spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result))))
  peak = np.argmax(spectrum) * RATE / len(result)
  assert abs(peak - 440) < 2
  assert np.abs(result).max() == pytest.approx(0.3, rel=0.05)


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


def build(samples, *, rate=RATE):
  recording = audio.Recording(np.atleast_2d(samples), rate)
  return utterance.build(
    recording, voice="v", language="en", prompt="p", text="one two"
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
  "samples, rate, reason",
  [
    (np.zeros(0), RATE, source.Reason.EMPTY),
    (np.zeros(RATE), RATE, source.Reason.SILENT),
    (tone(31.0), RATE, source.Reason.TOO_LONG),
    (np.where(np.arange(RATE) == 7, np.nan, tone(1.0)), RATE, None),
    (np.clip(5 * tone(1.0), -1, 1), RATE, source.Reason.CLIPPED),
    (tone(1.0), 8_000, source.Reason.WRONG_RATE),
    (np.stack([tone(1.0)] * 2), RATE, source.Reason.WRONG_CHANNELS),
  ],
)
def test_build_refuses(samples, rate, reason):
  found = reason_of(lambda: build(samples.astype(np.float32), rate=rate))
  assert found == (reason or source.Reason.NOT_FINITE)


def test_words_share_the_active_time_by_letters():
  spans = [audio.Span(0.0, 1.0), audio.Span(1.5, 2.5)]
  words = utterance.spread_words("four five, sixsixsi", spans=spans)
  times = [(w.start, w.end) for w in words]
  np.testing.assert_allclose(times, [(0.0, 0.5), (0.5, 1.0), (1.5, 2.5)])
