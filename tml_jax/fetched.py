"""A folder of a bucket, copied to a disk before work, within a bound.

For: prepared data, whose files are read at random places from several
processes. Not for: data that no disk of a host can hold, which a mount serves
(docs/run_on_tpu.md), nor workdirs (`files`). Start reading at `fetch`.

A file of the bucket is told by its size and the tag that the bucket gives its
bytes; what is there with the same ones is not copied again. A file gets its
name when it is whole, and is then recorded: what is cut goes on from there.
Several processes of a host may fetch the same: one copies, the others wait for
its lock and find its files.
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Set

from absl import logging

from tml_jax import buckets, errors, files

_MANIFEST = "fetched.jsonl"  # a tag by name each; beside the folder
_PARTIAL = ".fetching-"
_THREADS = 8
_GIB = 2**30


def fetch(url: str, *, directory: str, most_bytes: float) -> pathlib.Path:
  """Copies what is below a URL and is not here yet.

  Args:
    url: of a folder in a bucket.
    directory: that copies of buckets lie in, each in a folder of its own.
    most_bytes: that this folder may hold.

  Returns:
    The folder, in which the files have the names below `url`.

  Raises:
    errors.UserError: there is nothing, or no room; says how much is needed.
    errors.TransientError: the connection or the disk fails.
  """
  source = files.path(url)
  what = f"--data_cache={directory}"
  place = pathlib.Path(directory).absolute() / _name_of(url)
  files.make(place, what=what)
  with _alone(place, what=what):
    return _fetched(source, place=place, most_bytes=most_bytes, what=what)


def _fetched(
  source: pathlib.Path, *, place: pathlib.Path, most_bytes: float, what: str
) -> pathlib.Path:
  """The same by the one process that holds the lock of `place`."""
  url, folder, manifest = str(source), place / "files", place / _MANIFEST
  with buckets.reached(f"--data_dir={url} cannot be read"):
    found = buckets.tags(source)
  if not found:
    raise errors.UserError(f"--data_dir={url}: there is nothing")
  total = sum(size for size, _ in found.values())
  if total > most_bytes:
    raise errors.UserError(
      f"--data_cache_gib={most_bytes / _GIB:g}: {url} has"
      f" {total / _GIB:.3g} GiB; allow that, or {_fix(url)}"
    )
  known = {
    line.get("name"): line.get("tag")
    for line in files.read_json_lines(manifest)
  }
  wanted = {
    name: size
    for name, (size, tag) in found.items()
    if known.get(name) != tag or not _is_whole(folder / name, size=size)
  }
  _remove_others(folder, names=found.keys() - wanted.keys())
  _check_room(wanted, place=place, what=what, url=url)
  if wanted:
    logging.info(
      "copying %.2f of %.2f GiB of %s to %s",
      sum(wanted.values()) / _GIB,
      total / _GIB,
      url,
      folder,
    )
  recording = threading.Lock()

  def copy(name: str) -> None:
    _copy(source / name, to=folder / name)
    with recording:
      files.append_line(manifest, line=_line(name, tag=found[name][1]))

  with buckets.reached(f"{url} cannot be copied to {folder}"):
    _for_each(wanted, do=copy)
    lines = [_line(name, tag=tag) for name, (_, tag) in found.items()]
    files.write_atomically(manifest, content="\n".join([*lines, ""]))
  return folder


def _line(name: str, *, tag: str) -> str:
  return json.dumps({"name": name, "tag": tag})


def _for_each(names: Iterable[str], *, do: Callable[[str], None]) -> None:
  """Calls `do` in several threads; after a fault no further ones are begun."""
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    for _ in pool.map(do, names):  # cancels the others where one raises
      pass


@contextlib.contextmanager
def _alone(place: pathlib.Path, *, what: str) -> Iterator[None]:
  """Waits for other processes; the lock of one that is killed is free."""
  descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      logging.info("another process copies to %s: waiting for it", place)
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
      raise errors.of_system(
        error,
        f"{what} cannot be locked ({error.strerror}): name a directory on a"
        " disk of this host",
      ) from error
    yield
  finally:
    os.close(descriptor)


def _name_of(url: str) -> str:
  """A folder's name for a URL; the same for all starts."""
  digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
  return f"{url.rstrip('/').rpartition('/')[2]}-{digest}"


def _is_whole(file: pathlib.Path, *, size: int) -> bool:
  return file.is_file() and file.stat().st_size == size


def _fix(url: str) -> str:
  return f"give another --data_cache, or mount {url} (docs/run_on_tpu.md)"


def _check_room(
  wanted: Mapping[str, int], *, place: pathlib.Path, what: str, url: str
) -> None:
  """Refuses what would fill the disk."""
  needed = sum(wanted.values())
  free = shutil.disk_usage(place).free
  if needed > free:
    raise errors.UserError(
      f"{what} has {free / _GIB:.3g} GiB free, and {needed / _GIB:.3g} GiB of"
      f" {url} are to come: make room, {_fix(url)}"
    )


def _remove_others(folder: pathlib.Path, *, names: Set[str]) -> None:
  """Files that the bucket has no longer, or not so, and parts of killed copies.

  Nobody else copies meanwhile: whoever removes holds the lock.
  """
  for file in sorted(folder.rglob("*")):
    if file.is_file() and file.relative_to(folder).as_posix() not in names:
      file.unlink(missing_ok=True)


def _copy(source: pathlib.Path, *, to: pathlib.Path) -> None:
  """A file, whole or not at all."""
  to.parent.mkdir(parents=True, exist_ok=True)
  descriptor, partial = tempfile.mkstemp(dir=to.parent, prefix=_PARTIAL)
  try:
    with open(descriptor, "wb") as file:
      for block in buckets.blocks(source):
        file.write(block)
      file.flush()
      os.fsync(file.fileno())  # it is recorded as whole
    os.replace(partial, to)
  except BaseException:
    pathlib.Path(partial).unlink(missing_ok=True)
    raise
