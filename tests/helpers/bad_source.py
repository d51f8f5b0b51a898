"""A source with one recording of every kind that must be skipped."""

import os
import pathlib
import signal
import time
import wave

import numpy as np

from tests.helpers import media_files, sound
from tml_jax.data import media, source, utterance

GOOD = 12


class Bad:
  """Twelve good recordings, then the broken ones; slow when asked to be."""

  def __init__(self, folder, *, seconds):
    self._folder = folder
    self._seconds = seconds

  def __len__(self):
    return GOOD + len(_BROKEN)

  def __getitem__(self, index):
    time.sleep(self._seconds)
    samples = sound.tone(0.5, frequency=200 + 20 * index)
    name = f"{index}.wav"
    if index >= GOOD:
      made = _BROKEN[index - GOOD](self._folder / name)
      if made is None:
        media.sound(self._folder / name, limits=utterance.LIMITS)
      samples = made
    return utterance.build(
      np.atleast_2d(samples).astype(np.float32),
      voice="bad:a",
      language="en",
      prompt=f"p{index}",
      text=f"the text of number {index}",
    )


def _empty(path):
  path.write_bytes(b"")


def _truncated(path):
  sound.write_wav(path, sound.tone(0.5)[None])
  path.write_bytes(path.read_bytes()[:5000])


def _no_samples(path):
  with wave.open(str(path), "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(16_000)


def _bomb(path):
  bomb = media_files.flac_of_silence(12 * 3600, declared=False, rate=8_000)
  path.write_bytes(bomb)  # FFmpeg does not look at the name


def _no_memory(path):
  raise MemoryError


_BROKEN = (
  _empty,
  _truncated,
  _no_samples,
  _bomb,
  _no_memory,
  lambda path: np.full(16_000, np.nan),
  lambda path: np.clip(9 * sound.tone(1.0), -1, 1),
  lambda path: np.zeros(16_000),
  lambda path: sound.tone(31.0),
  lambda path: 32767 * sound.tone(1.0),
  lambda path: np.stack([sound.tone(1.0)] * 2),
)
REASONS = {
  "empty": 2,
  "truncated": 1,
  "NaN or infinite samples": 1,
  "clipped": 1,
  "silent": 1,
  "too long": 2,
  "too large": 1,
  "samples far over full scale": 1,
  "wrong channel count": 1,
}


@source.register("bad")
def open_bad(variant, *, settings):
  """`fast`, or `slow` for a process that a test kills."""
  del settings
  folder = pathlib.Path(os.environ["BAD_SOURCE_FOLDER"])
  return Bad(folder, seconds={"fast": 0.0, "slow": 0.3}[variant])


@source.register("empty")
class Nothing:
  """A source in which everything is broken."""

  def __init__(self, variant, *, settings):
    del variant, settings

  def __len__(self):
    return 3

  def __getitem__(self, index):
    raise source.BadRecording(source.Reason.SILENT, f"number {index}")


@source.register("killed")
class Killed(Nothing):
  """A source whose reader is killed, as a process out of memory is."""

  def __getitem__(self, index):
    os.kill(os.getpid(), signal.SIGKILL)
