"""Files of a source wherever they are stored, and lines of them in parts.

For: importers, which are given a path or a URL (`gs://bucket/folder`,
`s3://...`). Not for: prepared corpora. Start reading at `Place`, then `lines`.
Memory is bounded by one line or one small file, whatever a file says it holds.
"""

import contextlib
import dataclasses
import lzma
import posixpath
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import fsspec

from tml_jax import errors
from tml_jax.data import source
from tml_jax.data.source import BadRecording, Part, Reason

RANGE = 64 << 20  # bytes of a part of a large file
MAX_LINE = 64 << 20  # bytes
_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
# What a network raises: nothing is wrong with the file, so all of it stops.
TRANSIENT = (ConnectionError, TimeoutError)
# What a broken compressed file raises while it is read.
_BROKEN = (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)
# Suffixes of compressed files: they are read from their beginning alone.
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}


@dataclasses.dataclass(frozen=True)
class File:
  """A file of a source.

  Attributes:
    path: in its file system.
    name: below the source's folder, or of the file itself.
    size: bytes.
    stamp: another text when it has changed.
  """

  path: str
  name: str
  size: int
  stamp: str

  @property
  def folder(self) -> str:
    return posixpath.dirname(self.path)


class Place:
  """The file or folder that a source was given."""

  def __init__(self, src: str):
    """Looks whether it is there.

    Raises:
      errors.UserError: nothing is there, or it cannot be looked at.
    """
    self.src = src
    try:
      self.fs, root = fsspec.core.url_to_fs(src)
      self.root = root.rstrip("/") or "/"
      self.is_file = self.fs.isfile(self.root)
      found = self.is_file or self.fs.isdir(self.root)
    except (ImportError, OSError, ValueError) as error:
      raise errors.UserError(f"{src} cannot be opened: {error}") from error
    if not found:
      raise errors.UserError(f"{src}: there is no such file or folder")

  def files(self, *, ends: Sequence[str]) -> list[File]:
    """Files whose names end so, in any letter case, sorted by name.

    Raises:
      errors.UserError: there are none.
    """
    if self.is_file:
      infos = {self.root: self.fs.info(self.root)}
    else:
      infos = self.fs.find(self.root, detail=True)
    files = self._chosen(infos, ends=ends)
    if not files:
      raise errors.UserError(
        f"{self.src} has no file that ends in {', '.join(ends)}"
      )
    return files

  def beside(self, *, ends: Sequence[str]) -> list[File]:
    """The same files, or none; with one file those that are named like it."""
    if not self.is_file:
      return self._chosen(self.fs.find(self.root, detail=True), ends=ends)
    stem = posixpath.splitext(self.root)[0]
    there = self.fs.ls(self.top, detail=True)
    infos = {
      each["name"]: each
      for each in there
      if posixpath.splitext(each["name"])[0] == stem
    }
    return self._chosen(infos, ends=ends)

  @property
  def top(self) -> str:
    """The folder of the source."""
    return posixpath.dirname(self.root) if self.is_file else self.root

  def _chosen(
    self, infos: Mapping[str, Mapping[str, Any]], *, ends: Sequence[str]
  ) -> list[File]:
    wanted = tuple(end.lower() for end in ends)
    files = [
      _file(path, info, top=self.top)
      for path, info in infos.items()
      if path.lower().endswith(wanted) and self._is_file(path, info)
    ]
    return sorted(files, key=lambda file: file.name)

  def _is_file(self, path: str, info: Mapping[str, Any]) -> bool:
    """Also links to files, of which downloads of many data sets are made.

    Links that lead nowhere count too: whoever reads them says that they do.
    """
    return info["type"] == "file" or (
      bool(info.get("islink"))
      and (self.fs.isfile(path) or not self.fs.exists(path))
    )

  def below(self, folder: str, name: str) -> str:
    """The path of `name`, which a manifest in `folder` names.

    Raises:
      BadRecording: it is nowhere in the source: strangers write manifests.
    """
    path = posixpath.normpath(posixpath.join(folder, name))
    if not path.startswith(self.top.rstrip("/") + "/") or "\0" in name:
      raise BadRecording(
        Reason.MISSING, source.as_text(f"{name!r} lies outside of {self.src}")
      )
    return path

  def named(self, path: str) -> str:
    """What messages call a file: as `File.name`, below the source's folder."""
    name = posixpath.relpath(path, self.top) if path else ""
    if name.startswith("../"):  # below an importer's option `root`
      name = posixpath.basename(path)
    return source.as_text(name)

  @contextlib.contextmanager
  def opened(self, path: str) -> Iterator[BinaryIO]:
    """A file that is read as it is needed, of any size.

    Raises:
      BadRecording: it is missing, is no file, or cannot be read.
    """
    name = self.named(path)
    try:
      if not self.fs.isfile(path):  # of a pipe nothing may ever come
        raise BadRecording(Reason.MISSING, name)
      with self.fs.open(path, "rb") as file:
        yield file
    except TRANSIENT:
      raise
    except OSError as error:
      raise BadRecording(
        Reason.UNREADABLE, f"{name:.200}: {error.strerror or error}"
      ) from error

  def read(self, path: str, *, limit: int) -> bytes:
    """A small file.

    Raises:
      BadRecording: it is missing, cannot be read, or has more than `limit`
      bytes.
    """
    name = self.named(path)
    try:
      with self.fs.open(path, "rb") as file:
        data: bytes = file.read(limit + 1)
    except TRANSIENT:
      raise
    except (FileNotFoundError, IsADirectoryError) as error:
      raise BadRecording(Reason.MISSING, name) from error
    except OSError as error:
      raise BadRecording(
        Reason.UNREADABLE, f"{name:.200}: {error.strerror or error}"
      ) from error
    if len(data) > limit:
      raise BadRecording(Reason.TOO_LARGE, f"{name}: over {limit} bytes")
    return data


