"""A live session in a directory.

For: `SessionPool.save` and `restore`. Not for: what a finished session leaves
for people to read (`report`). One file, written beside its name and renamed,
so that a reader finds the old one, the new one or none.
"""

import json
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from tml_jax import errors

FILE = "session.npz"  # a zip: every member carries its checksum
_VERSION = 1


def write(
  directory: str | os.PathLike[str],
  *,
  arrays: Sequence[np.ndarray],
  state: dict[str, Any],
  fingerprint: str,
) -> None:
  """Writes the file, or leaves what was there.

  Args:
    directory: made if it is not there.
    arrays: of the cache, in order.
    state: of the host side.
    fingerprint: of the model.

  Raises:
    errors.UserError: it cannot be written.
  """
  path = pathlib.Path(directory) / FILE
  partial = path.with_name(f".{FILE}-{os.getpid()}")
  header = {"version": _VERSION, "fingerprint": fingerprint, "state": state}
  # Bytes, because numpy cannot store bfloat16.
  parts: dict[str, Any] = {
    f"array_{index}": np.frombuffer(array.tobytes(), np.uint8)
    for index, array in enumerate(arrays)
  }
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with open(partial, "wb") as file:
        np.savez(file, header=np.array(json.dumps(header)), **parts)
        file.flush()
        os.fsync(file.fileno())
      os.replace(partial, path)
    finally:
      partial.unlink(missing_ok=True)
  except OSError as error:
    raise errors.UserError(
      f"{path} cannot be written ({error.strerror}): name a directory that can"
    ) from error


def read(
  directory: str | os.PathLike[str], *, like: Sequence[Any], fingerprint: str
) -> tuple[list[np.ndarray], dict[str, Any]]:
  """Arrays of the cache and the state of the host side.

  Args:
    directory: that `write` was given.
    like: shapes and dtypes of the arrays.
    fingerprint: of the model that goes on.

  Raises:
    errors.UserError: missing, broken, or of another model.
  """
  path = pathlib.Path(directory) / FILE
  if not path.is_file():
    raise errors.UserError(f"{path}: there is no saved session")
  try:
    with np.load(path) as file:
      header = json.loads(str(file["header"]))
      members = [file[f"array_{i}"] for i in range(len(file.files) - 1)]
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise errors.UserError(
      f"{path} is broken ({error}): save the session again"
    ) from error
  if (header["version"], header["fingerprint"]) != (_VERSION, fingerprint):
    raise errors.UserError(
      f"{path} is a session of another model (version {header['version']},"
      f" fingerprint {header['fingerprint']}; here {_VERSION}, {fingerprint}):"
      " restore it with the run, the checkpoint and the options of sampling"
      " that it was saved with"
    )
  arrays = [
    member.view(leaf.dtype).reshape(leaf.shape)
    for member, leaf in zip(members, like, strict=True)
  ]
  return arrays, header["state"]
