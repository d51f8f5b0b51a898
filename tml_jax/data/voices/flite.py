"""Synthetic voices of the flite program (Carnegie Mellon University).

For: English voices that sound nothing like those of espeak-ng, fast. Not for:
other languages. Start reading at `open_voice`. The variant is a voice that
`flite -lv` lists: awb, kal, rms, slt.
"""

import functools
import pathlib
import subprocess
import tempfile

from tml_jax import errors, registry
from tml_jax.data import source
from tml_jax.data.voices import programs

_PROGRAM = "flite"


@source.register("flite")
def open_voice(variant: str, *, settings: source.Settings) -> programs.Voice:
  """The flite voice `variant`.

  Raises:
    errors.UserError: the program is missing, or it has no such voice.
  """
  programs.check(_PROGRAM, voice=f"flite:{variant}", package=_PROGRAM)
  if variant not in _voices():
    raise errors.UserError(
      f"flite:{variant}: {_PROGRAM} has no voice {variant!r}; "
      + registry.nearest(variant, names=list(_voices()))
    )
  return programs.Voice(
    variant,
    program=programs.Program("flite", speak, _version),
    language="en",
    settings=settings,
  )


def speak(text: str, *, voice: str) -> bytes:
  """A WAV file of a text.

  Raises:
    subprocess.CalledProcessError: the program failed.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "said.wav")
    subprocess.run(
      [_PROGRAM, "-voice", voice, "-t", text, "-o", str(path)],
      capture_output=True,
      check=True,
    )
    return path.read_bytes()


@functools.cache
def _voices() -> tuple[str, ...]:
  """Those that are built in."""
  listing = subprocess.run(
    [_PROGRAM, "-lv"], capture_output=True, text=True, check=True
  ).stdout
  return tuple(listing.partition(":")[2].split())


@functools.cache
def _version() -> str:
  # The program ends with 1 after it has said its version.
  said = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True)
  lines = [line.strip() for line in said.stdout.splitlines()]
  return next((line for line in lines if "version" in line), _PROGRAM)
