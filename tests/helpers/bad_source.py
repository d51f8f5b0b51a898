"""A source with one recording of every kind that must be skipped."""

import dataclasses
import os
import pathlib
import signal
import time
import wave

import numpy as np

from tests.helpers import media_files, sound
from tml_jax.data import media, source, utterance
from tml_jax.streams import timeline

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


def write_grown(folder, texts):
  """What the source `grown` has: by name what is said, or what is wrong."""
  (folder / "grown").mkdir(exist_ok=True)
  for path in (folder / "grown").iterdir():
    if path.name not in texts:
      path.unlink()
  for name, text in texts.items():
    path = folder / "grown" / name
    if not path.exists() or path.read_text() != text:
      path.write_text(text)


@source.register("grown")
class Grown:
  """Utterances of a folder that changes; writes down what is read."""

  def __init__(self, variant, *, settings):
    del variant, settings
    self._folder = pathlib.Path(os.environ["BAD_SOURCE_FOLDER"])
    if not (self._folder / "grown").exists():
      write_grown(self._folder, {"a": "one", "b": "two"})
    self._paths = sorted((self._folder / "grown").iterdir())

  def __len__(self):
    return len(self._paths)

  def stamp(self, index):
    return source.stamp_of(self._paths[index])

  def __getitem__(self, index):
    path = self._paths[index]
    with open(self._folder / "read", "a") as file:
      file.write(f"{path.name} ")
    text = path.read_text()
    if text == "silent":
      raise source.BadRecording(source.Reason.SILENT, path.name)
    if text == "raise":
      raise ZeroDivisionError("division by zero")
    item = utterance.build(
      sound.tone(0.5, frequency=200 + 20 * index)[None],
      voice="grown:a",
      language="en",
      prompt="caf\udce9" if text == "latin" else path.name,
      text=text,
    )
    track, words = item.tracks[0], item.tracks[0].words
    odd = {"null": None, "number": 3, "surrogate": "\ud800"}
    if text in odd:
      words = (dataclasses.replace(words[0], text=odd[text]),)
    if text == "float32":
      words = (dataclasses.replace(words[0], end=np.float32(0.1)),)
    video = ()
    if "video" in text:
      shape = (*map(int, text.split()[-2:]), 3)
      video = (timeline.VideoFrame(0.0, np.zeros(shape, np.uint8)),)
    metadata = dict(item.metadata)
    if text == "speechless":
      del metadata["language"]
    return dataclasses.replace(
      item,
      tracks=(dataclasses.replace(track, words=words),),
      video=video,
      metadata=metadata,
    )
