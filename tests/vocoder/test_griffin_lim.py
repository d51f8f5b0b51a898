"""Recorded speech to fine mel and back to sound."""

import numpy as np

from tests.helpers import speech
from tml_jax.streams import clock, dmel
from tml_jax.vocoder import griffin_lim as griffin_lim_lib

_ITERATIONS = 32  # the default of the configs


def _recording() -> np.ndarray:
  """A prompt of whole windows, [samples]."""
  clip = next(c for c in speech.clips() if len(c) > clock.SAMPLE_RATE)
  return clip[: len(clip) // clock.TICKS.samples * clock.TICKS.samples]


def _mel(audio: np.ndarray) -> np.ndarray:
  return dmel.fine_mel(audio).reshape(-1, 16, clock.MEL_CHANNELS)


def _envelope(audio: np.ndarray) -> np.ndarray:
  """Mean magnitude over 5 ms, without its mean."""
  width = clock.SAMPLE_RATE // 200
  smooth = np.convolve(np.abs(audio), np.ones(width) / width, mode="same")
  return smooth - smooth.mean()


def test_magnitudes_have_the_mel_they_were_made_from():
  mel = _mel(_recording()).reshape(-1, clock.MEL_CHANNELS)
  spectrum = griffin_lim_lib.magnitudes(mel)
  again = np.log10(spectrum @ dmel.mel_filters(dmel.FINE_WINDOW))
  assert np.abs(20 * (again - mel)).max() < 0.5  # dB; measured 0.1


def test_the_mel_of_the_sound_is_the_mel_asked_for():
  audio = _recording()
  mel = _mel(audio)
  sound = griffin_lim_lib.griffin_lim(mel, iterations=_ITERATIONS, seed=0)
  assert sound.shape == audio.shape and sound.dtype == np.float32
  # Within 60 dB of the loudest channel; below, phases cannot cancel so well.
  audible = mel > mel.max() - 3
  error = 20 * np.abs(_mel(sound) - mel)[audible].mean()
  assert error < 1.2  # dB; measured 0.8 to 0.9 on six prompts


def test_the_sound_is_in_time():
  audio = _recording()
  sound = griffin_lim_lib.griffin_lim(
    _mel(audio), iterations=_ITERATIONS, seed=0
  )
  reach = clock.SAMPLE_RATE // 50  # 20 ms
  ours, theirs = _envelope(sound), _envelope(audio)[reach:-reach]
  lags = range(-reach, reach + 1)
  correlation = [
    np.dot(ours[reach + lag : len(ours) - reach + lag], theirs) for lag in lags
  ]
  lag = lags[int(np.argmax(correlation))]
  assert abs(lag) <= 0.005 * clock.SAMPLE_RATE


def test_silence_stays_silence():
  mel = np.full((3, 16, clock.MEL_CHANNELS), dmel.LOG_MIN, np.float32)
  sound = griffin_lim_lib.griffin_lim(mel, iterations=4, seed=0)
  assert np.abs(sound).max() < 1e-5
  assert not griffin_lim_lib.render(
    [None] * 3, iterations=4, seed=0, grid=clock.TICKS
  ).any()


def test_render_places_the_windows():
  audio = _recording()
  mels = list(_mel(audio))[:5]
  track = [None, *mels[:3], None, *mels[3:], None]
  sound = griffin_lim_lib.render(track, iterations=4, seed=0, grid=clock.TICKS)
  windows = sound.reshape(len(track), clock.TICKS.samples)
  quiet = [mel is None for mel in track]
  assert [not window.any() for window in windows] == quiet
  alone = griffin_lim_lib.griffin_lim(np.stack(mels[:3]), iterations=4, seed=0)
  np.testing.assert_array_equal(windows[1:4].ravel(), alone)
  again = griffin_lim_lib.render(track, iterations=4, seed=0, grid=clock.TICKS)
  np.testing.assert_array_equal(sound, again)
