"""Voices of programs that speak: what they share.

For: a program that makes a WAV file of a text, as a voice that says every
prompt of its language. Not for: the programs (`espeak`, `flite`, `festival`).
Start reading at `Voice`.
"""

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable

from tml_jax import errors
from tml_jax.data import media, source, utterance
from tml_jax.data.source import Says
from tml_jax.data.voices import asterisk, phrases
from tml_jax.streams.timeline import Timeline


@dataclasses.dataclass(frozen=True)
class Program:
  """A program that speaks.

  Attributes:
    name: of the source in config.data.voices.
    speak: a WAV file of a text, by the name of a voice; raises
      `subprocess.CalledProcessError` where the program failed.
    version: of the program, which says the same text in its own way.
  """

  name: str
  speak: Callable[..., bytes]  # speak(text, voice=NAME)
  version: Callable[[], str]


class Voice:
  """One voice of a program saying every prompt of its language."""

  def __init__(
    self,
    variant: str,
    *,
    program: Program,
    language: str,
    settings: source.Settings,
  ):
    self._variant, self._program = variant, program
    self._language = language
    self._prompts = _prompts(
      language, voice=f"{program.name}:{variant}", settings=settings
    )

  def __len__(self) -> int:
    return len(self._prompts)

  def __getitem__(self, index: int) -> Timeline:
    prompt, text = self._prompts[index]
    try:
      spoken = self._program.speak(text, voice=self._variant)
    except subprocess.CalledProcessError as error:
      raise source.BadRecording(
        source.Reason.UNREADABLE,
        f"{prompt}: {error.cmd[0]} ended with {error.returncode}: "
        + (error.stderr or b"").decode(errors="replace").strip(),
      ) from error
    return utterance.build(
      media.sound_of_bytes(spoken, name=prompt, limits=utterance.LIMITS),
      voice=f"{self._program.name}:{self._variant}",
      language=self._language,
      prompt=prompt,
      text=text,
    )

  def stamp(self, index: int) -> str:
    return f"{' '.join(self._prompts[index])} {self._program.version()}"


def check(program: str, *, voice: str, package: str) -> None:
  """Refuses a program that is not installed.

  Raises:
    errors.UserError: naming the Debian package.
  """
  if shutil.which(program) is None:
    raise errors.UserError(
      f"{voice} needs the program {program}, which is not in PATH; install the"
      f" Debian package {package}"
    )


def _prompts(
  language: str, *, voice: str, settings: source.Settings
) -> list[tuple[str, str]]:
  """Prompt ids and texts, in order of id."""
  has_transcripts = asterisk.transcript_path(
    language, root=settings.root
  ).is_file()
  if settings.says is Says.TRANSCRIPTS and has_transcripts:
    written = asterisk.transcripts(language, root=settings.root)
    spoken = {p: asterisk.spoken_text(t) for p, t in written.items()}
    texts = {p: t for p, t in spoken.items() if re.search(r"\w", t)}
    if language == "en":
      texts |= phrases.DELAYS
  elif language == "en":
    texts = phrases.PHRASES
  else:
    raise errors.UserError(
      f"{voice} has nothing to say: the built-in phrases are English; "
      f"install the Debian package asterisk-core-sounds-{language}, or give "
      "--sounds_root the folder it was unpacked into"
    )
  return sorted(texts.items())
