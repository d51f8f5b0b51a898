"""Recorded telephone prompts: Debian's asterisk-core-sounds-*-g722.

For: real speech in five languages (en, fr, es, it, ru), one speaker each,
with transcripts; about 560 prompts and 25 minutes a language. Not for:
installing the packages. Start reading at `Prompts`.
"""

import gzip
import pathlib
import re
import zlib

from tml_jax import errors, registry
from tml_jax.data import media, source, utterance
from tml_jax.streams.timeline import Timeline

LANGUAGES = ("en", "es", "fr", "it", "ru")
_SOUNDS = "usr/share/asterisk/sounds"
_DOC = "usr/share/doc"


class Prompts:
  """All recordings of one language, in order of their prompt id."""

  def __init__(self, language: str, *, settings: source.Settings):
    if language not in LANGUAGES:
      raise errors.UserError(
        f"asterisk:{language}: no such language; "
        + registry.nearest(language, names=list(LANGUAGES))
      )
    self._language = language
    self._directory = _sounds_directory(language, root=settings.root)
    self._texts = transcripts(language, root=settings.root)
    self._files = sorted(self._directory.rglob("*.g722"))

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, index: int) -> Timeline:
    path = self._files[index]
    prompt = str(path.relative_to(self._directory).with_suffix(""))
    if prompt not in self._texts:
      raise source.BadRecording(source.Reason.NO_TRANSCRIPT, prompt)
    text = spoken_text(self._texts[prompt])
    if not re.search(r"\w", text):
      raise source.BadRecording(
        source.Reason.NO_SPEECH, f"{prompt}: {self._texts[prompt]}"
      )
    return utterance.build(
      media.sound(path, limits=utterance.LIMITS),
      voice=f"asterisk:{self._language}",
      language=self._language,
      prompt=prompt,
      text=text,
    )

  def stamp(self, index: int) -> str:
    path = self._files[index]
    prompt = str(path.relative_to(self._directory).with_suffix(""))
    text = self._texts.get(prompt, "")
    return source.as_text(f"{prompt} {text} ") + source.stamp_of(path)


@source.register("asterisk")
def open_prompts(variant: str, *, settings: source.Settings) -> Prompts:
  """The recorded prompts of the language `variant`."""
  return Prompts(variant, settings=settings)


def transcripts(language: str, *, root: pathlib.Path) -> dict[str, str]:
  """Prompt id to transcript as written, brackets and all.

  Raises:
    errors.UserError: the package with the transcripts is not there.
  """
  path = transcript_path(language, root=root)
  if not path.is_file():
    raise errors.UserError(
      f"no transcripts at {path}; install the Debian package "
      f"asterisk-core-sounds-{language}, or give --sounds_root the folder it "
      "was unpacked into"
    )
  try:
    with gzip.open(path, "rt", encoding="utf-8-sig") as file:
      lines = [line.strip("\ufeff \r\n") for line in file]
  except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
    raise errors.UserError(
      f"{path} cannot be read ({error}); install its package again"
    ) from error
  texts = {}
  for line in lines:
    prompt, colon, text = line.partition(":")
    if colon and not line.startswith(";"):
      texts[prompt.strip()] = text.strip()
  return texts


def transcript_path(language: str, *, root: pathlib.Path) -> pathlib.Path:
  """Where Debian puts the transcripts of `language`."""
  package = f"asterisk-core-sounds-{language}"
  return root / _DOC / package / f"core-sounds-{language}.txt.gz"


def spoken_text(transcript: str) -> str:
  """`transcript` without its notes: [tones], (1 second of silence), <beep>."""
  text = re.sub(r"\[[^]]*\]|\([^)]*\)|<[^>]*>", " ", transcript)
  text = " ".join(text.split())
  return re.sub(r"\s+([.,;:!?])", r"\1", text)


def _sounds_directory(language: str, *, root: pathlib.Path) -> pathlib.Path:
  # The package's own folder (en_US_f_Allison), as the short link is made only
  # when the package is installed, not when it is unpacked into a folder.
  found = sorted(
    path
    for path in (root / _SOUNDS).glob(f"{language}_??_*")
    if path.is_dir() and next(path.rglob("*.g722"), None) is not None
  )
  if not found:
    raise errors.UserError(
      f"no recorded prompts in {root / _SOUNDS}/{language}_*; install the "
      f"Debian packages asterisk-core-sounds-{language}-g722 and "
      f"asterisk-core-sounds-{language}, or give --sounds_root the folder they "
      "were unpacked into"
    )
  return found[0]
