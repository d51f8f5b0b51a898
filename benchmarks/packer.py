"""Speed of the input side on one core, next to librosa and Hugging Face.

`python -m benchmarks.packer [--minutes=5] [--rounds=5] [--json=FILE]`. Every
row is seconds of conversation processed per second of CPU time, all threads
together, so another process on the machine counts little. Rounds are
interleaved. Recorded prompts where Debian's packages are installed, else the
procedural voice. librosa and transformers come with `pip install -e .[test]`.
"""

import os

for _name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
  os.environ[f"{_name}_NUM_THREADS"] = "1"  # read when numpy is imported

# ruff: noqa: E402
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

import librosa
import numpy as np
import torch
import transformers
from absl import app, flags

from experiments import interaction
from tml_jax import errors, prepare
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.data import mixture
from tml_jax.data.splits import Split
from tml_jax.streams import clock, dmel, framing, packing, tokenizer
from tml_jax.streams.timeline import Timeline

_JSON = config_flags.JSON
_MINUTES = flags.DEFINE_float("minutes", 5.0, "Of audio in each round.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times each form is run.")

_RECORDED = ("asterisk:en", "espeak:en-us")


def prepared(data_dir: str) -> Config:
  """Prepares two voices into `data_dir`; returns the config to read them."""
  config = interaction.tiny()
  data = dataclasses.replace(config.data, voices=_RECORDED)
  config = dataclasses.replace(config, data=data)
  arguments = dict(data_dir=data_dir, sounds_root="/", processes=os.cpu_count())
  try:
    prepare.prepare(config, **arguments)
  except errors.UserError as error:
    print(f"no recorded prompts, so the procedural voice: {error}")
    config = interaction.tiny_procedural()
    prepare.prepare(config, **arguments)
  return config


def microphones(timelines: list[Timeline]) -> list[np.ndarray]:
  return [timeline.tracks[0].audio for timeline in timelines]


def stream(audio: np.ndarray) -> np.ndarray:
  live = dmel.DmelStream(clock.TICKS)
  windows = audio.reshape(-1, clock.TICKS.samples)
  return np.concatenate([live.push(window) for window in windows])


def librosa_mel(audio: np.ndarray, *, window: int, hop: int) -> np.ndarray:
  mel = librosa.feature.melspectrogram(
    y=np.pad(audio, (window - hop, 0)),
    sr=clock.SAMPLE_RATE,
    n_fft=window,
    hop_length=hop,
    power=1.0,
    n_mels=clock.MEL_CHANNELS,
    center=False,
  )
  return np.log10(np.maximum(mel, 1e-10))


def forms(
  config: Config, *, data_dir: str
) -> tuple[dict[str, Callable[[], object]], float]:
  """What is timed, and seconds of the conversations that each processes."""
  dataset = mixture.build(config, data_dir=data_dir, split=Split.TRAIN)
  count, seconds = 0, 0.0
  while seconds < 60 * _MINUTES.value:
    seconds += dataset[count].duration
    count += 1
  timelines = [dataset[i] for i in range(count)]
  pieces = tokenizer.load(tokenizer.path(data_dir), config=config.streams)
  sounds = microphones(timelines)
  extractor = transformers.InklingFeatureExtractor()
  fine = dict(window=dmel.FINE_WINDOW, hop=clock.FINE_SAMPLES)
  coarse = dict(window=dmel.WINDOW, hop=clock.TOKEN_SAMPLES)

  def each(function, **keywords):
    return lambda: [function(audio, **keywords) for audio in sounds]

  def extract(audio):
    return extractor(
      audio, sampling_rate=clock.SAMPLE_RATE, return_tensors="pt"
    )

  def frames_and_pack(items):
    recordings = [
      framing.frames(item, config=config.streams, tokenizer=pieces)
      for item in items
    ]
    return packing.pack(recordings, config=config.streams)

  return {
    "dMel, whole recordings": each(dmel.dmel),
    "dMel, live, window by window": each(stream),
    "librosa mel, the same frames as dMel": each(librosa_mel, **coarse),
    "Hugging Face InklingFeatureExtractor": each(extract),
    "fine mel": each(dmel.fine_mel),
    "librosa mel, the same frames as fine mel": each(librosa_mel, **fine),
    "frames and packing": lambda: frames_and_pack(timelines),
    "composing conversations": lambda: [dataset[i] for i in range(count)],
    "composing, frames and packing": lambda: frames_and_pack(
      [dataset[i] for i in range(count)]
    ),
  }, sum(timeline.duration for timeline in timelines)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  torch.set_num_threads(1)
  with tempfile.TemporaryDirectory() as data_dir:
    config = prepared(data_dir)
    timed, seconds = forms(config, data_dir=data_dir)
    speeds = {name: [] for name in timed}
    for function in timed.values():
      function()
    for _ in range(_ROUNDS.value):
      for name, function in timed.items():
        start = time.process_time()
        function()
        speeds[name].append(seconds / (time.process_time() - start))
  result = {name: statistics.median(each) for name, each in speeds.items()}
  voices = ", ".join(config.data.voices)
  print(f"\n{seconds:.0f} s of conversation, voices {voices}\n")
  print("| one core | seconds of conversation per core-second |")
  print("|---|---:|")
  for name, speed in result.items():
    print(f"| {name} | {speed:,.0f} |")
  if _JSON.value:
    rows = {"voices": voices, "seconds": seconds, "speeds": result}
    pathlib.Path(_JSON.value).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
  app.run(main)
