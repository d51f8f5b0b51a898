"""What the tables of a corpus say of it, without reading a recording.

For: the first part of a page, of a million recordings in seconds. Not for:
how it looks (`overview`). Start at `of`.
"""

import dataclasses
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tml_jax.data import corpus
from tml_jax.data.corpus import table
from tml_jax.streams import clock

_TOKEN_SECONDS = clock.TOKEN_MS / 1000
_NUMBERS = (
  *("seconds", "user_tokens", "agent_tokens", "overlap_tokens"),
  *("letters", "frames", "clipped"),
)
_NAMES = ("kind", "language", "licence")


@dataclasses.dataclass(frozen=True)
class Share:
  """What is of one kind, language, licence or voice."""

  recordings: int
  hours: float
  letters: int


@dataclasses.dataclass(frozen=True)
class Facts:
  """A corpus in numbers.

  Attributes:
    name: of its folder.
    bytes: of its shards.
    seconds: [recordings] float64, 0 of documents.
    user: [recordings] float64, seconds in which somebody but the agent speaks.
    agent: [recordings] float64, seconds in which the agent speaks.
    overlap: [recordings] float64, seconds of both.
    letters: [recordings] int64, of what is said, typed and shown.
    frames: of video.
    clipped: recordings that reach full scale.
    kinds: by name, the largest first; so are the next three.
    languages: "unknown" where the source has not said it.
    licences: as languages.
    voices: of tracks. A recording counts once for each voice in it.
    report: of `prepare`.
  """

  name: str
  bytes: int
  seconds: np.ndarray
  user: np.ndarray
  agent: np.ndarray
  overlap: np.ndarray
  letters: np.ndarray
  frames: int
  clipped: int
  kinds: dict[str, Share]
  languages: dict[str, Share]
  licences: dict[str, Share]
  voices: dict[str, Share]
  report: dict[str, Any]

  @property
  def hours(self) -> float:
    return float(self.seconds.sum()) / 3600

  @property
  def silence(self) -> np.ndarray:
    """[recordings] float64, seconds in which nobody speaks."""
    spoken = self.user + self.agent - self.overlap
    return np.maximum(0, self.seconds - spoken)


def of(source: corpus.RecordSource, *, path: str | os.PathLike[str]) -> Facts:
  """Reads the tables of the corpus `source` at `path`.

  Raises:
    errors.UserError: a table is missing or broken.
  """
  rows = source.rows(*_NUMBERS, *_NAMES, "voices")
  found = {name: table.numbers(rows.column(name)) for name in _NUMBERS}
  kinds, languages, licences = (
    _shares(rows.column(name), rows=rows) for name in _NAMES
  )
  return Facts(
    name=os.path.basename(os.path.abspath(path)),
    bytes=sum(shard.bytes for shard in source.index.shards),
    seconds=found["seconds"],
    user=found["user_tokens"] * _TOKEN_SECONDS,
    agent=found["agent_tokens"] * _TOKEN_SECONDS,
    overlap=found["overlap_tokens"] * _TOKEN_SECONDS,
    letters=found["letters"],
    frames=int(found["frames"].sum()),
    clipped=int(np.count_nonzero(found["clipped"])),
    kinds=kinds,
    languages=languages,
    licences=licences,
    voices=_voices(rows),
    report=source.index.report,
  )


def _shares(names: pa.ChunkedArray, *, rows: pa.Table) -> dict[str, Share]:
  """By name; `rows` has what each name counts for."""
  named = pa.table(
    {"name": names, "seconds": rows["seconds"], "letters": rows["letters"]}
  )
  # One thread: a process may not end while those of Arrow start.
  summed = named.group_by("name", use_threads=False).aggregate(
    [("name", "count"), ("seconds", "sum"), ("letters", "sum")]
  )
  columns = ("name", "name_count", "seconds_sum", "letters_sum")
  lines = zip(*(summed[each].to_pylist() for each in columns), strict=True)
  found = {
    name or "unknown": Share(count, seconds / 3600, letters)
    for name, count, seconds, letters in lines
  }
  order = sorted(found, key=lambda name: (-found[name].recordings, name))
  return {name: found[name] for name in order}


def _voices(rows: pa.Table) -> dict[str, Share]:
  voices = rows["voices"].combine_chunks()
  if not len(pc.list_flatten(voices)):
    return {}
  places = pa.table(
    {"row": pc.list_parent_indices(voices), "voice": pc.list_flatten(voices)}
  )
  once = places.group_by(["row", "voice"], use_threads=False).aggregate([])
  return _shares(once["voice"], rows=rows.take(once["row"]))
