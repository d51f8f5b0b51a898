"""Sounds that are no speech for the agent: vocal tics, tones, far speech.

For: what a session's microphone picks up besides its user's turns. Not for:
stationary noise (`data.noise`). Start reading at `hum`. All are recordings at
the level of speech (`utterance.LEVEL_DB`), without words.
"""

import dataclasses

import numpy as np

from tml_jax.data import noise, utterance
from tml_jax.streams import clock
from tml_jax.streams.timeline import Span, Timeline

_FAR_HZ = 700.0  # what comes from the next room is dull
_PITCH = (90.0, 220.0)  # Hz
_EDGE = 0.02  # seconds of rise and fall


def hum(*, random: np.random.Generator) -> Timeline:
  """A closed-mouth "mm": a few harmonics that fall quickly."""
  count = _length(0.25, 0.6, random=random)
  pitch = random.uniform(*_PITCH) * np.linspace(1.05, 0.9, count)
  phase = 2 * np.pi * np.cumsum(pitch) / clock.SAMPLE_RATE
  sound = np.zeros(count)
  for k in range(1, 6):
    sound += np.sin(k * phase) / k**2
  return _recording(sound, prompt="hum")


def cough(*, random: np.random.Generator) -> Timeline:
  """One or two bursts of noise that die away."""
  count = _length(0.3, 0.6, random=random)
  bursts = int(random.integers(1, 3))
  at = np.arange(count) * bursts / count % 1
  sound = noise.take(
    noise.Colour.PINK, count=count, offset=int(random.integers(1 << 18))
  )
  return _recording(sound * np.exp(-5 * at), prompt="cough")


def burst(*, random: np.random.Generator) -> Timeline:
  """Something that rustles or roars for half a second to two."""
  colour = list(noise.Colour)[int(random.integers(len(noise.Colour)))]
  count = _length(0.5, 2.0, random=random)
  offset = int(random.integers(1 << 18))
  return _recording(
    noise.take(colour, count=count, offset=offset), prompt="burst"
  )


def tone(*, random: np.random.Generator) -> Timeline:
  """A beep, the event that some agents wait for."""
  hertz = random.uniform(900, 1500)
  at = np.arange(_length(0.3, 0.5, random=random)) / clock.SAMPLE_RATE
  return _recording(np.sin(2 * np.pi * hertz * at), prompt="tone")


def far(recording: Timeline) -> Timeline:
  """An utterance as it sounds from the next room."""
  track = recording.tracks[0]
  spectrum = np.fft.rfft(track.audio)
  hertz = np.fft.rfftfreq(len(track.audio), 1 / clock.SAMPLE_RATE)
  audio = np.fft.irfft(
    spectrum / (1 + (hertz / _FAR_HZ) ** 2), n=len(track.audio)
  )
  audio = utterance.normalise(audio.astype(np.float32), spans=track.spans)
  track = dataclasses.replace(track, audio=audio)
  return dataclasses.replace(recording, tracks=(track,))


def _length(low: float, high: float, *, random: np.random.Generator) -> int:
  return round(random.uniform(low, high) * clock.SAMPLE_RATE)


def _recording(samples: np.ndarray, *, prompt: str) -> Timeline:
  edge = np.linspace(0, 1, round(_EDGE * clock.SAMPLE_RATE))
  samples = samples.astype(np.float32)
  samples[: len(edge)] *= edge
  samples[len(samples) - len(edge) :] *= edge[::-1]
  spans = [Span(0.0, len(samples) / clock.SAMPLE_RATE)]
  return utterance.timeline_of(
    utterance.normalise(samples, spans=spans),
    spans=spans,
    words=[],
    voice="sound",
    language="",
    prompt=prompt,
    text="",
  )
