"""One row a recording: what is known of a corpus without reading it.

For: opening, splitting, counting and reporting. Not for: the recordings
(`coding`). Start reading at `Row` and `row_of`. Rows are Parquet, so that any
tool reads them; columns that are not asked for are not read.
"""

import dataclasses
import io
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tml_jax.data import splits
from tml_jax.data.corpus.coding import Item
from tml_jax.streams import clock, document
from tml_jax.streams.document import Document
from tml_jax.streams.timeline import EventKind, Role, Span, Timeline

# Letters of text in the rows of one table; later rows have none. Of a corpus of
# conversations that is all of it, of one of documents a sample.
TEXT_BUDGET = 1 << 23
_FULL_SCALE = 0.999
_META = b"tml_jax"


@dataclasses.dataclass(frozen=True)
class Row:
  """A recording or document.

  Attributes:
    id: of it.
    kind: "conversation", "prompt" (of a voice), "document", or what the source
      says in the metadata `kind`.
    seconds: duration; 0 of a document.
    user_tokens: of 50 ms of sound in which somebody but the agent speaks.
    agent_tokens: of 50 ms of sound in which the agent speaks.
    overlap_tokens: of both.
    letters: of what is said, typed and shown.
    frames: of video.
    clipped: samples at full scale.
    language: from the metadata, or "".
    voices: of its tracks, in order.
    licence: from the metadata, or "".
    split_hash: first 8 bytes of the SHA-1 of the id (`splits`), of a part of a
      document of the whole's.
    prompt: of a voice: which one; else null.
    gap: of a voice: longest pause in seconds; else null.
    text: what is said, typed and shown, a line each; null behind the budget of
      a table.
    shard: number of its file in the table.
    first: number of its first record there.
    records: how many it has.
  """

  id: str
  kind: str
  seconds: float
  user_tokens: int
  agent_tokens: int
  overlap_tokens: int
  letters: int
  frames: int
  clipped: int
  language: str
  voices: list[str]
  licence: str
  split_hash: int
  prompt: str | None
  gap: float | None
  text: str | None
  shard: int
  first: int
  records: int


SCHEMA = pa.schema(
  [
    ("id", pa.string()),
    ("kind", pa.string()),
    ("seconds", pa.float64()),
    ("user_tokens", pa.int32()),
    ("agent_tokens", pa.int32()),
    ("overlap_tokens", pa.int32()),
    ("letters", pa.int64()),
    ("frames", pa.int32()),
    ("clipped", pa.int64()),
    ("language", pa.string()),
    ("voices", pa.list_(pa.string())),
    ("licence", pa.string()),
    ("split_hash", pa.uint64()),
    ("prompt", pa.string()),
    ("gap", pa.float64()),
    ("text", pa.string()),
    ("shard", pa.int32()),
    ("first", pa.uint32()),
    ("records", pa.int32()),
  ]
)
# What a loader needs of every recording: 36 bytes.
PLACES = ("split_hash", "seconds", "letters", "shard", "first", "records")


def row_of(
  item: Item, *, shard: int, first: int, records: int, budget: int
) -> Row:
  """The row of a recording at a place; `budget` letters of text are left."""
  metadata = item.metadata
  texts = _texts(item)
  letters = sum(map(len, texts))
  common: dict[str, Any] = {
    "id": item.id,
    "letters": letters,
    "language": str(metadata.get("language") or ""),
    "licence": str(metadata.get("licence") or ""),
    "split_hash": splits.hash_of(metadata.get(document.PART_OF, item.id)),
    "text": "\n".join(texts) if letters <= budget else None,
    "shard": shard,
    "first": first,
    "records": records,
  }
  if isinstance(item, Document):
    return Row(
      kind=str(metadata.get("kind") or "document"),
      seconds=0.0,
      user_tokens=0,
      agent_tokens=0,
      overlap_tokens=0,
      frames=0,
      clipped=0,
      voices=[],
      prompt=None,
      gap=None,
      **common,
    )
  prompt = metadata.get("prompt")
  agent = _active(item, agent=True)
  user = _active(item, agent=False)
  return Row(
    kind=str(
      metadata.get("kind") or ("conversation" if prompt is None else "prompt")
    ),
    seconds=float(item.duration),
    user_tokens=int(user.sum()),
    agent_tokens=int(agent.sum()),
    overlap_tokens=int((user & agent).sum()),
    frames=len(item.video),
    clipped=sum(
      int(
        np.count_nonzero(track.audio >= _FULL_SCALE)
        + np.count_nonzero(track.audio <= -_FULL_SCALE)
      )
      for track in item.tracks
    ),
    voices=[track.voice for track in item.tracks],
    prompt=None if prompt is None else str(prompt),
    gap=None if prompt is None else _longest_gap(item.tracks[0].spans),
    **common,
  )


