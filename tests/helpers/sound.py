"""Sound by formula: tones, and files of them."""

import wave

import numpy as np

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
