"""Proves that a directory can be written, and writes files whole or not at all.

For: entry points and what they call. Start at `check`, before work is done, and
`write_atomically`, after it.
"""

import os
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


def write_atomically(path: pathlib.Path, *, content: str | bytes) -> None:
  """Writes all of it (text as UTF-8) or nothing, also when killed half-way."""
  partial = path.with_name(path.name + ".partial")
  with open(partial, "wb") as file:
    file.write(content.encode() if isinstance(content, str) else content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def _error(error: OSError, *, what: str, fix: str) -> errors.UserError:
  return errors.UserError(f"{what} cannot be written ({error.strerror}): {fix}")
