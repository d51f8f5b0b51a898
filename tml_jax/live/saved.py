"""A live session in a directory.

For: `SessionPool.save` and `read`. Not for: what a finished session leaves for
people to read (`report`). One file, written beside its name and renamed,
so that a reader finds the old one, the new one or none. Start at `Snapshot`.
"""

import dataclasses
import json
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from tml_jax import errors

FILE = "session.npz"  # a zip: every member carries its checksum
_VERSION = 1
# Bytes: of the header, 4 for each letter of its JSON, and of what numpy writes
# before the data of an array.
_MOST_HEADER, _MOST_FORMAT = 16 << 20, 1024


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """All of a live session.

  Attributes:
    arrays: of the cache and the voice, in order.
    state: of the host side.
    fingerprint: of the model.
  """

  arrays: Sequence[np.ndarray]
  state: dict[str, Any]
  fingerprint: str


def write(directory: str | os.PathLike[str], *, snapshot: Snapshot) -> None:
  """Writes the file, or leaves what was there.

  Args:
    directory: made if it is not there.
    snapshot: what is written.

  Raises:
    errors.UserError: it cannot be written.
  """
  path = pathlib.Path(directory) / FILE
  partial = path.with_name(f".{FILE}-{os.getpid()}")
  header = {
    "version": _VERSION,
    "fingerprint": snapshot.fingerprint,
    "state": snapshot.state,
  }
  # Bytes, because numpy cannot store bfloat16.
  parts: dict[str, Any] = {
    f"array_{index}": np.frombuffer(array.tobytes(), np.uint8)
    for index, array in enumerate(snapshot.arrays)
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
) -> Snapshot:
  """What `write` wrote.

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
    with zipfile.ZipFile(path) as file:
      header = _header(file)
      found = header["version"], header["fingerprint"]
      # Before anything is unpacked whose size this model does not know.
      if found != (_VERSION, fingerprint):
        raise _of_another_model(path, found=found, fingerprint=fingerprint)
      arrays = [
        _bytes(file, f"array_{i}", size=leaf.dtype.itemsize * leaf.size)
        .view(leaf.dtype)
        .reshape(leaf.shape)
        for i, leaf in enumerate(like)
      ]
      if len(file.namelist()) != len(arrays) + 1:
        raise ValueError(f"it holds {len(file.namelist())} members")
      state = dict(header["state"])
  except errors.UserError:
    raise
  except Exception as error:  # zip and its codecs raise many unrelated types
    raise errors.UserError(
      f"{path} is broken ({error!r}): save the session again"
    ) from error
  return Snapshot(arrays=arrays, state=state, fingerprint=fingerprint)


def _header(file: zipfile.ZipFile) -> dict[str, Any]:
  """The JSON of the header, as numpy writes a string: 4 bytes a letter."""
  with _open(file, "header", most=_MOST_HEADER) as member:
    shape, dtype = _read_format(member)
    if shape != () or dtype.kind != "U":
      raise ValueError(f"the header is {dtype} of shape {shape}")
    text = str(np.frombuffer(_read_exactly(member, dtype.itemsize), dtype)[0])
  header = json.loads(text)
  if not isinstance(header, dict):
    raise ValueError("the header is no JSON object")
  return header


def _bytes(file: zipfile.ZipFile, name: str, *, size: int) -> np.ndarray:
  """[size] uint8 of a member that must have as many."""
  with _open(file, name, most=size) as member:
    shape, dtype = _read_format(member)
    if shape != (size,) or dtype != np.uint8:
      raise ValueError(f"{name} is {dtype} of shape {shape}, not {size} bytes")
    return np.frombuffer(_read_exactly(member, size), np.uint8)


def _open(file: zipfile.ZipFile, name: str, *, most: int) -> IO[bytes]:
  info = file.getinfo(f"{name}.npy")
  if info.file_size > most + _MOST_FORMAT:
    raise ValueError(f"{name} unpacks to {info.file_size} bytes")
  return file.open(info)


def _read_format(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
  """Shape and dtype of a .npy file, read up to its data."""
  np.lib.format.read_magic(member)
  shape, _, dtype = np.lib.format.read_array_header_1_0(member)
  return shape, dtype


def _read_exactly(member: IO[bytes], size: int) -> bytearray:
  """The rest of a member; its checksum is compared where it ends."""
  data = bytearray(member.read(size + 1))
  if len(data) != size:
    raise ValueError(f"{member.name} does not hold {size} bytes")
  return data


def _of_another_model(
  path: pathlib.Path, *, found: tuple[Any, Any], fingerprint: str
) -> errors.UserError:
  version, other = found
  return errors.UserError(
    f"{path} is a session of another model (version {version!s:.40},"
    f" fingerprint {other!s:.80}; here {_VERSION}, {fingerprint}): restore it"
    " with the run, the checkpoint and the options of sampling that it was"
    " saved with"
  )
