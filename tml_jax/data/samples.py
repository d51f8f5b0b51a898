"""Files that belong together by their names: NAME.jpg and NAME.txt.

For: importers that read such pairs from a folder or from tar files. Not for:
manifests (`records`). Start at `Folder` and `Tars`.
"""

import dataclasses
import functools
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from tml_jax.data import records, source, stored
from tml_jax.data.source import BadRecording, Part, Reason

SOUNDS = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aac")
MAX_FILE = 512 << 20  # bytes of one file, which is in memory
_PART = 64 << 20  # bytes of the files of a folder that are read together
BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)


@dataclasses.dataclass(frozen=True)
class Sample:
  """Files of one name.

  Attributes:
    name: within the source, without an extension.
    files: what reads each, by its extension in small letters.
  """

  name: str
  files: Mapping[str, Callable[[], bytes]]

  def first(self, ends: Sequence[str]) -> tuple[str, bytes] | None:
    """Name and bytes of the first file with one of these extensions.

    Raises:
      BadRecording: it cannot be read.
    """
    for end in ends:
      if end in self.files:
        return f"{self.name}.{end}", self.files[end]()
    return None

  def text(
    self, field: str, *, missing: Reason, ends: Sequence[str] = ("txt",)
  ) -> tuple[str, str]:
    """What is written about it, and its language if NAME.json tells.

    Args:
      field: of NAME.json, where there is no file of text.
      missing: why it is of no use without a text.
      ends: extensions of files of text.

    Raises:
      BadRecording: there is nothing, or nothing that can be read.
    """
    plain, record = self.first(ends), {}
    if (described := self.first(("json",))) is not None:
      name, data = described
      record = records.parse(stored.text(data, name=name), name=name)
    language = record.get("language")
    if not isinstance(language, str):
      language = ""
    if plain is None:
      if described is None:
        raise BadRecording(missing, self.name)
      found = records.text_of(record, field, name=self.name, missing=missing)
      return found, language
    name, data = plain
    found = stored.text(data, name=name).removeprefix("\ufeff").strip()
    if not found:
      raise BadRecording(missing, f"{name} is empty")
    return found, language


class Folder:
  """The samples of a folder and those below it."""

  def __init__(self, place: stored.Place, *, ends: Sequence[str]):
    """Lists the files with these extensions.

    Raises:
      errors.UserError: there are none.
    """
    self._place = place
    files: dict[str, list[stored.File]] = {}
    for file in place.files(ends=[f".{end}" for end in ends]):
      files.setdefault(posixpath.splitext(file.name)[0], []).append(file)
    self._parts: dict[str, list[list[stored.File]]] = {}
    size, part = _PART, ""
    for name in sorted(files):
      if size >= _PART:
        part, size = name, 0
        self._parts[part] = []
      self._parts[part].append(files[name])
      size += sum(file.size for file in files[name])

  def parts(self) -> list[Part]:
    result = []
    for name, samples in self._parts.items():
      files = [file for sample in samples for file in sample]
      stamps = "\n".join(file.stamp for file in files).encode()
      stamp = f"{len(files)} files {zlib.crc32(stamps):08x}"
      result.append(Part(name, stamp, sum(file.size for file in files)))
    return result

  def read(self, part: Part) -> Iterator[Sample | BadRecording]:
    for files in self._parts[part.name]:
      read = {
        posixpath.splitext(file.name)[1][1:].lower(): functools.partial(
          self._place.read, file.path, limit=MAX_FILE
        )
        for file in files
      }
      yield Sample(posixpath.splitext(files[0].name)[0], read)


class Tars:
  """The samples of tar files, in which they lie one after the other.

  A name ends at the first dot of the base name, as WebDataset has it.
  """

  def __init__(self, place: stored.Place, *, ends: Sequence[str]):
    """Lists the tar files, of which the files with these extensions are read.

    Raises:
      errors.UserError: there are none.
    """
    self._place, self._ends = place, frozenset(ends)
    self._tars = {
      file.name: file
      for file in place.files(ends=(".tar", ".tar.gz", ".tgz", ".tar.xz"))
    }

  def parts(self) -> list[Part]:
    return [
      Part(file.name, file.stamp, file.size) for file in self._tars.values()
    ]

  def read(self, part: Part) -> Iterator[Sample | BadRecording]:
    tar, name = self._tars[part.name], ""
    files: dict[str, Callable[[], bytes]] = {}
    try:
      with (
        self._place.fs.open(tar.path, "rb") as handle,
        tarfile.open(fileobj=handle, mode="r|*") as opened,
      ):
        for member in opened:
          # Else it keeps all headers.
          opened.members.clear()  # type: ignore[attr-defined]
          folder, base = posixpath.split(source.as_text(member.name))
          stem, _, end = base.partition(".")
          end = end.lower()
          if not member.isfile() or not stem or end not in self._ends:
            continue
          key = posixpath.join(folder, stem)
          if key != name:
            if files:
              yield Sample(f"{tar.name}/{name}", files)
            name, files = key, {}
          files[end] = _member(opened, member)
    except stored.TRANSIENT:
      raise
    except BROKEN as error:
      yield BadRecording(
        Reason.TRUNCATED, f"{tar.name} behind {name!r}: {error!r:.200}"
      )
      return
    if files:
      yield Sample(f"{tar.name}/{name}", files)


def _member(
  opened: tarfile.TarFile, member: tarfile.TarInfo
) -> Callable[[], bytes]:
  """What gives the bytes of a member, which are read now."""
  if member.size > MAX_FILE:
    name = source.as_text(member.name)
    return functools.partial(_too_large, f"{name}: {member.size} bytes")
  file = opened.extractfile(member)
  data = file.read() if file else b""
  return lambda: data


def _too_large(detail: str) -> bytes:
  raise BadRecording(Reason.TOO_LARGE, detail)
