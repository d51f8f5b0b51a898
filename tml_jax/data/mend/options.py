"""What `prepare` is told to measure, to mend and to write into recordings.

For: the flags --check, --mend, --annotate, --recogniser, --separate and
--max_leakage_db as one value, which every process gets. Not for: doing it
(`stage`). Start reading at `Mending`.
"""

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import TypeVar

from tml_jax import errors, registry


class Check(enum.StrEnum):
  """What is measured; docs/mend.md has a line for each."""

  UNITS = "units"
  SILENT = "silent"
  RATE = "rate"
  SWAP = "swap"
  DRIFT = "drift"
  OFFSET = "offset"
  ECHO = "echo"
  LEAKAGE = "leakage"


# Nothing brings back a channel that is silent, or takes leakage out.
MENDS = (
  *(Check.UNITS, Check.RATE, Check.SWAP, Check.DRIFT, Check.OFFSET),
  Check.ECHO,
)


class Annotation(enum.StrEnum):
  """What is written into tracks that have none."""

  SPEECH = "speech"
  WORDS = "words"


POCKETSPHINX = "pocketsphinx"
MAX_LEAKAGE_DB = -15.0
ALL, NONE = "all", "none"


@dataclasses.dataclass(frozen=True)
class Mending:
  """What is done between reading a recording and writing it.

  Attributes:
    check: what is measured.
    mend: faults that are mended; others skip the recording.
    annotate: what is written into tracks that have none.
    recogniser: NAME or NAME:ARGUMENT of who writes words.
    max_leakage_db: between channels that a separator has made.
  """

  check: tuple[Check, ...] = tuple(Check)
  mend: tuple[Check, ...] = ()
  annotate: tuple[Annotation, ...] = ()
  recogniser: str = POCKETSPHINX
  max_leakage_db: float = MAX_LEAKAGE_DB

  def __post_init__(self) -> None:
    """Refuses what is not measured and shall be mended, and no level.

    Raises:
      errors.UserError: says which.
    """
    blind = [each for each in self.mend if each not in self.check]
    if blind:
      raise errors.UserError(
        f"--mend={blind[0]} needs its measure: add {blind[0]} to --check"
      )
    if not (math.isfinite(self.max_leakage_db) and self.max_leakage_db < 0):
      raise errors.UserError(
        f"--max_leakage_db={self.max_leakage_db:g}: write a level below 0 dB,"
        f" for instance {MAX_LEAKAGE_DB:g}"
      )

  def __str__(self) -> str:
    """Text that tells two values apart; "" for what is so by default."""
    default = DEFAULT
    parts = []
    if self.check != default.check:
      parts.append(f"check={','.join(self.check) or NONE}")
    if self.mend:
      parts.append(f"mend={','.join(self.mend)}")
    if self.annotate:
      parts.append(f"annotate={','.join(self.annotate)}")
      if Annotation.WORDS in self.annotate:
        parts.append(f"recogniser={self.recogniser}")
    if self.max_leakage_db != default.max_leakage_db:
      parts.append(f"max_leakage_db={self.max_leakage_db:g}")
    return " ".join(parts)


DEFAULT = Mending()
OFF = Mending(check=())  # of prompts, which nobody recorded with another


def checks(names: Sequence[str]) -> tuple[Check, ...]:
  """Of --check: `all`, `none`, or names.

  Raises:
    errors.UserError: no such check.
  """
  if [*names] == [ALL]:
    return tuple(Check)
  if [*names] == [NONE] or not names:
    return ()
  return chosen(names, among=tuple(Check), flag="--check")


Choice = TypeVar("Choice", Check, Annotation)


def chosen(
  names: Sequence[str], *, among: tuple[Choice, ...], flag: str
) -> tuple[Choice, ...]:
  """Some of these, in their order here.

  Raises:
    errors.UserError: another name.
  """
  for name in names:
    if name not in [str(each) for each in among]:
      raise errors.UserError(
        f"{flag}={name!r}; {registry.nearest(name, names=[*map(str, among)])}"
      )
  return tuple(each for each in among if str(each) in names)
