"""Voices that nobody may train on: held out, so that a test can have them.

For: `evaluate --conditions=voices`, whose users speak with them, `prepare
--unheard`, which makes them, and training, which refuses them. Not for: held
out sentences (`splits`). Start reading at `VOICES`.
"""

import pathlib
from collections.abc import Iterable

from tml_jax import errors
from tml_jax.config import Config
from tml_jax.data import corpus, source

# By language. kal is one speaker in two programs.
BY_LANGUAGE = {
  "en": (
    "flite:awb",
    "flite:kal",
    "festival:kal_diphone",
    "festival:ked_diphone",
    "espeak:en-us+croak",
    "espeak:en-gb+linda",
  ),
  "es": ("espeak:es+f3", "espeak:es+m5"),
  "fr": ("espeak:fr-fr+f3", "espeak:fr-fr+m5"),
  "it": ("espeak:it+f3", "espeak:it+m5"),
  "ru": ("espeak:ru+f3", "espeak:ru+m5"),
}
VOICES = frozenset(v for voices in BY_LANGUAGE.values() for v in voices)
_PROCEDURAL = "procedural"


def check(config: Config) -> None:
  """Refuses unheard voices in what is trained on.

  Raises:
    errors.UserError: `data.voices` or `data.mixture` names one.
  """
  refuse(config.data.voices, field="data.voices")
  refuse(config.data.mixture_weights, field="data.mixture")


def refuse(names: Iterable[str], *, field: str) -> None:
  """Refuses unheard voices, by their name or that of their folder.

  Raises:
    errors.UserError: naming the voice and the field.
  """
  known = {name: name for name in VOICES}
  known |= {source.parse(name).folder: name for name in VOICES}
  for name in names:
    if name in known:
      raise errors.UserError(
        f"{field} names {name!r}, one of the voices that are kept for"
        " `evaluate --conditions=voices` and must not be trained on"
        f" ({', '.join(sorted(VOICES))}): leave it out, or take another"
      )


def of(config: Config) -> tuple[str, ...]:
  """Unheard voices in the languages of a config's voices.

  Raises:
    errors.UserError: a language that has none.
  """
  languages = sorted({language_of(voice) for voice in config.data.voices})
  for language in languages:
    if language not in BY_LANGUAGE:
      raise errors.UserError(
        f"data.voices = {','.join(config.data.voices)}: no unheard voice speaks"
        f" {language!r}; there are some for {', '.join(BY_LANGUAGE)}"
      )
  return tuple(v for language in languages for v in BY_LANGUAGE[language])


def says(config: Config) -> source.Says:
  """What they must say to be understood by who has heard a config's voices."""
  spoken = {source.parse(voice).source for voice in config.data.voices}
  if spoken == {_PROCEDURAL}:
    return source.Says.PHRASES
  return source.Says.TRANSCRIPTS


def open_voices(
  config: Config, *, data_dir: str
) -> dict[str, corpus.RecordSource]:
  """Prepared ones, by name, those of `of`.

  Raises:
    errors.UserError: one is not there.
  """
  root = pathlib.Path(data_dir)
  found = {name: root / source.parse(name).folder for name in of(config)}
  missing = [n for n, p in found.items() if not (p / corpus.INDEX).is_file()]
  if missing:
    raise errors.UserError(
      f"{root} lacks the voices {', '.join(missing)}, which"
      " --conditions=voices,noise speaks with; make them with python -m"
      f" tml_jax.prepare --unheard --data_dir={root} and the --config of the"
      " run, or leave these conditions out"
    )
  return {name: corpus.RecordSource(path) for name, path in found.items()}


def language_of(voice: str) -> str:
  """Two letters, of a name source:variant; made-up phrases pass for English."""
  spec = source.parse(voice)
  if spec.source == _PROCEDURAL:
    return "en"
  return spec.variant.partition("+")[0].partition("-")[0]
