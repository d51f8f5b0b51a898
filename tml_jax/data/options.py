"""What an importer or a transform is told: NAME=VALUE, all as text.

For: the importers, and `augment`. Not for: the fields of a config. Start at
`Options`.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from tml_jax import errors, registry

# Of every importer: what all of its items are known to be, and the pixels that
# its video must have (`prepare` gives those of the config).
COMMON = {"language": "", "licence": "", "size": "240x320"}


@dataclasses.dataclass(frozen=True)
class Range:
  """Numbers from `low` to `high`, both included."""

  low: float
  high: float

  def draw(self, random: np.random.Generator) -> float:
    """One of them, each as likely as another."""
    return float(random.uniform(self.low, self.high))


class Options:
  """The options of one importer, with defaults for those that are not given."""

  def __init__(
    self,
    given: Mapping[str, str],
    *,
    known: Mapping[str, str],
    importer: str,
    common: Mapping[str, str] = COMMON,
  ):
    """Refuses what the importer does not know.

    Args:
      given: on the command line.
      known: defaults by name.
      importer: its name, for messages.
      common: defaults of what all of its kind have.

    Raises:
      errors.UserError: an option that there is not.
    """
    values = {**common, **known}
    for name in given:
      if name not in values:
        raise errors.UserError(
          f"{importer} has no option {name!r};"
          f" {registry.nearest(name, names=[*values])}"
        )
    self._importer = importer
    self._values = {**values, **given}

  def __getitem__(self, name: str) -> str:
    return self._values[name]

  def choice(self, name: str, *, among: tuple[str, ...]) -> str:
    """One of some words.

    Raises:
      errors.UserError: another one.
    """
    value = self._values[name]
    if value not in among:
      raise self.error(name, want=f"one of {', '.join(among)}")
    return value

  def number(self, name: str, *, low: float, high: float) -> float:
    """A number from `low` to `high`.

    Raises:
      errors.UserError: none, or another one.
    """
    want = f"a number from {low:g} to {high:g}"
    try:
      value = float(self._values[name])
    except ValueError as error:
      raise self.error(name, want=want) from error
    if not low <= value <= high:
      raise self.error(name, want=want)
    return value

  def range(self, name: str, *, low: float, high: float) -> Range:
    """Written A..B, or A for one number; within `low` to `high`.

    Raises:
      errors.UserError: not written so, or outside.
    """
    want = f"A..B with numbers from {low:g} to {high:g}, or one number"
    first, dots, last = self._values[name].partition("..")
    try:
      found = Range(float(first), float(last if dots else first))
    except ValueError as error:
      raise self.error(name, want=want) from error
    if not low <= found.low <= found.high <= high:
      raise self.error(name, want=want)
    return found

  def size(self, name: str) -> tuple[int, int]:
    """Height and width, written HEIGHTxWIDTH.

    Raises:
      errors.UserError: not written so.
    """
    height, _, width = self._values[name].partition("x")
    if not (height.isdecimal() and width.isdecimal()):
      raise self.error(name, want="HEIGHTxWIDTH, for instance 240x320")
    if not (0 < int(height) <= 4096 and 0 < int(width) <= 4096):
      raise self.error(name, want="pixels from 1x1 to 4096x4096")
    return int(height), int(width)

  def where(self, name: str) -> str:
    """Names an option in a message."""
    return f"{self._importer}: {name}"

  def error(self, name: str, *, want: str) -> errors.UserError:
    """That an option has a value which it cannot have."""
    value = self._values[name]
    return errors.UserError(f"{self._importer}: {name}={value!r}; write {want}")

  def metadata(self, kind: str, *, language: str = "") -> dict[str, str]:
    """Of an item of this kind, whose language may be known better."""
    return {
      "kind": kind,
      "licence": self["licence"],
      "language": language or self["language"],
    }
