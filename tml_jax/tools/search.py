"""`<call> search boiling point of water`: passages of a folder of text files.

For: a corpus that fits in memory, by SQLite's full-text index (FTS5, ranked by
BM25). Not for: the web. Start reading at `Search`.
"""

import asyncio
import pathlib
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator

from absl import flags, logging

from tml_jax import errors, files, tools
from tml_jax.tools.background import Call, Failure

SUFFIXES = (".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl")
_PASSAGE = 400  # characters, about
_FILE_BYTES = 8 << 20
_HITS = 3
_TERMS = 32
_CORPUS = flags.DEFINE_string("corpus", "", "Text files for the tool search.")


class Search:
  """A tool."""

  timeout = 10.0

  def __init__(self, directory: str):
    """Reads every text file under `directory`.

    Raises:
      errors.UserError: it is not there, or has no text.
    """
    root = pathlib.Path(directory)
    if not root.is_dir():
      raise errors.UserError(
        f"--corpus={directory}: there is no such directory"
      )
    # Queries run one at a time, in threads of the loop.
    self._index = sqlite3.connect(":memory:", check_same_thread=False)
    self._lock = asyncio.Lock()
    self._index.execute(
      "CREATE VIRTUAL TABLE passages USING fts5(file, text,"
      " tokenize = 'porter unicode61')"
    )
    self._index.executemany("INSERT INTO passages VALUES (?, ?)", _read(root))
    (self.count,) = self._index.execute(
      "SELECT count(*) FROM passages"
    ).fetchone()
    if not self.count:
      raise errors.UserError(
        f"--corpus={directory} has no text; put files there that end with "
        + " ".join(SUFFIXES)
      )

  async def run(self, call: Call) -> AsyncIterator[str]:
    # Words alone: what FTS5 would read as an operator is quoted.
    terms = re.findall(r"\w+", call.arguments)[:_TERMS]
    if not terms:
      raise Failure("search WORDS")
    query = " OR ".join(f'"{term}"' for term in terms)
    async with self._lock:
      found = await asyncio.to_thread(self._find, query)
    if not found:
      yield f"nothing about {' '.join(terms)}"
    for file, text in found:
      yield f"{file}: {text}\n"

  def _find(self, query: str) -> list[tuple[str, str]]:
    return self._index.execute(
      "SELECT file, text FROM passages WHERE passages MATCH ?"
      " ORDER BY rank, rowid LIMIT ?",
      (query, _HITS),
    ).fetchall()


@tools.register("search")
def open_search() -> Search:
  """The tool with its flag.

  Raises:
    errors.UserError: no --corpus, or nothing in it.
  """
  if not _CORPUS.value:
    raise errors.UserError("--tools=search needs --corpus=DIR")
  return Search(_CORPUS.value)


def _read(root: pathlib.Path) -> Iterator[tuple[str, str]]:
  """(file, passage) of every text file; others are passed over, and said."""
  for path in sorted(root.rglob("*")):
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
      continue
    try:
      files.check_inside(path, root=root, what=f"--corpus={root}")
      if path.stat().st_size > _FILE_BYTES:
        raise ValueError(f"more than {_FILE_BYTES >> 20} MiB")
      with open(path, encoding="utf-8") as file:
        text = file.read(_FILE_BYTES)  # some files have no size that is true
    except (OSError, ValueError, errors.UserError) as error:
      logging.warning("%s is left out of the corpus: %s", path, error)
      continue
    name = str(path.relative_to(root)).encode(errors="replace").decode()
    for passage in passages(text):
      yield name, passage


def passages(text: str) -> Iterator[str]:
  """Paragraphs, long ones cut between sentences."""
  for paragraph in re.split(r"\n\s*\n", text):
    passage = ""
    for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
      if passage and len(passage) + len(sentence) > _PASSAGE:
        yield passage
        passage = ""
      passage = f"{passage} {sentence}".strip()
    if passage:
      yield passage
