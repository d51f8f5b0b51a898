"""Proves that a directory can be written, before work is done for it.

For: entry points and what they call. Start at `check`.
"""

import pathlib
import tempfile

from tml_jax import errors

_FIX = "name a directory that can"


def make(directory: pathlib.Path, *, what: str, fix: str = _FIX) -> None:
  """Makes a directory, with its parents, and proves it.

  Args:
    directory: it may be there already.
    what: the flag and its value, for the message.
    fix: what to do instead.

  Raises:
    errors.UserError: it cannot be written.
  """
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise _error(error, what=what, fix=fix) from error
  check(directory, what=what, fix=fix)


def check(directory: pathlib.Path, *, what: str, fix: str = _FIX) -> None:
  """Proves a directory that is there; leaves nothing in it. See `make`."""
  try:
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
      file.write(b"x")  # a full disk takes a name and no bytes
  except OSError as error:
    raise _error(error, what=what, fix=fix) from error


def _error(error: OSError, *, what: str, fix: str) -> errors.UserError:
  return errors.UserError(f"{what} cannot be written ({error.strerror}): {fix}")