class Folders:
  """Files by their paths, of folders that are listed once each."""

  def __init__(self, place: Place):
    self._place = place
    self._listed: dict[str, dict[str, Mapping[str, Any]]] = {}

  def find(self, path: str) -> File | None:
    """The file at a path, or None where there is none."""
    folder = posixpath.dirname(path)
    if folder not in self._listed:
      try:
        found = self._place.fs.ls(folder, detail=True)
      except TRANSIENT:
        raise
      except OSError:  # no such folder
        found = []
      self._listed[folder] = {
        posixpath.normpath(each["name"]): each for each in found
      }
    info = self._listed[folder].get(path)
    if info is None or info["type"] == "directory":
      return None
    return _file(path, info, top=self._place.top)


def _file(path: str, info: Mapping[str, Any], *, top: str) -> File:
  size = int(info.get("size") or 0)
  times = ("mtime", "LastModified", "updated", "last_modified", "created")
  changed = next((info[t] for t in times if info.get(t) is not None), "")
  tag = info.get("etag") or info.get("ETag") or info.get("generation") or ""
  name = source.as_text(posixpath.relpath(path, top))
  return File(path, name, size, f"{name} {size} {changed} {tag}".strip())


@dataclasses.dataclass(frozen=True)
class Range:
  """A stretch of a file that is read by lines.

  It has the lines that begin behind its `start` (or at 0) up to its `stop`.
  """

  file: File
  start: int
  stop: int

  @property
  def part(self) -> Part:
    name = f"{self.file.name}@{self.start}"
    return Part(
      name, f"{self.file.stamp} to {self.stop}", self.stop - self.start
    )


def ranges(files: Sequence[File], *, size: int) -> dict[str, Range]:
  """Stretches of files by the name of their part; compressed ones are whole."""
  result = {}
  for file in files:
    step = max(file.size, 1) if compression(file.name) else size
    for start in range(0, max(file.size, 1), step):
      found = Range(file, start, min(start + step, file.size))
      result[found.part.name] = found
  return result


def compression(name: str) -> str | None:
  """fsspec's name of how a file is compressed.

  Raises:
    errors.UserError: what unpacks it is not installed.
  """
  found = COMPRESSED.get(posixpath.splitext(name)[1].lower())
  if found is not None and found not in fsspec.compression.compr:
    raise errors.UserError(
      f"{name}: nothing that is installed reads {found}: unpack it, or install"
      " the package zstandard"
    )
  return found


@dataclasses.dataclass(frozen=True)
class Line:
  """A line without its end, and at which byte of its (unpacked) file it is."""

  at: int
  data: bytes


def lines(
  place: Place, found: Range, *, most: int = MAX_LINE
) -> Iterator[Line | BadRecording]:
  """The lines of a stretch of a file; a mark of byte order is left out.

  A line over `most` bytes, and a file that cannot be unpacked further, come as
  a `BadRecording`.
  """
  name, packed = found.file.name, compression(found.file.name)
  line, too_long = bytearray(), False
  begin, at = found.start, found.start
  skipping = found.start > 0
  with place.fs.open(found.file.path, "rb", compression=packed) as file:
    if found.start:
      file.seek(found.start)
    while True:
      try:
        chunk = file.read(_CHUNK)
      except TRANSIENT:
        raise
      except _BROKEN as error:
        if packed is None:
          raise
        yield BadRecording(Reason.TRUNCATED, f"{name} at {at}: {error}")
        return
      if not chunk:
        break
      cursor = 0
      while True:
        end = chunk.find(b"\n", cursor)
        stop = end if end >= 0 else len(chunk)
        if not skipping and not too_long:
          too_long = len(line) + stop - cursor > most
          if too_long:
            line.clear()
          else:
            line += chunk[cursor:stop]
        if end < 0:
          break
        if not skipping:
          yield _line(line, at=begin, name=name, over=most if too_long else 0)
        skipping = too_long = False
        line.clear()
        cursor, begin = end + 1, at + end + 1
        if packed is None and begin > found.stop:
          return
      at += len(chunk)
  if not skipping and (line or too_long):
    yield _line(line, at=begin, name=name, over=most if too_long else 0)


def _line(
  line: bytearray, *, at: int, name: str, over: int
) -> Line | BadRecording:
  """What was read of a line; or that it has `over` so many bytes, if not 0."""
  if over:
    return BadRecording(Reason.TOO_LARGE, f"{name} at {at}: over {over} bytes")
  data = bytes(line)
  if at == 0 and data.startswith(_BOM):
    data = data.removeprefix(_BOM)
  return Line(at, data.removesuffix(b"\r"))


def text(data: bytes, *, name: str) -> str:
  """What bytes say.

  Raises:
    BadRecording: they are not in UTF-8.
  """
  try:
    return data.decode()
  except UnicodeDecodeError as error:
    raise BadRecording(
      Reason.NOT_UTF8, f"{name}: byte {data[error.start]:#04x}"
    ) from error
