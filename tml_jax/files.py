"""Proves that a directory can be written, and writes files whole or not at all.

For: entry points and what they call. Start at `check`, before work is done, and
`write_atomically`, after it. `load_json` is for files that others wrote.
"""

import json
import os
import pathlib
import tempfile
from typing import Any

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
  partial.unlink(missing_ok=True)
  with open(partial, "xb") as file:  # new: what a link points to stays
    file.write(content.encode() if isinstance(content, str) else content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def load_json(path: pathlib.Path) -> Any:
  """The value in a file of JSON (UTF-8, with or without a byte order mark).

  Raises:
    OSError: it cannot be read.
    ValueError: it is no JSON, or nested too deeply to be read.
  """
  try:
    return json.loads(path.read_text(encoding="utf-8-sig"))
  except RecursionError as error:
    raise ValueError("brackets are nested too deeply") from error


def check_inside(path: pathlib.Path, *, root: pathlib.Path, what: str) -> None:
  """Refuses a path that links lead out of a directory; it need not be there.

  For files of others, who say by a link what is read or written.

  Args:
    path: below `root` by its name.
    root: may be a link itself.
    what: the flag and its value, for the message.

  Raises:
    errors.UserError: where it leads.
  """
  try:
    place = path.resolve()
  except (OSError, RuntimeError) as error:  # links in a circle
    raise errors.UserError(f"{path} leads nowhere ({error})") from error
  if not place.is_relative_to(root.resolve()):
    raise errors.UserError(
      f"{path} leads out of {what}, to {place}: copy what is there, or give the"
      " directory that has both"
    )


def _error(error: OSError, *, what: str, fix: str) -> errors.UserError:
  return errors.UserError(f"{what} cannot be written ({error.strerror}): {fix}")
