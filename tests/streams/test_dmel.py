"""dMel against the published extractor, streaming against offline."""

import hypothesis
import librosa
import numpy as np
import pytest
import torch
import transformers
from hypothesis import strategies as st

from tests.helpers import speech
from tml_jax.streams import clock, dmel


def test_filters_equal_librosa():
  for n_fft in (dmel.WINDOW, dmel.FINE_WINDOW):
    want = librosa.filters.mel(sr=16_000, n_fft=n_fft, n_mels=80).T
    np.testing.assert_allclose(dmel.mel_filters(n_fft), want, atol=1e-8)


def test_dmel_equals_the_published_extractor_on_speech():
  """At most one channel in 10,000 may differ, and by one level."""
  extractor = transformers.InklingFeatureExtractor()
  centres = torch.linspace(-7, 2, 16, dtype=torch.float64).float()
  differ = total = 0
  for audio in speech.clips():
    mel = extractor(audio, sampling_rate=16_000, return_tensors="pt")
    mel = mel["input_features"][0].clamp(-7, 2)
    want = (mel[..., None] - centres).abs().argmin(-1).numpy()
    difference = np.abs(dmel.dmel(audio)[: len(want)].astype(int) - want)
    assert difference.max() <= 1
    differ += (difference > 0).sum()
    total += difference.size
  assert total > 100_000
  assert differ <= total / 10_000, (differ, total)


def test_fine_mel_equals_librosa():
  audio = speech.clips()[0]
  audio = audio[: len(audio) // 3200 * 3200]
  want = librosa.feature.melspectrogram(
    y=np.pad(audio, (600, 0)),
    sr=16_000,
    n_fft=800,
    hop_length=200,
    power=1.0,
    n_mels=80,
    center=False,
  )
  want = np.clip(np.log10(np.maximum(want.T, 1e-10)), -7, 2)
  got = dmel.fine_mel(audio)
  # The floor under the power (1e-10) only shows in digital silence.
  loud = want > -3.5
  np.testing.assert_allclose(got[loud], want[loud], atol=1e-3)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
  st.integers(1, 12),
  st.sampled_from([50, 100, 200, 400, 800]),
  st.floats(1e-6, 2.0),
  st.integers(0, 2**31),
)
def test_streaming_equals_offline_bit_for_bit(windows, ms, level, seed):
  grid = clock.Grid(ms)
  rng = np.random.default_rng(seed)
  audio = rng.normal(size=windows * grid.samples) * level
  audio = audio.astype(np.float32)
  stream = dmel.DmelStream(grid)
  chunks = [stream.push(c) for c in np.split(audio, windows)]
  assert chunks[0].shape == (grid.audio_tokens, clock.MEL_CHANNELS)
  want = dmel.dmel(audio, grid=grid)
  np.testing.assert_array_equal(np.concatenate(chunks), want)


def test_a_partial_window_is_padded_with_silence():
  audio = np.ones(5000, np.float32)
  want = dmel.dmel(np.concatenate([audio, np.zeros(1400, np.float32)]))
  np.testing.assert_array_equal(dmel.dmel(audio), want)
  assert want.shape == (8, 80)


def test_fine_mel_continues_from_its_past():
  audio = np.random.default_rng(0).normal(size=9600).astype(np.float32)
  whole = dmel.fine_mel(audio)
  tail = dmel.fine_mel(audio[3200:], past=audio[:3200])
  np.testing.assert_array_equal(whole[16:], tail)


def test_levels_are_the_nearest_centre():
  values = np.array([-9.0, -7.0, -6.71, -6.69, 1.69, 1.71, 5.0], np.float32)
  assert dmel.quantise(values).tolist() == [0, 0, 0, 1, 14, 15, 15]
  levels = np.arange(16, dtype=np.uint8)
  np.testing.assert_array_equal(dmel.quantise(dmel.dequantise(levels)), levels)


def test_pooled_own_audio_is_near_the_dmel_of_the_same_sound():
  audio = speech.clips()[0]
  audio = audio[: len(audio) // 3200 * 3200]
  fine = dmel.fine_mel(audio).reshape(-1, 16, 80)
  pooled = dmel.pool_fine(fine).reshape(-1, 80).astype(int)
  difference = np.abs(pooled - dmel.dmel(audio))
  assert (difference <= 1).mean() > 0.99


def test_wrong_window_names_the_shape():
  with pytest.raises(ValueError, match=r"\(3000,\).*\(3200,\)"):
    dmel.DmelStream(clock.TICKS).push(np.zeros(3000, np.float32))
