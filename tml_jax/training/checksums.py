"""Checksums of everything that a checkpoint holds.

For: both tiers, which write `CHECKSUMS` into the directory of a step before it
gets its name, and compare the files with it before they read them. A directory
without it, or with other bytes than it says, is damaged. In a bucket, too, what
was written is read back for them: that costs a save as much as a restore, in
the background. Not for: what damage
is answered with (`tiers`). Start reading at `write` and `damage`.

CRC-32 finds every flipped bit, every burst of up to 32 bits, and all but one in
4e9 of any other change; it is no defence against somebody who means it.
"""

import concurrent.futures
import contextlib
import functools
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tml_jax import buckets
from tml_jax import files as files_lib
from tml_jax import workdir as workdir_lib

_CHUNK = 1 << 24  # bytes in memory at once, of each thread
_THREADS = 8
# Of a process that saves with others; `write` puts them together.
_PART = workdir_lib.CHECKSUMS + ".process_"
_UNFINISHED = ".orbax-checkpoint-tmp"  # what Orbax adds to names until the end
Sums = dict[str, tuple[int, int]]  # bytes and CRC-32, by path in the directory


def write(
  directory: pathlib.Path, *, known: Mapping[str, tuple[int, int]] = {}
) -> None:
  """Writes the checksums of all files below `directory`, all synced to disk.

  Args:
    directory: of a step, complete but for its name.
    known: of files that need not be read again, nor synced.

  Raises:
    OSError: what was written cannot be read back, or this not be written.
  """
  sums = dict(known)
  parts = [directory / name for name in _parts(directory)]
  for part in parts:
    sums |= _read(part)
  names = [name for name in _names(directory) if name not in sums]
  sums |= _sums(directory, names=names, sync=True)
  _write(directory / workdir_lib.CHECKSUMS, sums=sums)
  for part in parts:
    part.unlink()
  if not buckets.is_url(directory):
    for parent, _, _ in os.walk(directory):
      files_lib.sync_directory(pathlib.Path(parent))


def write_part(directory: pathlib.Path, *, index: int) -> None:
  """Writes the checksums of the files that one of several processes made.

  Args:
    directory: of the step that all of them write.
    index: of this process.
  """
  mine = f"ocdbt.process_{index}"
  names = [x for x in _names(directory) if mine in pathlib.Path(x).parts]
  sums = {}
  for name, value in _sums(directory, names=names, sync=True).items():
    item, rest = name.split("/", 1)
    sums[f"{item.split(_UNFINISHED)[0]}/{rest}"] = value
  _write(directory / f"{_PART}{index}", sums=sums)


def under_way(checkpoints: pathlib.Path, *, step: int) -> pathlib.Path:
  """The directory of a step that Orbax is writing.

  Raises:
    OSError: there is none.
  """
  if buckets.is_url(checkpoints):  # it has its name from the beginning
    return checkpoints / str(step)
  found = list(checkpoints.glob(f"{step}{_UNFINISHED}*"))
  if len(found) != 1:
    raise OSError(f"{len(found)} unfinished saves of step {step}, not 1")
  return found[0]


def damage(directory: pathlib.Path, *, index: int = 0, count: int = 1) -> str:
  """What is wrong with a step, in words; "" if it is whole.

  Of `count` processes each compares a share of the files, about equal in
  bytes.

  Raises:
    errors.TransientError: the disk or the network does not answer.
    errors.UserError: it may not be read.
  """
  share = functools.partial(_share, index=index, count=count)
  return _damage(directory, chosen=share)


def damage_of(directory: pathlib.Path, *, name: str) -> str:
  """The same of one file, and of the sizes of all; see `damage`."""
  return _damage(directory, chosen=lambda sums: [name] if name in sums else [])


def _damage(
  directory: pathlib.Path, *, chosen: Callable[[Sums], list[str]]
) -> str:
  try:
    return _first_damage(directory, chosen=chosen)
  except Exception as error:  # clients of buckets have their own kinds
    what = f"checkpoint {directory} cannot be read"
    raise files_lib.fault(error, what=what) from error


