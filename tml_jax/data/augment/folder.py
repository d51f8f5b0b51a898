"""A folder of files of sound: noises, or impulse responses.

For: transforms that need recordings of yours. Not for: one file (`media`).
Start at `Folder`.
"""

import collections
import hashlib
import pathlib
import threading
from collections.abc import Callable

import numpy as np

from tml_jax import errors
from tml_jax.data import media, samples, source

_SECONDS = 3600.0  # of one file
_BYTES = 256 << 20  # of all that is kept, in a process


class Folder:
  """Sounds by number, in the order of their names below the folder."""

  def __init__(self, path: str, *, what: str):
    """Opens every file and decodes its beginning.

    Args:
      path: with folders in it, or without.
      what: the option, for messages.

    Raises:
      errors.UserError: no such folder, no sound in it, or a file with the
        ending of one that is none.
    """
    root = pathlib.Path(path)
    self._what, self._root = what, root
    if not root.is_dir():
      raise errors.UserError(
        f"{what}: there is no folder {path}; give one with files of sound"
      )
    ends = tuple(f".{end}" for end in samples.SOUNDS)
    self._files = sorted(
      file
      for file in root.rglob("*")
      if file.name.lower().endswith(ends) and file.is_file()
    )
    if not self._files:
      raise errors.UserError(
        f"{what}: the folder {path} has no file that ends with"
        f" {', '.join(ends)}; put some there, or give another"
      )
    for file in self._files:
      try:
        media.probe(file)
      except source.BadRecording as error:
        raise self._unreadable(file, error) from error

  def __len__(self) -> int:
    return len(self._files)

  def name(self, number: int) -> str:
    """Of the file, without its folder."""
    return self._files[number].name

  def digest(self) -> str:
    """Of all files: their names below the folder, and their bytes."""
    found = hashlib.sha256()
    for file in self._files:
      name = file.relative_to(self._root).as_posix()
      with open(file, "rb") as opened:
        content = hashlib.file_digest(opened, "sha256").hexdigest()
      found.update(f"{name}\0{content}\n".encode())
    return found.hexdigest()[:16]

  def sound(
    self, number: int, *, make: Callable[[np.ndarray], np.ndarray]
  ) -> np.ndarray:
    """What `make` makes of its [channels, n] float32 at 16 kHz.

    It is kept with others that were used lately, and must not be written to.

    Raises:
      errors.UserError: the file is broken behind its beginning.
    """
    file = self._files[number]
    key = (file, make.__qualname__)
    found = _KEPT.get(key)
    if found is None:
      try:
        decoded = media.sound(file, limits=media.Limits(seconds=_SECONDS))
      except source.BadRecording as error:
        raise self._unreadable(file, error) from error
      found = make(decoded)
      found.flags.writeable = False
      _KEPT.put(key, found)
    return found

  def _unreadable(
    self, file: pathlib.Path, error: source.BadRecording
  ) -> errors.UserError:
    return errors.UserError(
      f"{self._what}: {file} cannot be used ({error}); mend or remove it"
    )


class _Kept:
  """Sounds of this process that were used lately."""

  def __init__(self, most: int):
    self._most, self._bytes = most, 0
    self._lock = threading.Lock()
    self._sounds: collections.OrderedDict[
      tuple[pathlib.Path, str], np.ndarray
    ] = collections.OrderedDict()

  def get(self, key: tuple[pathlib.Path, str]) -> np.ndarray | None:
    with self._lock:
      if key in self._sounds:
        self._sounds.move_to_end(key)
      return self._sounds.get(key)

  def put(self, key: tuple[pathlib.Path, str], sound: np.ndarray) -> None:
    with self._lock:
      if key in self._sounds:
        return
      self._sounds[key] = sound
      self._bytes += sound.nbytes
      while self._bytes > self._most and len(self._sounds) > 1:
        _, old = self._sounds.popitem(last=False)
        self._bytes -= old.nbytes


_KEPT = _Kept(_BYTES)
