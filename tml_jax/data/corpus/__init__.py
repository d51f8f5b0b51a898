"""Prepared corpora: recordings on disk, a table of them, and their index.

For: the names that the rest of the project uses. Start reading at `writing`,
which says which files there are, then `reading`.
"""

from tml_jax.data.corpus.coding import CHUNK_SECONDS, Item, check
from tml_jax.data.corpus.index import FORMAT, INDEX, Index, Shard, Unit
from tml_jax.data.corpus.place import Place
from tml_jax.data.corpus.reading import (
  DamagedRecord,
  RecordSource,
  read_index,
  verify,
)
from tml_jax.data.corpus.writing import (
  Found,
  find_unit,
  finish,
  unit_names,
  write,
  write_unit,
)

__all__ = [
  "CHUNK_SECONDS",
  "FORMAT",
  "INDEX",
  "DamagedRecord",
  "Found",
  "Index",
  "Item",
  "Place",
  "RecordSource",
  "Shard",
  "Unit",
  "check",
  "find_unit",
  "finish",
  "read_index",
  "unit_names",
  "verify",
  "write",
  "write_unit",
]
