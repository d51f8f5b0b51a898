"""Proves that a directory can be written, and writes files whole or not at all.

For: entry points and what they call. Start at `check`, before work is done, and
`write_atomically`, after it. `load_json` is for files that others wrote.
"""

import json
import os
import pathlib
import tempfile
from typing import Any

from absl import logging

from tml_jax import errors

_FIX = "name a directory that can"
_MOST_WARNINGS = 10  # of one process: a bar of progress reads twice a second


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


def sync_directory(path: pathlib.Path) -> None:
  """Makes names in a directory last: those of files that were renamed."""
  descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def append_line(path: pathlib.Path, *, line: str) -> None:
  """Adds a line; one before it that a kill has cut stays a line of its own."""
  with open(path, "ab+") as file:
    if file.seek(0, os.SEEK_END):
      file.seek(-1, os.SEEK_END)
      if file.read(1) != b"\n":
        line = "\n" + line
    file.write(f"{line}\n".encode())


def read_json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """The objects of a file with one on each line; [] where there is no file.

  Lines that are cut or damaged are left out, with a warning.
  """
  if not path.exists():
    return []
  found = []
  for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
    if not line.strip():
      continue
    value = _object(line)
    if value is None:
      logging.log_first_n(
        logging.WARNING,
        "%s:%d is cut or damaged: left out",
        _MOST_WARNINGS,
        path,
        number,
      )
    else:
      found.append(value)
  return found


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
  """The object in a small file; None, with a warning, where it is damaged.

  Also None, without a word, where there is no file.
  """
  if not path.exists():
    return None
  value = _object(path.read_bytes())
  if value is None:
    logging.warning("%s is empty, cut or damaged: begun anew", path)
  return value


def _object(text: bytes) -> dict[str, Any] | None:
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    return None
  return value if isinstance(value, dict) else None


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
  return errors.of_system(
    error, f"{what} cannot be written ({error.strerror}): {fix}"
  )
