"""Proves that a directory can be written, and writes files whole or not at all.

For: entry points and what they call, on a disk or in a bucket: what `path`
gives for a URL is written and read by the same functions. Start at `check`,
before work is done, and `write_atomically`, after it. `load_json` is for files
that others wrote.
"""

import json
import os
import pathlib
import secrets
import tempfile
from typing import Any

from absl import logging

from tml_jax import buckets, errors

_FIX = "name a directory that can"
_MOST_WARNINGS = 10  # of one process: a bar of progress reads twice a second
_PROBE = ".written-to-see-whether-it-can-be-"  # in a bucket, for a moment
# An object cannot grow, so lines are added by writing it again; a file of more
# bytes is gone on with in another object, NAME.1 after NAME.
_MOST_REWRITTEN = 1 << 20


def path(text: str | os.PathLike[str]) -> pathlib.Path:
  """A place by its name: a path on a disk, or the URL of one in a bucket."""
  return buckets.path(text) if buckets.is_url(text) else pathlib.Path(text)


def absolute(text: str | os.PathLike[str]) -> pathlib.Path:
  """The same from wherever it is looked at."""
  place = path(text)
  return place if buckets.is_url(place) else place.absolute()


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
    if not buckets.is_url(directory):
      directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise _error(error, what=what, fix=fix) from error
  check(directory, what=what, fix=fix)


def check(directory: pathlib.Path, *, what: str, fix: str = _FIX) -> None:
  """Proves a directory that is there; leaves nothing in it. See `make`."""
  if buckets.is_url(directory):
    _check_bucket(directory, what=what)
    return
  try:
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
      file.write(b"x")  # a full disk takes a name and no bytes
  except OSError as error:
    raise _error(error, what=what, fix=fix) from error


def _check_bucket(directory: pathlib.Path, *, what: str) -> None:
  """Writes, lists, reads and deletes an object; a run needs all four."""
  probe = directory / f"{_PROBE}{secrets.token_hex(8)}"
  with buckets.reached(f"{what} cannot be written, read and listed"):
    try:
      buckets.put(probe, content=b"x")
      found = probe.read_bytes() == b"x"
      found = found and probe.name in buckets.names(directory)
      probe.unlink()
    except FileNotFoundError as error:  # one client says so of a bucket
      raise errors.UserError(
        f"{what} cannot be written and read ({error}): make the bucket, or"
        " name one that is there"
      ) from error
  if not found:
    raise errors.TransientError(
      f"{what} does not give back what was just written there"
    )


def make_parents(path: pathlib.Path) -> None:
  """Makes the directories that a file is to lie in; a bucket needs none."""
  if not buckets.is_url(path):
    path.parent.mkdir(parents=True, exist_ok=True)


def write_atomically(path: pathlib.Path, *, content: str | bytes) -> None:
  """Writes all of it (text as UTF-8) or nothing, also when killed half-way."""
  data = content.encode() if isinstance(content, str) else content
  if buckets.is_url(path):
    buckets.put(path, content=data)
    return
  partial = path.with_name(path.name + ".partial")
  partial.unlink(missing_ok=True)
  with open(partial, "xb") as file:  # new: what a link points to stays
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def write_unsynced(path: pathlib.Path, *, content: str) -> None:
  """The same, but a disk that loses power may lose it."""
  if buckets.is_url(path):
    buckets.put(path, content=content.encode())
    return
  partial = path.with_suffix(".partial")
  partial.write_text(content, encoding="utf-8")
  os.replace(partial, path)


def create(path: pathlib.Path, *, content: str) -> None:
  """Writes a file that is not there yet; of several who try one does.

  On a disk another may see it empty or cut for a moment.

  Raises:
    FileExistsError: it is there.
  """
  if buckets.is_url(path):
    buckets.create(path, content=content.encode())
    return
  descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
  with open(descriptor, "w", encoding="utf-8") as file:
    file.write(content)


def sync_directory(path: pathlib.Path) -> None:
  """Makes names in a directory last: those of files that were renamed."""
  if buckets.is_url(path):  # names last there
    return
  descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def append_line(path: pathlib.Path, *, line: str) -> None:
  """Adds a line; one before it that a kill has cut stays a line of its own."""
  if buckets.is_url(path):
    _append_object(path, line=f"{line}\n".encode())
    return
  with open(path, "ab+") as file:
    if file.seek(0, os.SEEK_END):
      file.seek(-1, os.SEEK_END)
      if file.read(1) != b"\n":
        line = "\n" + line
    file.write(f"{line}\n".encode())


def _append_object(path: pathlib.Path, *, line: bytes) -> None:
  """Adds a line to the last of the objects that a file is in."""
  parts = _parts(path)
  content = parts[-1].read_bytes() if parts else b""
  if len(content) >= _MOST_REWRITTEN:
    buckets.put(path.with_name(f"{path.name}.{len(parts)}"), content=line)
  else:
    buckets.put(parts[-1] if parts else path, content=content + line)


def _parts(path: pathlib.Path) -> list[pathlib.Path]:
  """The objects that the lines of a file are in, in order."""
  names = {*buckets.names(path.parent)}
  found = [path.name] if path.name in names else []
  while found and (following := f"{path.name}.{len(found)}") in names:
    found.append(following)
  return [path.with_name(name) for name in found]


def read_lines(path: pathlib.Path) -> bytes | None:
  """What `append_line` wrote; None where there is no file."""
  if buckets.is_url(path):
    parts = _parts(path)
    return b"".join(part.read_bytes() for part in parts) if parts else None
  return path.read_bytes() if path.exists() else None


def read_json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """The objects of a file with one on each line; [] where there is no file.

  Lines that are cut or damaged are left out, with a warning.
  """
  content = read_lines(path)
  if content is None:
    return []
  found = []
  for number, line in enumerate(content.split(b"\n"), start=1):
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
    return json.loads(path.read_bytes().decode("utf-8-sig"))
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


def is_fault(error: BaseException) -> bool:
  """Whether a disk, a network or a bucket is to blame."""
  return isinstance(error, OSError) or buckets.is_fault(error)


def fault(error: BaseException, *, what: str) -> errors.UserError:
  """The line on a fault; says whether another start may help.

  Args:
    error: of a disk, a network or a bucket; another is raised again.
    what: the place or flag, and what cannot be done.
  """
  if buckets.is_fault(error):
    return buckets.fault(error, what=what)
  if isinstance(error, OSError):
    return errors.of_system(error, f"{what} ({error.strerror or error})")
  raise error


def _error(error: OSError, *, what: str, fix: str) -> errors.UserError:
  return errors.of_system(
    error, f"{what} cannot be written ({error.strerror}): {fix}"
  )
