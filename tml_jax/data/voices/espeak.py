"""Synthetic voices of the espeak-ng program.

For: many voices of one text, so that two speakers can say the same prompt.
Speaks the transcripts of the recorded prompts where these are installed, and
the built-in phrases elsewhere. Not for: natural speech. Start reading at
`open_voice`. The variant is a voice of espeak-ng, perhaps with a speaker
variant: en-us, en-us+f3, en-gb+m3, fr-fr, es-419, it, ru.
"""

import functools
import re
import subprocess

from tml_jax import errors, registry
from tml_jax.data import source
from tml_jax.data.voices import programs

_PROGRAM = "espeak-ng"


@source.register("espeak")
def open_voice(variant: str, *, settings: source.Settings) -> programs.Voice:
  """The espeak-ng voice `variant`."""
  _check_voice(variant)
  return programs.Voice(
    variant,
    program=programs.Program("espeak", speak, _version),
    language=re.split(r"[-+]", variant)[0],
    settings=settings,
  )


def speak(text: str, *, voice: str) -> bytes:
  """A WAV file of a text.

  Raises:
    subprocess.CalledProcessError: the program failed.
  """
  return subprocess.run(
    [_PROGRAM, "-v", voice, "--stdout", "--stdin"],
    input=text.encode(),
    capture_output=True,
    check=True,
  ).stdout


@functools.cache
def _voices() -> tuple[set[str], set[str]]:
  """Languages and speaker variants that the program knows."""
  # Columns: Pty Language Age/Gender VoiceName File Other. A voice name has no
  # spaces, the file of a variant may ("!v/Mr serious").
  languages, variants = set(), set()
  listing = _run("--voices").splitlines()[1:]
  for line in listing:
    languages.add(line.split()[1])
    languages.update(re.findall(r"\((\S+) \d+\)", line))
  for line in _run("--voices=variant").splitlines()[1:]:
    found = re.search(r"!v/(\S.*?)\s*$", line)
    if found:
      variants.add(found[1])
  return languages, variants


@functools.cache
def _version() -> str:
  """Of the program, which says the same text in its own way."""
  return _run("--version").split(" Data at")[0].strip()


def _run(argument: str) -> str:
  return subprocess.run(
    [_PROGRAM, argument], capture_output=True, text=True, check=True
  ).stdout


def _check_voice(variant: str) -> None:
  """Refuses a missing program and unknown names.

  The program itself answers an unknown speaker variant with its default voice.
  """
  programs.check(_PROGRAM, voice=f"espeak:{variant}", package=_PROGRAM)
  languages, variants = _voices()
  language, plus, speaker = variant.partition("+")
  if language not in languages:
    raise errors.UserError(
      f"espeak:{variant}: {_PROGRAM} has no voice {language!r}; "
      + registry.nearest(language, names=sorted(languages))
    )
  if plus and speaker not in variants:
    raise errors.UserError(
      f"espeak:{variant}: {_PROGRAM} has no speaker variant {speaker!r}; "
      + registry.nearest(speaker, names=sorted(variants))
    )