def _first_damage(
  directory: pathlib.Path, *, chosen: Callable[[Sums], list[str]]
) -> str:
  path = directory / workdir_lib.CHECKSUMS
  try:
    sums = _read(path)
  except FileNotFoundError:
    return f"{path} is missing"
  except NotADirectoryError:
    return f"{directory} is no directory"
  except (ValueError, TypeError, AttributeError, RecursionError):
    return f"{path} is cut or damaged"
  if not sums:
    return f"{path} is empty"
  sizes = _sizes(directory, names=sums)
  for name, (size, _) in sums.items():
    if (found := sizes.get(name)) is None:
      return f"{directory / name} is missing"
    if found != size:
      return f"{directory / name} has {found} bytes instead of {size}"
  names = chosen(sums)
  for name, value in _sums(directory, names=names, sync=False).items():
    if value != sums[name]:
      return f"{directory / name} has other bytes than were written"
  return ""


def of_block(data: Any, before: tuple[int, int] = (0, 0)) -> tuple[int, int]:
  """Bytes and CRC-32 of a file after another block of bytes."""
  size, crc = before
  return size + len(data), zlib.crc32(data, crc)


def _names(directory: pathlib.Path) -> list[str]:
  """Files of a step, without those that Orbax changes when it names it."""
  if buckets.is_url(directory):
    names = list(buckets.sizes(directory))
  else:
    names = [
      path.relative_to(directory).as_posix()
      for path in directory.rglob("*")
      if path.is_file()
    ]
  left_out = ("_", workdir_lib.CHECKSUMS, workdir_lib.COMMITTED)
  return sorted(
    name for name in names if "/" in name or not name.startswith(left_out)
  )


def _parts(directory: pathlib.Path) -> list[str]:
  """What processes have written of their shares of a step."""
  if buckets.is_url(directory):
    names = buckets.names(directory)
  else:
    names = [path.name for path in directory.iterdir()]
  return sorted(name for name in names if name.startswith(_PART))


def _sizes(directory: pathlib.Path, *, names: Iterable[str]) -> dict[str, int]:
  """Bytes of those files of a step that are there."""
  if buckets.is_url(directory):
    return buckets.sizes(directory)
  found = {}
  for name in names:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
      found[name] = (directory / name).stat().st_size
  return found


def _sums(directory: pathlib.Path, *, names: list[str], sync: bool) -> Sums:
  def one(name: str) -> tuple[int, int]:
    value = (0, 0)
    if buckets.is_url(directory):
      for chunk in buckets.blocks(directory / name):
        value = of_block(chunk, value)
      return value
    with open(directory / name, "rb") as file:
      while chunk := file.read(_CHUNK):
        value = of_block(chunk, value)
      if sync:
        os.fsync(file.fileno())
    return value

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    return dict(zip(names, pool.map(one, names), strict=True))


def _share(sums: Sums, *, index: int, count: int) -> list[str]:
  """The largest file goes to whoever has least."""
  totals = [0] * count
  mine = []
  for name in sorted(sums, key=lambda name: (-sums[name][0], name)):
    place = totals.index(min(totals))
    totals[place] += sums[name][0]
    if place == index:
      mine.append(name)
  return mine


def _write(path: pathlib.Path, *, sums: Sums) -> None:
  files_lib.write_atomically(path, content=json.dumps(sums, indent=0))


def _read(path: pathlib.Path) -> Sums:
  result = {}
  for name, (size, crc) in json.loads(path.read_bytes()).items():
    parts = pathlib.PurePosixPath(name).parts
    if type(size) is not int or type(crc) is not int or ".." in parts:
      raise ValueError(name)
    if not parts or parts[0] == "/":
      raise ValueError(name)
    result[name] = (size, crc)
  return result
