"""Speech quality without a reference: DNSMOS P.835.

For: how natural the sound of an agent is, as a network that was trained on
people's opinions has it. Not for: words (`from_sound`), or sound that a
recording is in time with (PESQ and STOI in benchmarks/vocoder.py). Start at
`Dnsmos`.

Three marks from 1 to 5: of the speech (SIG), of what is behind it (BAK), of
both (OVRL). C. K. A. Reddy et al., ICASSP 2022. The package speechmos holds the
networks, MIT, and their code; it was made to judge noise suppressors, and says
nothing of whether words can be understood: speech played backwards has nearly
the marks of speech.
"""

import dataclasses
import enum

import numpy as np

from tml_jax import errors
from tml_jax.streams import clock

SECONDS = 9.01  # that the network hears at once; less is repeated
_LEAST = 2.0  # seconds of a last part, if there are others
_SAMPLES = round(SECONDS * clock.SAMPLE_RATE)


class Measure(enum.StrEnum):
  """What --speech_quality may be."""

  DNSMOS = "dnsmos"


@dataclasses.dataclass(frozen=True)
class Marks:
  """Means of parts of 9 s, each from 1 to 5."""

  sig: float
  bak: float
  ovrl: float


class Dnsmos:
  """The networks of the package."""

  def __init__(self):
    """Loads the package.

    Raises:
      errors.UserError: it, or what it needs, is not installed.
    """
    try:
      from speechmos import dnsmos
    except ImportError as error:
      raise errors.UserError(
        f"--speech_quality={Measure.DNSMOS} needs the package {error.name}: pip"
        " install 'tml_jax[eval]'"
      ) from error
    self._run = dnsmos.run

  def marks(self, sound: np.ndarray) -> Marks | None:
    """Marks of [n] samples of speech at 16 kHz; None where there is no sound.

    Give speech alone: silence has marks, too.
    """
    if not np.any(sound):
      return None
    found = [
      self._run(np.clip(part, -1, 1).astype(np.float32), clock.SAMPLE_RATE)
      for part in parts(sound)
    ]
    return Marks(
      **{
        field.name: float(
          np.mean([each[f"{field.name}_mos"] for each in found])
        )
        for field in dataclasses.fields(Marks)
      }
    )


def parts(sound: np.ndarray) -> list[np.ndarray]:
  """Stretches of 9 s; the last is left out where it is short."""
  found = [
    sound[first : first + _SAMPLES] for first in range(0, len(sound), _SAMPLES)
  ]
  if len(found) > 1 and len(found[-1]) < _LEAST * clock.SAMPLE_RATE:
    found.pop()
  return found
