"""Synthetic voices of the espeak-ng program.

For: many voices of one text, so that two speakers can say the same prompt.
Speaks the transcripts of the recorded prompts where these are installed, and
the built-in phrases elsewhere. Not for: natural speech. Start reading at
`Voice`. The variant is a voice of espeak-ng, perhaps with a speaker variant:
en-us, en-us+f3, en-gb+m3, fr-fr, es-419, it, ru.
"""

import functools
import re
import shutil
import subprocess

import numpy as np

from tml_jax import errors, registry
from tml_jax.data import media, source, utterance
from tml_jax.data.voices import asterisk, phrases
from tml_jax.streams.timeline import Timeline

_PROGRAM = "espeak-ng"


class Voice:
  """One voice saying every prompt of its language."""

  def __init__(self, variant: str, *, settings: source.Settings):
    _check_voice(variant)
    self._variant = variant
    self._language = re.split(r"[-+]", variant)[0]
    self._prompts = _prompts(self._language, variant=variant, settings=settings)

  def __len__(self) -> int:
    return len(self._prompts)

  def __getitem__(self, index: int) -> Timeline:
    prompt, text = self._prompts[index]
    return utterance.build(
      _speak(text, variant=self._variant, prompt=prompt),
      voice=f"espeak:{self._variant}",
      language=self._language,
      prompt=prompt,
      text=text,
    )

  def stamp(self, index: int) -> str:
    return f"{' '.join(self._prompts[index])} {_version()}"


@source.register("espeak")
def open_voice(variant: str, *, settings: source.Settings) -> Voice:
  """The espeak-ng voice `variant`."""
  return Voice(variant, settings=settings)


def _prompts(
  language: str, *, variant: str, settings: source.Settings
) -> list[tuple[str, str]]:
  """Prompt ids and texts, in order of id."""
  if asterisk.transcript_path(language, root=settings.root).is_file():
    written = asterisk.transcripts(language, root=settings.root)
    spoken = {p: asterisk.spoken_text(t) for p, t in written.items()}
    texts = {p: t for p, t in spoken.items() if re.search(r"\w", t)}
    if language == "en":
      texts |= phrases.DELAYS
  elif language == "en":
    texts = phrases.PHRASES
  else:
    raise errors.UserError(
      f"espeak:{variant} has nothing to say: the built-in phrases are English; "
      f"install the Debian package asterisk-core-sounds-{language}, or give "
      "--sounds_root the folder it was unpacked into"
    )
  return sorted(texts.items())


def _speak(text: str, *, variant: str, prompt: str) -> np.ndarray:
  """[1, n] at 16 kHz."""
  done = subprocess.run(
    [_PROGRAM, "-v", variant, "--stdout", "--stdin"],
    input=text.encode(),
    capture_output=True,
  )
  if done.returncode:
    raise source.BadRecording(
      source.Reason.UNREADABLE,
      f"{prompt}: {_PROGRAM} ended with {done.returncode}: "
      + done.stderr.decode(errors="replace").strip(),
    )
  return media.sound_of_bytes(done.stdout, name=prompt, limits=utterance.LIMITS)


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
  if shutil.which(_PROGRAM) is None:
    raise errors.UserError(
      f"espeak:{variant} needs the program {_PROGRAM}, which is not in PATH; "
      "install the Debian package espeak-ng"
    )
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
