"""Synthetic voices of the festival program, Debian's festvox-* packages.

For: English diphone voices, slowly (half a second of work a prompt). Not for:
other languages. Start reading at `open_voice`. The variant is a folder of
/usr/share/festival/voices/*: kal_diphone, ked_diphone.
"""

import functools
import pathlib
import subprocess
import tempfile

from tml_jax import errors, registry
from tml_jax.data import source
from tml_jax.data.voices import programs

_PROGRAM = "text2wave"
_VOICES = pathlib.Path("/usr/share/festival/voices")


@source.register("festival")
def open_voice(variant: str, *, settings: source.Settings) -> programs.Voice:
  """The festival voice `variant`.

  Raises:
    errors.UserError: the program or the voice is not installed.
  """
  programs.check(_PROGRAM, voice=f"festival:{variant}", package="festival")
  found = installed()
  if variant not in found:
    raise errors.UserError(
      f"festival:{variant}: there is no {variant!r} in {_VOICES}/*; install its"
      " Debian package (festvox-kallpc16k, festvox-kdlpc16k); "
      + registry.nearest(variant, names=found)
    )
  return programs.Voice(
    variant,
    program=programs.Program("festival", speak, _version),
    language="en",
    settings=settings,
  )


def installed() -> list[str]:
  """Names of the voices that are there."""
  return sorted({path.name for path in _VOICES.glob("*/*")})


def speak(text: str, *, voice: str) -> bytes:
  """A WAV file of a text.

  Raises:
    subprocess.CalledProcessError: the program failed.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "said.wav")
    subprocess.run(
      [_PROGRAM, "-eval", f"(voice_{voice})", "-o", str(path)],
      input=text.encode(),
      capture_output=True,
      check=True,
    )
    return path.read_bytes()


@functools.cache
def _version() -> str:
  return subprocess.run(
    ["festival", "--version"], capture_output=True, text=True, check=True
  ).stdout.strip()
