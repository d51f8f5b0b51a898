"""Places in buckets, gs://BUCKET/... and s3://BUCKET/..., used like paths.

For: `files`, through which a run reads and writes its workdir wherever that
is, and what opens a bucket with TensorStore. Not for: corpora
(`data.corpus.place`), local paths. Start reading at `path`, then `put`.

An object is there when all of it is, and a bucket gives back at once what was
written (Amazon since 2020, Google always). It has no directories: names only
look like it. So nothing is renamed, and a folder is complete when the object
that is written last is there.
"""

import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, cast

from tml_jax import errors

EXTRAS = {"gs": "gcs", "s3": "s3"}  # of this package, by kind of URL
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
# Where errors of the clients come from; each has its own kinds.
_CLIENTS = (
  *("botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "s3fs"),
  "fsspec",
)
_REFUSED = re.compile(
  r"\b(401|403|Access ?Denied|Forbidden|InvalidAccessKeyId|Signature|"
  r"NoSuchBucket|PERMISSION_DENIED|UNAUTHENTICATED|credentials?)\b|"
  r"bucket does not exist",
  re.IGNORECASE,
)
# About two minutes, with pauses that grow from 1 to 32 s.
RETRIES = {"max_retries": 8}
_BLOCK = 1 << 24  # bytes asked for at once


def is_url(text: str | os.PathLike[str]) -> bool:
  """Whether it names a place in a bucket."""
  return re.match(r"(gs|s3)://", os.fspath(text)) is not None


def path(text: str | os.PathLike[str]) -> pathlib.Path:
  """A place in a bucket; does what a `pathlib.Path` does, over the network.

  Raises:
    errors.UserError: it names no bucket, or the package that reads it is
      missing.
  """
  url = os.fspath(text)
  kind, _, rest = url.partition("://")
  if not re.match(r"[^/]", rest):
    raise errors.UserError(f"{url} names no bucket: write {kind}://BUCKET/PATH")
  try:
    __import__(_PACKAGES[kind])
  except ImportError as error:
    raise errors.UserError(
      f"{url}: {kind}:// needs another package ({error}): pip install"
      f" 'tml_jax[{EXTRAS[kind]}]'"
    ) from error
  import fsspec
  from etils import epath

  # Others write there too; a listing that is kept would hide it.
  for each in EXTRAS:
    fsspec.config.conf.setdefault(each, {})["use_listings_cache"] = False
  return cast(pathlib.Path, epath.Path(url))


def put(place: pathlib.Path, *, content: bytes) -> None:
  """Writes an object, whole or not at all, in place of one that is there."""
  store, name = _opened(place)
  store.pipe_file(name, content)


def create(place: pathlib.Path, *, content: bytes) -> None:
  """Writes an object where there is none; of several who try at once one does.

  Raises:
    FileExistsError: it is there.
  """
  store, name = _opened(place)
  try:
    store.pipe_file(name, content, mode="create")
  except Exception as error:  # each client has its own for this
    if place.exists():
      raise FileExistsError(str(place)) from error
    raise


def put_file(file: pathlib.Path, *, to: pathlib.Path) -> None:
  """Copies a local file into a bucket; it is there when all of it is."""
  store, name = _opened(to)
  store.put_file(str(file), name)


def sizes(folder: pathlib.Path) -> dict[str, int]:
  """Bytes of every object below a folder, by the name below it."""
  return {name: size for name, (size, _) in tags(folder).items()}


def tags(folder: pathlib.Path) -> dict[str, tuple[int, str]]:
  """The same, with a tag of the bytes of each: ETag, or Google's MD5.

  Without objects that only stand for a folder, whose names end in "/": a
  console makes them, and gcsfuse.
  """
  store, root = _opened(folder)
  try:
    found = store.find(root, detail=True)
  except FileNotFoundError:
    return {}
  start = len(root) + 1
  return {
    name[start:]: (
      int(entry["size"] or 0),
      str(entry.get("md5Hash") or entry.get("ETag") or entry.get("etag")),
    )
    for name, entry in sorted(found.items())
    if name.startswith(f"{root}/") and not name.endswith("/")
  }


def names(folder: pathlib.Path) -> list[str]:
  """What is in a folder, objects and folders; nothing where there is none."""
  store, root = _opened(folder)
  try:
    found = store.ls(root, detail=False)
  except FileNotFoundError:
    return []
  return sorted({name.rstrip("/").rpartition("/")[2] for name in found})


def blocks(place: pathlib.Path) -> Iterator[bytes]:
  """An object, a block at a time."""
  store, name = _opened(place)
  size = store.info(name)["size"]
  for start in range(0, size, _BLOCK):
    yield store.cat_file(name, start=start, end=min(start + _BLOCK, size))


def move(folder: pathlib.Path, *, to: pathlib.Path, last: str) -> None:
  """Moves a folder, object by object: the old one goes when the new is there.

  Args:
    folder: of objects.
    to: of no objects.
    last: name of the object that says that the folder is complete; it is
      copied last and removed first.
  """
  store, root = _opened(folder)
  names = sorted(sizes(folder), key=lambda name: name == last)
  for name in names:
    store.cp_file(f"{root}/{name}", f"{_opened(to)[1]}/{name}")
  for name in reversed(names):
    store.rm_file(f"{root}/{name}")


def _opened(place: pathlib.Path) -> tuple[Any, str]:
  """The client, and what it calls the place."""
  import fsspec

  store, name = fsspec.core.url_to_fs(str(place))
  return store, name.rstrip("/")


def spec(url: str, *, environment: Mapping[str, str] = os.environ) -> Any:
  """What TensorStore opens; by itself it reads no AWS_ENDPOINT_URL.

  Args:
    url: of a bucket; of another kind it is given back.
    environment: AWS_ENDPOINT_URL, with it the region, and credentials.

  Raises:
    errors.UserError: the region is missing.
  """
  if not is_url(url):
    return url
  kind, _, rest = url.partition("://")
  bucket, _, path_in_it = rest.partition("/")
  found: dict[str, Any] = {"bucket": bucket, "path": path_in_it}
  if kind == "gs":
    return {"driver": "gcs", "gcs_request_retries": RETRIES, **found}
  found = {"driver": "s3", "s3_request_retries": RETRIES, **found}
  if environment.get("AWS_ACCESS_KEY_ID"):  # else the library says at length
    found["aws_credentials"] = {"type": "environment"}  # what else it lacks
  endpoint = environment.get("AWS_ENDPOINT_URL", "")
  region = environment.get("AWS_REGION") or environment.get(
    "AWS_DEFAULT_REGION", ""
  )
  if endpoint and not region:
    raise errors.UserError(
      f"{url}: AWS_ENDPOINT_URL is set and AWS_REGION is missing; give the"
      " region of that server"
    )
  if endpoint:
    found |= {"endpoint": endpoint, "aws_region": region}
  return found


def is_fault(error: BaseException | None) -> bool:
  """Whether a client of buckets has raised it, or what it comes of."""
  while error is not None:
    if {_package(type(error).__module__), _raiser(error)} & {*_CLIENTS}:
      return True
    error = error.__cause__ or error.__context__
  return False


def _raiser(error: BaseException) -> str:
  """The package whose code has raised it: plain OSErrors, too."""
  trace = error.__traceback__
  while trace is not None and trace.tb_next is not None:
    trace = trace.tb_next
  name = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
  return _package(name)


def _package(module: str) -> str:
  return module.partition(".")[0]


def fault(error: BaseException, *, what: str) -> errors.UserError:
  """The line on what a client has raised; says whether it may pass.

  Args:
    error: by a client, or that comes of one.
    what: the place or flag and what cannot be done, for the message.
  """
  words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
  if _REFUSED.search(words) or isinstance(error, PermissionError):
    return errors.UserError(
      f"{what} ({words}): see to the name of the bucket, the credentials of"
      " this machine and their rights to list, read, write and delete"
    )
  return errors.TransientError(
    f"{what} ({words}): see to the connection, then run the same command again"
  )


@contextlib.contextmanager
def reached(what: str) -> Iterator[None]:
  """Whatever a client raises inside becomes one line; see `fault`."""
  try:
    yield
  except (errors.UserError, FileNotFoundError, FileExistsError):
    raise
  except Exception as error:
    if is_fault(error):
      raise fault(error, what=what) from error
    if isinstance(error, OSError):  # of a disk on this side
      reason = error.strerror or error
      raise errors.of_system(error, f"{what} ({reason})") from error
    raise


class Mirror:
  """A folder on a disk whose files are copied into a bucket.

  For what libraries write that know disks only. Not for anything that a run
  needs again.

  Attributes:
    folder: to write in; the place itself where that is on a disk.
  """

  def __init__(self, place: pathlib.Path):
    """Of a place anywhere."""
    self._place = place
    self._sent: dict[str, tuple[int, int]] = {}
    self._made = None
    self.folder = place
    if is_url(place):
      self._made = tempfile.TemporaryDirectory(prefix="tml_jax_")
      self.folder = pathlib.Path(self._made.name)

  def push(self) -> None:
    """Copies what has changed since."""
    if self._made is None:
      return
    for file in sorted(self.folder.rglob("*")):
      if not file.is_file():
        continue
      name = file.relative_to(self.folder).as_posix()
      state = file.stat()
      now = (state.st_size, state.st_mtime_ns)
      if self._sent.get(name) != now:
        put_file(file, to=self._place / name)
        self._sent[name] = now

  def close(self) -> None:
    """Copies the rest and removes the folder on the disk."""
    try:
      self.push()
    finally:
      if self._made is not None:
        self._made.cleanup()
        self._made = None
