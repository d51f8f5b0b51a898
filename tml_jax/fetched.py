"""A folder of a bucket, copied to a disk before work, within a bound.

For: prepared data, whose files are read at random places from several
processes. Not for: data that no disk of a host can hold, which a mount serves
(docs/run_on_tpu.md), nor workdirs (`files`). Start reading at `fetch`.

A file of the bucket is told by its size and the tag that the bucket gives its
bytes; what is there with the same ones is not copied again. Several processes
of a host may fetch the same: each file gets its name when it is whole.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping

from absl import logging

from tml_jax import buckets, errors, files

_MANIFEST = "fetched.json"  # tags by name; beside the folder
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
  files.make(pathlib.Path(directory), what=what)
  place = pathlib.Path(directory).absolute() / _name_of(url)
  folder = place / "files"
  with buckets.reached(f"--data_dir={url} cannot be read"):
    found = buckets.tags(source)
  if not found:
    raise errors.UserError(f"--data_dir={url}: there is nothing")
  manifest = place / _MANIFEST
  known = files.read_json(manifest) or {}
  wanted = {
    name: size
    for name, (size, tag) in found.items()
    if known.get(name) != tag or not _is_whole(folder / name, size=size)
  }
  total = sum(size for size, _ in found.values())
  _check_room(
    wanted, total=total, place=place, most_bytes=most_bytes, what=what, url=url
  )
  _remove_others(folder, names={*found})
  if wanted:
    logging.info(
      "copying %.2f of %.2f GiB of %s to %s",
      sum(wanted.values()) / _GIB,
      total / _GIB,
      url,
      folder,
    )
  with (
    buckets.reached(f"{url} cannot be copied to {folder}"),
    concurrent.futures.ThreadPoolExecutor(_THREADS) as pool,
  ):
    for _ in pool.map(lambda n: _copy(source / n, to=folder / n), wanted):
      pass
  tags = {name: tag for name, (_, tag) in found.items()}
  files.write_atomically(manifest, content=json.dumps(tags, indent=0))
  return folder


def _name_of(url: str) -> str:
  """A folder's name for a URL; the same for all starts."""
  digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
  return f"{url.rstrip('/').rpartition('/')[2]}-{digest}"


def _is_whole(file: pathlib.Path, *, size: int) -> bool:
  return file.is_file() and file.stat().st_size == size


def _check_room(
  wanted: Mapping[str, int],
  *,
  total: int,
  place: pathlib.Path,
  most_bytes: float,
  what: str,
  url: str,
) -> None:
  """Refuses what would fill the disk or pass the bound."""
  fix = f"give another --data_cache, or mount {url} (docs/run_on_tpu.md)"
  if total > most_bytes:
    raise errors.UserError(
      f"--data_cache_gib={most_bytes / _GIB:g}: {url} has"
      f" {total / _GIB:.3g} GiB; allow that, or {fix}"
    )
  needed = sum(wanted.values())
  free = shutil.disk_usage(place.parent).free
  if needed > free:
    raise errors.UserError(
      f"{what} has {free / _GIB:.3g} GiB free, and {needed / _GIB:.3g} GiB of"
      f" {url} are to come: make room, {fix}"
    )


def _remove_others(folder: pathlib.Path, *, names: set[str]) -> None:
  """Files that the bucket no longer has; others may just be copying one."""
  for file in sorted(folder.rglob("*")):
    name = file.relative_to(folder).as_posix()
    is_copying = file.name.startswith(_PARTIAL)
    if file.is_file() and name not in names and not is_copying:
      file.unlink(missing_ok=True)


def _copy(source: pathlib.Path, *, to: pathlib.Path) -> None:
  """A file, whole or not at all."""
  to.parent.mkdir(parents=True, exist_ok=True)
  descriptor, partial = tempfile.mkstemp(dir=to.parent, prefix=_PARTIAL)
  try:
    with open(descriptor, "wb") as file:
      for block in buckets.blocks(source):
        file.write(block)
    os.replace(partial, to)
  except BaseException:
    pathlib.Path(partial).unlink(missing_ok=True)
    raise
