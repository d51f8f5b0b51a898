"""Reads a streamed source as `prepare` does: each part alone."""

import pickle

from tml_jax import prepare as prepare_lib
from tml_jax.data import source
from tml_jax.data.prepare import runners


def read(name, src, **options):
  """Items and, as (reason, detail), what cannot be used, of all parts."""
  opened = source.IMPORTERS[name](str(src), options=options)
  parts = opened.parts()
  assert len({part.name for part in parts}) == len(parts)
  again = source.IMPORTERS[name](str(src), options=options)
  assert again.parts() == parts
  items, bad = [], []
  copy = pickle.loads(pickle.dumps(opened))
  for part in reversed(parts):  # in any order
    for found in copy.read(part):
      if isinstance(found, source.BadRecording):
        bad.append((found.reason, found.detail))
      else:
        items.append(found)
  assert len({item.id for item in items}) == len(items)
  return sorted(items, key=lambda item: item.id), sorted(bad)


def prepare(name, src, dst, *, processes=1, **options):
  """Makes a corpus, in this process or others; returns its report."""
  return prepare_lib.prepare_source(
    name,
    src=str(src),
    dst=str(dst),
    options=options,
    size=(40, 80),
    runner=runners.Runner.LOCAL,
    beam_options=(),
    processes=processes,
    verify=False,
    rebuild=False,
  )
