"""The one exception that means "your input, not our code".

For: anything a user can cause and can mend (flags, files, data, a full disk).
Not for: broken invariants, which stay ValueError with a traceback. Entry
points print a `UserError` as one line and exit with status 2. `escaped` is for
names and texts of others on a terminal.
"""

import json

_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # of letters


class UserError(Exception):
  """Bad input. The message names the value that is wrong and the fix.

  As text it is one line that a terminal only shows.
  """

  def __str__(self) -> str:
    return escaped(super().__str__())


def is_shown(letter: str) -> bool:
  """Whether a terminal shows it on the same line, and does nothing else."""
  return letter.isprintable() or letter in _JOINERS


def escaped(text: str) -> str:
  """`text` with what is not shown as JSON writes it, for instance \\u001b.

  JSON stays the same JSON, if it is in one line.
  """
  if text.isprintable():
    return text
  return "".join(c if is_shown(c) else json.dumps(c)[1:-1] for c in text)
