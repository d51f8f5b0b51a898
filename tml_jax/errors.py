"""The one exception that means "your input, not our code".

For: anything a user can cause and can mend (flags, files, data, a full disk).
Not for: broken invariants, which stay ValueError with a traceback. Entry
points print a `UserError` as one line and exit with status 2.
"""


class UserError(Exception):
  """Bad input. The message names the value that is wrong and the fix."""
