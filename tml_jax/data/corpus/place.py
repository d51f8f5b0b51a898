"""Where a corpus lies: a local folder, or a prefix in a bucket.

For: writing files whole or not at all, and looking at what is there, on
`gs://` and `s3://` as on a disk. Not for: what is in them. Start at `Place`.
A name is relative, with slashes. On a disk a file gets its name when all of it
is written; an object appears in a bucket when its upload is complete.
"""

import contextlib
import os
import pathlib
import shutil
import zlib
from collections.abc import Iterator

import fsspec
from fsspec.implementations import local

from tml_jax import errors, files

_EXTRAS = "pip install 'tml_jax[s3]' or 'tml_jax[gcs]'"


class Place:
  """A folder or a prefix, by path or URL."""

  def __init__(self, root: str | os.PathLike[str]):
    """Opens nothing on a disk; makes a client for a bucket.

    Raises:
      errors.UserError: no such kind of URL, or its package is missing.
    """
    self._name = str(root)
    try:
      self._fs, self._root = fsspec.core.url_to_fs(self._name)
    except (ImportError, ValueError) as error:
      raise errors.UserError(
        f"{self._name}: {error}; for buckets, {_EXTRAS}"
      ) from error
    self.is_local = isinstance(self._fs, local.LocalFileSystem)

  def __str__(self) -> str:
    return self._name

  @property
  def path(self) -> pathlib.Path:
    """Of a local folder."""
    assert self.is_local, self._name
    return pathlib.Path(self._root)

  def read(self, name: str) -> bytes:
    """A whole file.

    Raises:
      FileNotFoundError: it is not there.
      errors.UserError: it cannot be read; says why.
    """
    with self._reached(name):
      return self._fs.cat_file(self._at(name))

  def write(self, name: str, *, content: bytes) -> None:
    """A whole file, in place of one that is there.

    Raises:
      errors.UserError: it cannot be written; says why.
    """
    with self._reached(name):
      if self.is_local:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, content=content)
      else:
        self._fs.pipe_file(self._at(name), content)

  def crc32(self, name: str) -> int:
    """CRC-32 of a file, a block at a time.

    Raises:
      FileNotFoundError, errors.UserError: as of `read`.
    """
    checksum = 0
    with self._reached(name), self._fs.open(self._at(name), "rb") as file:
      while block := file.read(1 << 22):
        checksum = zlib.crc32(block, checksum)
    return checksum

  def put(self, file: pathlib.Path, name: str) -> None:
    """Takes a finished local file, which is gone from where it was.

    Raises:
      errors.UserError: it cannot be written; says why.
    """
    with self._reached(name):
      if self.is_local:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "rb+") as handle:
          os.fsync(handle.fileno())
        shutil.move(file, path)
        files.sync_directory(path.parent)
      else:
        self._fs.put_file(str(file), self._at(name))
        file.unlink()

  def sizes(self, below: str = "") -> dict[str, int]:
    """Bytes of every file below a name, by name; {} where there is nothing.

    Raises:
      errors.UserError: it cannot be looked at; says why.
    """
    with self._reached(below):
      try:
        self._fs.invalidate_cache()
        found = self._fs.find(self._at(below), detail=True)
      except FileNotFoundError:
        return {}
      start = len(self._root.rstrip("/")) + 1
      return {
        path[start:]: int(entry["size"] or 0)
        for path, entry in sorted(found.items())
        if path.startswith(self._root.rstrip("/") + "/")
      }

  def remove(self, name: str) -> None:
    """A file that may be gone already."""
    with self._reached(name), contextlib.suppress(FileNotFoundError):
      self._fs.rm_file(self._at(name))

  def _at(self, name: str) -> str:
    return f"{self._root.rstrip('/')}/{name}" if name else self._root

  @contextlib.contextmanager
  def _reached(self, name: str) -> Iterator[None]:
    """Whatever a client raises becomes one line."""
    try:
      yield
    except (errors.UserError, FileNotFoundError):
      raise
    except Exception as error:  # each client has its own
      raise errors.UserError(
        f"{self._name}/{name} cannot be reached: {type(error).__name__}:"
        f" {str(error) or 'no reason given'}; see to the disk, the permission"
        " or the connection and run this again: what is finished stays"
      ) from error
