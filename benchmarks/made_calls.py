"""Calls of two people made of recorded prompts, for the importer `stereo`.

For: benchmarks.data. Not for: training on them. Start reading at `write`. The
user speaks English and the agent French, both from Debian's
asterisk-core-sounds, in turns of one to three prompts with gaps and overlaps as
people leave them, and a longer silence now and then.
"""

import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import soundfile

from tml_jax.data import source
from tml_jax.data.importers import stereo
from tml_jax.data.source import BadRecording
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Track

LANGUAGES = {Role.USER: "en", Role.AGENT: "fr"}
_PROMPTS = 200  # of each language


def write(
  folder: pathlib.Path, *, count: int, seconds: float, noise: float | None
) -> None:
  """Writes so many calls in the form of `stereo`, the same every time.

  Args:
    folder: to be made.
    count: calls.
    seconds: of each.
    noise: dBFS RMS of white noise under each side; None for digital silence.

  Raises:
    errors.UserError: the packages with the prompts are not there.
  """
  folder.mkdir(parents=True)
  channels = json.dumps([str(role) for role in stereo.ROLES])
  (folder / stereo.CHANNELS).write_text(channels, encoding="utf-8")
  voices = {role: prompts(language) for role, language in LANGUAGES.items()}
  for number in range(count):
    random = np.random.default_rng(number)
    sound = np.zeros((round(seconds * clock.SAMPLE_RATE), 2), np.float32)
    words = []
    for at, role, prompt in turns(random, voices, seconds=seconds):
      first = round(at * clock.SAMPLE_RATE)
      span = slice(first, first + len(prompt.audio))
      sound[span, stereo.ROLES.index(role)] += prompt.audio
      words += [
        {"role": role, "start": at + w.start, "end": at + w.end, "text": w.text}
        for w in prompt.words
      ]
    if noise is not None:
      sound += random.normal(0, 10 ** (noise / 20), sound.shape)
    soundfile.write(
      folder / f"{number:04d}.wav", sound, clock.SAMPLE_RATE, subtype="PCM_16"
    )
    text = json.dumps({"words": words})
    (folder / f"{number:04d}.json").write_text(text, encoding="utf-8")


def prompts(variant: str, *, voice: str = "asterisk") -> list[Track]:
  """Up to 200 prompts of a voice: recorded ones, or those of a formula.

  Raises:
    errors.UserError: the package with the prompts is not there.
  """
  settings = source.Settings(root=pathlib.Path("/"))
  found = source.SOURCES[voice](variant, settings=settings)
  tracks = []
  for number in np.random.default_rng(0).permutation(len(found)).tolist():
    try:
      tracks.append(found[number].tracks[0])
    except BadRecording:
      continue
    if len(tracks) == _PROMPTS:
      break
  return tracks


def turns(
  random: np.random.Generator,
  voices: Mapping[Role, list[Track]],
  *,
  seconds: float,
) -> Iterator[tuple[float, Role, Track]]:
  """Prompts with their times and speakers."""
  time = 0.5
  for role in itertools.cycle(stereo.ROLES):
    for _ in range(random.integers(1, 4)):
      prompt = voices[role][random.integers(len(voices[role]))]
      length = len(prompt.audio) / clock.SAMPLE_RATE
      if time + length > seconds:
        return
      yield time, role, prompt
      time += length + random.uniform(0.1, 0.5)
    # Between turns a third of a second in the mean, sometimes less than none.
    time += np.clip(random.normal(0.0, 0.35), -0.4, 1.5)
    if random.random() < 0.05:
      time += random.uniform(2.0, 6.0)
