"""What a source of recordings is, and the list of those that exist.

For: the protocols, the registries and the ways a recording can be bad. Not for:
reading prepared shards (`corpus`). Start reading at `Source`, which gives
recordings by number, and `Streamed`, which reads large files from their
beginning to their end; a worked example is docs/add_a_data_source.md.
"""

import dataclasses
import enum
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar, runtime_checkable

from tml_jax import errors, registry
from tml_jax.streams import timeline
from tml_jax.streams.document import Document


@runtime_checkable
class Source(Protocol):
  """Recordings by index.

  `source[i]` gives the same timeline every time. It raises `BadRecording` for
  a recording that cannot be used; `prepare` skips and counts those. A source
  must survive pickling, as `prepare` and the loader use several processes.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> timeline.Timeline: ...


@dataclasses.dataclass(frozen=True)
class Part:
  """Something of a source that is read alone: a file, or a stretch of one.

  Attributes:
    name: names it within the source; no two have the same.
    stamp: another text when its content has changed (name, size, time).
    bytes: about how large it is, to cut the work evenly.
  """

  name: str
  stamp: str
  bytes: int


@runtime_checkable
class Streamed(Protocol):
  """A source that is read in parts, each from its beginning to its end.

  `parts()` comes from names and sizes alone, in the same order every time.
  `read(part)` yields what is in it, and a `BadRecording` for what cannot be
  used, which `prepare` skips and counts. It must survive pickling and be small:
  every process gets one.
  """

  def parts(self) -> list[Part]: ...

  def read(
    self, part: Part
  ) -> "Iterator[timeline.Timeline | Document | BadRecording]": ...


@runtime_checkable
class Stamped(Protocol):
  """A source that can say what a recording is made of, without reading it.

  `source.stamp(i)` is another text when the recording has changed, and names
  it: no two have the same. `prepare` then decodes only what is new or changed.
  `stamp_of` makes one of files.
  """

  def stamp(self, index: int) -> str: ...


def stamp_of(*paths: pathlib.Path) -> str:
  """Names, sizes and times of change of the files of a recording."""
  parts = []
  for path in paths:
    try:
      found = path.stat()
      parts.append(f"{path.name} {found.st_size} {found.st_mtime_ns}")
    except OSError:
      parts.append(f"{path.name} missing")
  return as_text("; ".join(parts))


def as_text(name: str) -> str:
  """`name` as text that can be written, whatever bytes a file's name has."""
  return name.encode(errors="backslashreplace").decode()


class Reason(enum.StrEnum):
  """Why a recording was skipped; the text appears in the report."""

  UNREADABLE = "cannot be read"
  EMPTY = "empty"
  TRUNCATED = "truncated"
  NOT_FINITE = "NaN or infinite samples"
  CLIPPED = "clipped"
  SILENT = "silent"
  TOO_LONG = "too long"
  TOO_LARGE = "too large"
  TIMED_OUT = "too slow to decode"
  NOT_SCALED = "samples far over full scale"
  WRONG_CHANNELS = "wrong channel count"
  NO_TRANSCRIPT = "no transcript"
  NO_SPEECH = "transcript without speech"
  BROKEN_METADATA = "broken metadata"
  INVALID = "not a valid timeline"
  OTHER_SIZE = "video of another size"
  FAILED = "its source failed"
  MISSING = "its file is missing"
  NOT_UTF8 = "not in UTF-8"
  NO_TEXT = "no text"
  NO_CAPTION = "no caption"
  NO_PICTURE = "no picture"
  ONE_SILENT = "one channel silent"
  WRONG_RATE = "wrong sample rate"
  SWAPPED = "channels swapped"
  DRIFTS = "drift"
  OFFSET = "constant offset"
  ECHO = "echo of the agent in the user's channel"
  LEAKS = "leakage between separated channels"
  NO_RECOGNISER = "language without a recogniser"


class Note(enum.StrEnum):
  """What was left out of a recording that is kept; counted in the report."""

  UNTIMED = "words without times"
  LONG_WORDS = "words too long to be said"
  TEXTLESS = "words without text"
  BACKWARDS = "words that end before they begin"
  OUTSIDE = "words beyond the end"
  SPREAD = "words spread over a stretch that has times"
  NO_WORDS = "recordings without words"
  OTHER_SPEAKERS = "words of other speakers"
  SPANS = "stretches of speech with broken times"
  USER_TOOLS = "calls of tools by the user"
  NO_STILL = "pictures that cannot be read"
  NO_VIDEO = "recordings whose video cannot be read"


NOTES = "left out"  # of Timeline.metadata: how many of each `Note`


def notes(counts: Mapping[Note, int]) -> dict[str, dict[str, int]]:
  """Metadata of a recording that say what was left out; none for nothing."""
  found = {str(note): count for note, count in counts.items() if count}
  return {NOTES: found} if found else {}


class BadRecording(ValueError):
  """One recording that cannot be used, why, and the value that shows it."""

  def __init__(self, reason: Reason, detail: str):
    super().__init__(reason, detail)
    self.reason = reason
    self.detail = detail

  def __str__(self) -> str:
    return f"{self.reason}: {self.detail}"


class Beyond(BadRecording):
  """Most words lie beyond the end: their times may not be in seconds.

  Attributes:
    items: the recording with its words as they are written, which is no valid
      timeline; `prepare --mend` may make one of it.
  """

  def __init__(self, detail: str, *, items: tuple[timeline.Timeline, ...] = ()):
    super().__init__(Reason.BROKEN_METADATA, detail)
    self.items = items


Found = TypeVar("Found")
Made = TypeVar("Made")


def each(
  found: Iterable[Found | BadRecording], make: Callable[[Found], Made]
) -> Iterator[Made | BadRecording]:
  """What is made of each thing that was found, or why it cannot be used."""
  for one in found:
    try:
      if isinstance(one, BadRecording):
        raise one
      yield make(one)
    except BadRecording as error:
      yield error


class Says(enum.Enum):
  """What voices of programs say."""

  TRANSCRIPTS = "transcripts"  # of recorded prompts, where these are installed
  PHRASES = "phrases"  # what procedural voices say


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What every source is opened with besides its variant.

  Attributes:
    root: the directory under which sources look for files: `/` for installed
      packages, or a folder that holds unpacked ones.
    says: what voices of programs say.
  """

  root: pathlib.Path
  says: Says = Says.TRANSCRIPTS


Factory = Callable[..., Source]  # factory(variant, settings=Settings)

SOURCES: registry.Registry[Factory] = registry.Registry(
  "data source", packages=("tml_jax.data.voices",)
)
register = SOURCES.register  # decorator of a Factory

Importer = Callable[..., Source | Streamed]  # importer(src, options=Mapping)

IMPORTERS: registry.Registry[Importer] = registry.Registry(
  "source of recordings", packages=("tml_jax.data.importers",)
)
register_importer = IMPORTERS.register  # decorator of an Importer


@dataclasses.dataclass(frozen=True)
class Spec:
  """One entry of `config.data.voices`: "source:variant"."""

  source: str
  variant: str

  @property
  def folder(self) -> str:
    """Name of the prepared corpus inside data_dir."""
    return f"{self.source}-{self.variant}"


def parse(entry: str) -> Spec:
  """Reads "source:variant".

  Raises:
    errors.UserError: not of that form.
  """
  source, colon, variant = entry.partition(":")
  if not colon or not source or not variant or "/" in variant:
    raise errors.UserError(
      f"data.voices entry {entry!r} is not of the form source:variant, for "
      "example procedural:a"
    )
  return Spec(source, variant)
