"""How an entry of `data.augment` is written.

For: `config.data`, which checks the form, and `data.augment`, which knows the
names. Not for: what a name does. Start at `parse`.
"""

import dataclasses
import re

from tml_jax.config import checks

_FORM = "write NAME:PROBABILITY:OPTION=VALUE, for instance gain:0.5:db=-6..6"
_OPTION = re.compile(r":(?=[a-z]+=)")  # a value may have a colon: a folder


@dataclasses.dataclass(frozen=True)
class Augment:
  """One entry.

  Attributes:
    name: of a transform.
    probability: of each recording, from 0 to 1.
    options: values by name, as text.
  """

  name: str
  probability: float
  options: dict[str, str]


def parse(entry: str) -> Augment:
  """Reads "NAME:PROBABILITY:OPTION=VALUE:OPTION=VALUE".

  Raises:
    errors.UserError: not of that form.
  """
  head, *rest = _OPTION.split(entry)
  name, _, probability = head.partition(":")
  try:
    share = float(probability)
  except ValueError:
    share = -1.0
  where = f"data.augment entry {entry!r}"
  checks.require(name != "" and probability != "", f"{where}: {_FORM}")
  checks.require(
    0 <= share <= 1,
    f"{where}: {probability!r} is no probability from 0 to 1; {_FORM}",
  )
  options: dict[str, str] = {}
  for each in rest:
    option, _, value = each.partition("=")
    checks.require(
      option not in options, f"{where}: {option} is there twice; leave out one"
    )
    options[option] = value
  return Augment(name, share, options)