def _texts(item: Item) -> list[str]:
  """What is said, typed and shown, each on a line of its own."""
  if isinstance(item, Document):
    texts = [item.text]
  else:
    texts = [" ".join(w.text for w in track.words) for track in item.tracks]
    texts += [e.text for e in item.events if e.kind is not EventKind.NOTE]
  return [text for text in texts if text]


def _active(item: Timeline, *, agent: bool) -> np.ndarray:
  """[tokens] bool, whether somebody speaks in each 50 ms."""
  per_second = 1000 // clock.TOKEN_MS
  active = np.zeros(int(np.ceil(item.duration * per_second)) + 1, bool)
  for track in item.tracks:
    if (track.role == Role.AGENT) == agent:
      for span in track.spans:
        first = int(span.start * per_second)
        active[first : int(np.ceil(span.end * per_second))] = True
  return active


def _longest_gap(spans: Sequence[Span]) -> float:
  gaps = [b.start - a.end for a, b in zip(spans[:-1], spans[1:], strict=True)]
  return max(gaps, default=0.0)


def to_bytes(rows: Sequence[Row], *, meta: dict[str, Any]) -> bytes:
  """A Parquet file of rows, and JSON values beside them."""
  columns = {
    name: [getattr(row, name) for row in rows] for name in SCHEMA.names
  }
  found = pa.Table.from_pydict(columns, schema=SCHEMA)
  return write(found, meta=meta)


def write(found: pa.Table, *, meta: dict[str, Any]) -> bytes:
  """A Parquet file of columns, and JSON values beside them."""
  text = json.dumps(meta, sort_keys=True)
  sink = io.BytesIO()
  pq.write_table(
    found.replace_schema_metadata({_META: text.encode()}),
    sink,
    compression="zstd",
  )
  return sink.getvalue()


def read(
  content: bytes | str | os.PathLike[str],
  *,
  columns: Sequence[str] | None = None,
) -> pa.Table:
  """Columns of a Parquet file, all if none are named.

  Args:
    content: of the file, or its local path.
    columns: names.

  Raises:
    ValueError: it is none, or lacks a column.
  """
  try:
    with _opened(content) as file:
      found = file.read(
        columns=None if columns is None else list(columns), use_threads=False
      )
  except (pa.ArrowException, OSError) as error:
    raise ValueError(f"it is no table: {error}".split("\n")[0]) from error
  want = SCHEMA.names if columns is None else columns
  for name in want:
    if name not in found.schema.names:
      raise ValueError(f"it has no column {name!r}")
    if found.schema.field(name).type != SCHEMA.field(name).type:
      raise ValueError(f"column {name!r} is {found.schema.field(name).type}")
  return found


def numbers(column: pa.ChunkedArray) -> np.ndarray:
  """A column of numbers; it cannot be written to.

  Not by Arrow's `to_numpy`, which imports pandas: half a second and 40 MiB.

  Raises:
    ValueError: some are missing.
  """
  if column.null_count:
    raise ValueError(f"{column.null_count} of its numbers are missing")
  return np.from_dlpack(column.combine_chunks())


def meta_of(content: bytes | str | os.PathLike[str]) -> dict[str, Any]:
  """The JSON values beside the rows of a file.

  Raises:
    ValueError: it has none, or is no such file.
  """
  try:
    with _opened(content) as file:
      return json.loads((file.schema_arrow.metadata or {})[_META])
  except (pa.ArrowException, OSError, KeyError, RecursionError) as error:
    raise ValueError(f"it is no table of ours: {error!r}") from error


def _opened(content: bytes | str | os.PathLike[str]) -> pq.ParquetFile:
  """Without threads of Arrow, which a process may not end while they start."""
  if isinstance(content, bytes):
    return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
  return pq.ParquetFile(pa.memory_map(os.fspath(content)), pre_buffer=False)
