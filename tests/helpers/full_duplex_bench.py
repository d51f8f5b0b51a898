"""Full-Duplex-Bench's layout, written from recorded prompts at test time.

One clip of every task, of both versions, in three rates, mono and stereo.
"""

import dataclasses
import json
import pathlib
import wave

import numpy as np

from tests.helpers import speech

RATE = 16_000
ODD = 7  # samples more than whole windows, in every clip


@dataclasses.dataclass(frozen=True)
class Written:
  """A clip as it was meant; times in seconds."""

  samples: int  # at 16 kHz
  event: tuple[float, float]
  turn_end: float


def write(root: pathlib.Path) -> dict[str, Written]:
  """Writes all of it; returns what is in it by TASK/ID."""
  short = sorted((c for c in speech.clips() if len(c) > RATE // 2), key=len)
  first, second = short[0], short[1]
  made = {
    # folder: what is said, the event's file, rate, channels
    "v1.0/candor_pause_handling/1": (_pause, "pause.json", 48_000, 1),
    "v1.0/synthetic_pause_handling/12": (_pause, "pause.json", 16_000, 1),
    "v1.0/candor_turn_taking/3": (_turn, "turn_taking.json", 24_000, 2),
    "v1.0/icc_backchannel/0": (_turn, "", 16_000, 2),
    "v1.0/synthetic_user_interruption/2": (
      _overlap,
      "interrupt.json",
      24_000,
      1,
    ),
    "v1.5/user_interruption/4": (_overlap, "metadata.json", 48_000, 2),
    "v1.5/user_backchannel/5": (_overlap, "metadata.json", 16_000, 1),
    "v1.5/talking_to_other/6": (_overlap, "metadata.json", 16_000, 1),
    "v1.5/background_speech/7": (_overlap, "metadata.json", 24_000, 1),
  }
  result = {}
  for name, (compose, file, rate, channels) in made.items():
    folder = root / name
    folder.mkdir(parents=True)
    samples, event, turn_end = compose(first, second)
    samples = np.concatenate([samples, np.zeros(ODD, np.float32)])
    write_wav(folder / "input.wav", samples, rate=rate, channels=channels)
    if file == "metadata.json":
      clean = np.concatenate([first, np.zeros(RATE, np.float32)])
      write_wav(folder / "clean_input.wav", clean, rate=rate, channels=1)
      text = {"context_text": "a", "current_turn_text": "b"}
      _json(folder / file, text | {"timestamps": event})
    elif file == "interrupt.json":
      text = {"context": "a", "interrupt": "b"}
      _json(folder / file, [text | {"timestamp": event}])
    elif file:
      _json(folder / file, [{"text": "[EVENT]", "timestamp": event}])
    # At 16 kHz, rounded as the reader does.
    count = round(len(samples) * rate / RATE) * RATE / rate
    key = "/".join(name.split("/")[1:])
    result[key] = Written(int(count + 0.5), event, turn_end)
  return result


def _pause(first, second):
  gap = (len(first) / RATE, len(first) / RATE + 1.2)
  samples = np.concatenate([first, _silence(1.2), second, _silence(0.2)])
  return samples, gap, len(samples) / RATE - 0.2


def _turn(first, second):
  end = len(first) / RATE
  return np.concatenate([first, _silence(1.4)]), (end, end + 0.4), end


def _overlap(first, second):
  start = (len(first) + RATE) / RATE
  event = (start, start + len(second) / RATE)
  samples = np.concatenate([first, _silence(1.0), second, _silence(1.4)])
  return samples, event, len(first) / RATE


def _silence(seconds: float) -> np.ndarray:
  return np.zeros(round(seconds * RATE), np.float32)


def _json(path: pathlib.Path, found) -> None:
  path.write_text(json.dumps(found))


def write_wav(path, samples, *, rate: int, channels: int) -> None:
  """16-bit PCM; 16 kHz samples are put on another grid linearly."""
  times = np.arange(round(len(samples) * rate / RATE)) * RATE / rate
  found = np.interp(times, np.arange(len(samples)), samples)
  # The channels differ and their mean is the signal.
  gains = [1.0] if channels == 1 else [0.5, 1.5]
  found = np.stack([np.clip(gain * found, -1, 1) for gain in gains], axis=1)
  with wave.open(str(path), "wb") as file:
    file.setnchannels(channels)
    file.setsampwidth(2)
    file.setframerate(rate)
    file.writeframes(np.round(found * 32767).astype("<i2").tobytes())
