"""Voice-activity detection: made sound, and prompts with noise."""

import numpy as np
import pytest

from tests.helpers import speech
from tml_jax.data import audio as audio_lib
from tml_jax.data import vad as vad_lib
from tml_jax.streams import clock

_SECOND = clock.SAMPLE_RATE


def _listen(detector: vad_lib.Vad, sound: np.ndarray) -> np.ndarray:
  """[frames] bool, window by window as in a session."""
  windows = sound.reshape(-1, clock.TICKS.samples)
  return np.concatenate([detector.push(window) for window in windows])


def _room(seconds: float, *, level_db: float, seed: int = 0) -> np.ndarray:
  random = np.random.default_rng(seed)
  noise = random.normal(size=round(seconds * _SECOND))
  return (10 ** (level_db / 20) * noise).astype(np.float32)


def _buzz(seconds: float) -> np.ndarray:
  """A voice of 120 Hz with its harmonics up to 3.5 kHz, at -23 dBFS."""
  time = np.arange(round(seconds * _SECOND)) / _SECOND
  sound = sum(
    np.sin(2 * np.pi * 120 * n * time + n * n) / np.sqrt(n)
    for n in range(1, 30)
  )
  level = np.sqrt(np.mean(np.square(sound)))
  return (10 ** (-23 / 20) * sound / level).astype(np.float32)


@pytest.mark.parametrize("noise_db", [-90.0, -60.0, -45.0])
def test_energy_finds_a_voice_in_noise(noise_db):
  sound = _room(6.0, level_db=noise_db)
  sound[2 * _SECOND : 3 * _SECOND] += _buzz(1.0)
  active = _listen(vad_lib.EnergyVad(), sound)
  assert len(active) == 600
  assert active[200:300].all()
  hangover = vad_lib.EnergyVad.HANGOVER
  assert not active[:200].any() and not active[301 + hangover :].any()


def test_energy_learns_a_room_that_gets_louder():
  sound = np.concatenate(
    [_room(3.0, level_db=-70.0), _room(14.0, level_db=-42.0, seed=1)]
  )
  sound[-_SECOND:] += _buzz(1.0)
  active = _listen(vad_lib.EnergyVad(), sound)
  # Three seconds are remembered, then 3 dB a second until it is near enough.
  assert active[320:1000].all()
  assert not active[1400:1600].any()
  assert active[1600:].all()


def test_energy_does_not_take_a_long_sentence_for_the_room():
  sound = _room(10.0, level_db=-60.0)
  sound[_SECOND : 9 * _SECOND] += _buzz(8.0)
  active = _listen(vad_lib.EnergyVad(), sound)
  assert active[100:900].all() and not active[920:].any()


@pytest.mark.parametrize("name", vad_lib.VADS)
@pytest.mark.parametrize("snr_db", [30.0, 20.0])
def test_prompts_in_noise(name, snr_db):
  """Against the prompts' spans, give or take 0.1 s."""
  detector = vad_lib.create(name)
  sound, truth = [], []
  for clip in speech.clips(12):
    clip = clip[: len(clip) // 3200 * 3200]
    spans = audio_lib.speech_spans(clip, name="prompt")
    loud = audio_lib.active_level(clip, spans)
    gap = np.zeros(_SECOND, np.float32)
    sound += [gap, clip * np.float32(10 ** ((-23 - loud) / 20))]
    offset = sum(map(len, sound)) - len(clip)
    truth += [
      (offset / _SECOND + s.start, offset / _SECOND + s.end) for s in spans
    ]
  sound = np.concatenate(sound)
  sound += _room(len(sound) / _SECOND, level_db=-23 - snr_db)
  active = _listen(detector, sound)
  times = (np.arange(len(active)) + 0.5) * detector.hop / _SECOND
  inside, near = (
    np.any([(times > s - m) & (times < e + m) for s, e in truth], axis=0)
    for m in (0.0, 0.1)
  )
  precision = (active & near).sum() / active.sum()
  recall = (active & inside).sum() / inside.sum()
  assert precision > 0.95, precision
  assert recall > (0.9 if snr_db > 25 else 0.75), recall


@pytest.mark.parametrize("noise_db", [None, -55.0, -43.0])
def test_spans_of_recordings_agree_with_the_network(noise_db):
  """On the same file: prompts are a third of it, with an offset of 0.5 %."""
  parts = []
  for clip in speech.clips(8):
    level = audio_lib.active_level(
      clip, audio_lib.speech_spans(clip, name="prompt")
    )
    gap = np.zeros(2 * len(clip), np.float32)
    parts += [gap, clip * np.float32(10 ** ((-23 - level) / 20))]
  sound = np.concatenate(parts) + np.float32(0.005)
  if noise_db is not None:
    sound += _room(len(sound) / _SECOND, level_db=noise_db)[: len(sound)]
  detector = vad_lib.create("silero")
  network = detector.push(sound)
  times = (np.arange(len(network)) + 0.5) * detector.hop / _SECOND
  spans = audio_lib.speech_spans(sound, name="prompts")
  ours = np.any([(times > s.start) & (times < s.end) for s in spans], axis=0)
  assert (ours == network).mean() > 0.97
