"""Opening corpora of many recordings, here and at an older commit.

For: benchmarks.data. Not for: anything that reads sound. Start reading at
`measure`.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from experiments import pretrain
from tml_jax.data import corpus
from tml_jax.streams import tokenizer
from tml_jax.streams.timeline import Event, EventKind, Timeline

_ROOT = pathlib.Path(__file__).parents[1]
_UNIT = 100_000  # recordings
_BASE_MOST = 100_000  # the older reader decodes every recording when it opens

# Runs in this checkout and in the older one.
_FIRST_BATCH = """
import dataclasses, json, re, sys, time
from experiments import interaction
from tml_jax.data import loader
from tml_jax.data.splits import Split

def memory(name):
  status = open("/proc/self/status").read()
  return int(re.search(name + r":\\s+(\\d+)", status).group(1)) / 1024

config = interaction.tiny()
data = dataclasses.replace(
  config.data, voices=("made:a", "made:b"), mixture=("made-a:1", "made-b:1")
)
config = dataclasses.replace(config, data=data)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
before, start = memory("VmRSS"), time.perf_counter()
batches = loader.Loader(config, data_dir=sys.argv[1], split=Split.TRAIN)
opened = time.perf_counter() - start
next(batches)
seconds = time.perf_counter() - start
mib = memory("VmHWM") - before
print(json.dumps({"seconds": seconds, "mib": mib, "opened": opened}))
batches.close()
"""
_WRITE_BASE = """
import sys
from tml_jax.data import records
from tml_jax.streams.timeline import Event, EventKind, Timeline
for name in "ab":
  lines = (
    Timeline(id=f"{name}{i}", duration=0.2, tracks=(),
             events=(Event(0.0, EventKind.USER_TEXT, f"line {i}"),))
    for i in range(int(sys.argv[2]) // 2)
  )
  records.write(lines, path=f"{sys.argv[1]}/made-{name}", report={})
"""


def _line(name: str, number: int) -> Timeline:
  event = Event(0.0, EventKind.USER_TEXT, f"line {number}")
  return Timeline(f"{name}{number}", 0.2, (), events=(event,))


def _write_many(root: pathlib.Path, *, count: int) -> None:
  """Two corpora of typed lines, each of half as many."""
  for name in "ab":
    place, half = corpus.Place(root / f"made-{name}"), count // 2
    units = [
      corpus.write_unit(
        (_line(name, i) for i in range(first, min(first + _UNIT, half))),
        name=None,
        place=place,
        meta=dict,
      )
      for first in range(0, half, _UNIT)
    ]
    corpus.finish(units, place=place, report={})


def _child(script: str, *arguments: object, checkout: str) -> str:
  """What a script says that runs in a checkout."""
  return subprocess.run(
    [sys.executable, "-c", script, *map(str, arguments)],
    cwd=checkout,
    env=os.environ | {"PYTHONPATH": checkout},
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  ).stdout


def measure(
  root: pathlib.Path, *, sizes: Iterable[int], base: str
) -> dict[str, Any]:
  """Seconds and MiB of the first batch by number of recordings.

  Args:
    root: keeps the corpora.
    sizes: recordings.
    base: a checkout of commit 0a9b157, or "".
  """
  result: dict[str, Any] = {"open_seconds": {}, "open_mib": {}, "opened": {}}
  before: dict[str, Any] = {"seconds": {}, "mib": {}}

  def first_batch(path: pathlib.Path, *, checkout: str) -> dict[str, float]:
    return json.loads(_child(_FIRST_BATCH, path, checkout=checkout))

  for size in sizes:
    path = root / f"open-{size}"
    if not path.exists():
      _write_many(path, count=size)
      tokenizer.train(
        [f"line {i}" for i in range(1000)],
        path=tokenizer.path(path),
        config=pretrain.tiny_pretrain().streams,
      )
    found = first_batch(path, checkout=str(_ROOT))
    result["open_seconds"][str(size)] = found["seconds"]
    result["open_mib"][str(size)] = found["mib"]
    result["opened"][str(size)] = found["opened"]
    if base and size <= _BASE_MOST:
      old = root / f"base-{size}"
      if not old.exists():
        old.mkdir()
        _child(_WRITE_BASE, old, size, checkout=base)
        (old / "tokenizer.model").write_bytes(
          pathlib.Path(tokenizer.path(path)).read_bytes()
        )
      found = first_batch(old, checkout=base)
      for key in before:
        before[key][str(size)] = found[key]
  return result | {"open_base": before}
