"""The texts of prepared data, and the tokenizer that `prepare` makes of them.

For: `prepare` and `train_tokenizer`. Not for: tokens (`streams.tokenizer`).
Start reading at `texts` and `sample`.
"""

import dataclasses
import hashlib
import heapq
import json
import pathlib
from collections.abc import Iterable, Iterator

from absl import logging

from tml_jax import errors, files
from tml_jax.config import StreamsConfig
from tml_jax.data import corpus
from tml_jax.streams import tokenizer

RECORD = "tokenizer.json"
# Text that a tokenizer is trained on. Measured: a byte of it takes 20 bytes of
# memory, and 16 MiB take two minutes of one slow core.
MAX_BYTES = 64 << 20
_PART = 1 << 18  # letters, at most 1 MiB: longer texts are cut


def corpora(root: pathlib.Path) -> list[str]:
  """Folders of the prepared corpora in a data directory."""
  return sorted(path.parent.name for path in root.glob(f"*/{corpus.INDEX}"))


def texts(folder: pathlib.Path) -> Iterator[str]:
  """What is said, typed and shown in each recording of a corpus.

  Of documents a sample, as the tables of the corpus have it.

  Raises:
    errors.UserError: no such corpus, or it is broken.
  """
  yield from corpus.RecordSource(folder).texts()


@dataclasses.dataclass(frozen=True)
class Sample:
  """Different texts, sorted, of all that were read.

  Attributes:
    texts: those that are kept.
    bytes: of these, as UTF-8.
    read: bytes of all texts, however often each is there.
  """

  texts: tuple[str, ...]
  bytes: int
  read: int


def sample(found: Iterable[str], *, max_bytes: int = MAX_BYTES) -> Sample:
  """At most `max_bytes` of different texts; no more are in memory at once.

  The same texts give the same sample, in whatever order they come and however
  often: those whose hashes are the smallest, as many as fit.

  Args:
    found: texts; long ones are cut into parts.
    max_bytes: at least 1 MiB, so that a part fits.
  """
  kept: set[str] = set()
  by_hash: list[tuple[int, str]] = []  # a heap, the largest hash first
  limit, size, read = 1 << 64, 0, 0
  for text in _parts(found):
    content = text.encode()
    read += len(content)
    number = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())
    if number >= limit or text in kept:
      continue
    kept.add(text)
    heapq.heappush(by_hash, (-number, text))
    size += len(content)
    while size > max_bytes:
      number, dropped = heapq.heappop(by_hash)
      # What comes later must not take the place of what went.
      limit = -number
      kept.remove(dropped)
      size -= len(dropped.encode())
  return Sample(tuple(sorted(kept)), size, read)


def _parts(found: Iterable[str]) -> Iterator[str]:
  for text in found:
    if len(text) <= _PART:
      yield text
      continue
    for start in range(0, len(text), _PART):
      yield text[start : start + _PART]


@dataclasses.dataclass(frozen=True)
class Record:
  """A note on a tokenizer that `prepare` has trained.

  Attributes:
    corpora: that it was trained on.
    transcripts: how many of them.
    digest: of the tokenizer; older notes have none.
  """

  corpora: tuple[str, ...]
  transcripts: int
  digest: str = ""


def check(
  root: pathlib.Path, *, streams: StreamsConfig, given: str = ""
) -> None:
  """Before any work: a tokenizer that is there, or `given`, can be used.

  Raises:
    errors.UserError: it, or its record, is broken or does not fit.
  """
  if given:
    tokenizer.load(given, config=streams)
  elif _is_there(root):
    tokenizer.load(str(root / tokenizer.FILENAME), config=streams)
    _read(root)


def train(
  root: pathlib.Path, *, folders: list[str], streams: StreamsConfig
) -> Record | None:
  """Trains it on the corpora in `folders` unless one is there.

  One that is there stays, as models may have been trained with it. It spells
  whatever text other corpora have; a warning names those.

  Returns:
    What it was trained on; None where somebody put it there.

  Raises:
    errors.UserError: there is no text.
  """
  path = root / tokenizer.FILENAME
  if _is_there(root):
    record = _read(root)
    others = sorted({*folders} - {*record.corpora}) if record else []
    if record and others:
      logging.warning(
        "%s stays as it was trained, on %s; it spells %s with the same pieces."
        " Delete it and run this again to train one on all (models trained with"
        " the old one will not fit it)",
        *(path, ", ".join(record.corpora), ", ".join(others)),
      )
    return record
  found = sample(text for name in folders for text in texts(root / name))
  tokenizer.train(found.texts, path=str(path), config=streams)
  digest = tokenizer.digest(str(path))
  record = Record(tuple(folders), len(found.texts), digest)
  files.write_atomically(
    root / RECORD, content=json.dumps(dataclasses.asdict(record)) + "\n"
  )
  return record


def _is_there(root: pathlib.Path) -> bool:
  return (root / tokenizer.FILENAME).exists()


def _read(root: pathlib.Path) -> Record | None:
  """The note on the tokenizer that is there; None if there is none on it."""
  path = root / RECORD
  if not path.exists():
    return None
  try:
    content = files.load_json(path)
    corpora, transcripts = content["corpora"], content["transcripts"]
    if type(transcripts) is not int or not all(
      isinstance(name, str) for name in corpora
    ):
      raise ValueError(f"corpora {corpora!r}, transcripts {transcripts!r}")
    digest = content.get("digest", "")
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f"{path} is broken ({error!r}); it is a note on tokenizer.model, which"
      " needs none: delete it and run this again"
    ) from error
  if digest not in ("", tokenizer.digest(str(root / tokenizer.FILENAME))):
    return None  # another was put there
  return Record(tuple(corpora), transcripts, digest)
