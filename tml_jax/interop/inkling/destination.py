"""A directory that appears whole or not at all.

For: what an import or export writes. Start at `check`, then `finish`.
"""

import os
import pathlib
import shutil

from tml_jax import buckets, errors, files, workdir


def check(path: str, *, flag: str) -> pathlib.Path:
  """Proves that a new directory can be made at `path`; writes nothing.

  Raises:
    errors.UserError: it is there and not empty, or cannot be written.
  """
  if not path:
    raise errors.UserError(f"{flag} is missing: name a new directory")
  if buckets.is_url(path):
    raise errors.UserError(
      f"{flag}={path} is a URL, and this is made on a disk: name a directory"
      " there, and copy it to the bucket afterwards"
    )
  directory = pathlib.Path(path).absolute()
  if (directory / workdir.CHECKPOINTS).is_dir():
    raise errors.UserError(
      f"{flag}={path} holds checkpoints already: name a new directory"
    )
  if directory.exists() and not directory.is_dir():
    raise errors.UserError(f"{flag}={path} is a file: name a new directory")
  if directory.is_dir() and any(directory.iterdir()):
    raise errors.UserError(f"{flag}={path} is not empty: name a new directory")
  parent = directory.parent
  while not parent.exists():
    parent = parent.parent
  files.check(parent, what=f"{flag}={path}")
  return directory


def partial(directory: pathlib.Path) -> pathlib.Path:
  """Where to write until `finish`; what a killed process left is removed."""
  result = directory.with_name(f".{directory.name}.partial")
  if result.exists():
    shutil.rmtree(result)
  result.mkdir(parents=True)
  return result


def finish(written: pathlib.Path, *, directory: pathlib.Path) -> None:
  os.replace(written, directory)
