"""Data from a source to the train loop: opening, preparing, loading, hosts.

`python -m benchmarks.data [--parts=open,prepare,killed,faults,...]
[--json=FILE] [--base=CHECKOUT] [--lhotse_python=PATH]` writes
benchmarks/data.md. With a FILE that is there, only the parts that are asked for
are measured anew; of the others the document keeps what it says.

- open: a fresh process opens and mixes two corpora of half as many recordings
  each and makes the first batch. MiB is its peak beyond what imports took.
- prepare: calls made of recorded prompts (`made_calls`), by the command
  `prepare` with a pool of processes and with Beam.
- killed: a corpus whose `prepare` is killed at random moments, against one of
  an undisturbed run.
- faults: how often planted faults of calls are found (`data_faults`), and what
  `prepare` takes with and without looking for them.
- loader: filled positions and hours of conversation from a loader whose reader
  does nothing else, against the train loop of `tiny`, a TPU host, and lhotse.
- augment: how fast each transform of `data.augment` is (`data_augment`).
- importers: the same calls in the form of every importer of recordings, one
  process (`data_importers`); needs lhotse, datasets and webdataset.
- hosts: what is lost or repeated as one host becomes two and four
  (`data_hosts`).
"""

import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from typing import Any

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

import numpy as np
from absl import app, flags

from benchmarks import (
  data_augment,
  data_faults,
  data_hosts,
  data_kinds,
  data_open,
  data_tables,
  lhotse_loader,
  made_calls,
  timing,
)
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.data import corpus, loader
from tml_jax.data.splits import Split
from tml_jax.streams import frame as frame_lib

PARTS = (
  "open",
  "prepare",
  "killed",
  "faults",
  "loader",
  "augment",
  "importers",
  "hosts",
)
_PARTS = flags.DEFINE_list("parts", list(PARTS), "What is measured.")
_DIR = flags.DEFINE_string(
  "dir", "", "Keeps what was made, for another run; else it is removed."
)
_BASE = flags.DEFINE_string(
  "base", "", "A checkout of commit 0a9b157, to be opened beside this one."
)
_LHOTSE = flags.DEFINE_string(
  "lhotse_python", "", "Interpreter of an environment with lhotse and torch."
)
_NOISES = flags.DEFINE_string(
  "noises", "", "Folder of files of noise, for a row of its own."
)
_SIZES = flags.DEFINE_list("sizes", ["1000", "100000", "1000000"], "To open.")
_HOURS = flags.DEFINE_float("hours", 2.0, "Of made calls.")
_FILES = flags.DEFINE_integer("files", 1000, "Of the run that is killed.")
_KILLS = flags.DEFINE_integer("kills", 5, "Of that run.")
_CALLS = flags.DEFINE_integer("calls", 40, "With planted faults.")
_IMPORTED_MINUTES = flags.DEFINE_float(
  "imported_minutes", 12.0, "Of calls for each importer."
)
_SECONDS = flags.DEFINE_float("seconds", 30.0, "Of each row of the loader.")

_ROOT = pathlib.Path(__file__).parents[1]
_CALL_SECONDS, _SHORT_SECONDS = 300.0, 15.0
_NOISE = -60.0  # dBFS
_WORKERS = (0, 1, 2)


def _prepare_command(
  src: pathlib.Path, dst: pathlib.Path, *options: str
) -> list[str]:
  return [
    *(sys.executable, "-m", "tml_jax.prepare", "--source=stereo"),
    *(f"--src={src}", f"--dst={dst}", *options),
  ]


_QUIET: dict[str, Any] = {
  "cwd": _ROOT,
  "env": os.environ | {"PYTHONPATH": str(_ROOT)},
  "stdout": subprocess.DEVNULL,
  "stderr": subprocess.DEVNULL,
}


def _prepare(
  src: pathlib.Path, dst: pathlib.Path, *options: str
) -> tuple[float, float]:
  """Seconds of the wall clock and of all its processes."""
  start, before = time.perf_counter(), os.times()
  subprocess.run(_prepare_command(src, dst, *options), check=True, **_QUIET)
  after = os.times()
  cpu = after.children_user + after.children_system
  cpu -= before.children_user + before.children_system
  return time.perf_counter() - start, cpu


def _made(
  root: pathlib.Path, name: str, *, noise: float | None
) -> pathlib.Path:
  """The folder of made calls."""
  folder = root / name
  if not folder.exists():
    count = max(1, round(_HOURS.value * 3600 / _CALL_SECONDS))
    made_calls.write(folder, count=count, seconds=_CALL_SECONDS, noise=noise)
  return folder


def prepare(root: pathlib.Path) -> dict[str, Any]:
  """Speed and size of corpora of calls, and a run that is killed."""
  silent = _made(root, "silent", noise=None)
  quiet = _made(root, "quiet", noise=-70.0)
  noisy = _made(root, "noisy", noise=_NOISE)
  forms = {
    "pool of 1": (noisy, ("--processes=1",)),
    "pool of 2": (noisy, ("--processes=2",)),
    "Beam, DirectRunner": (noisy, ("--runner=beam", "--processes=1")),
    "pool of 1, noise of -70 dBFS": (quiet, ("--processes=1",)),
    "pool of 1, digital silence": (silent, ("--processes=1",)),
  }
  rows: dict[str, Any] = {}
  for name, (src, options) in forms.items():
    with tempfile.TemporaryDirectory(dir=root) as folder:
      dst = pathlib.Path(folder) / "calls"
      wall, cpu = _prepare(src, dst, *options)
      hours = corpus.read_index(dst).seconds / 3600
      size = sum(f.stat().st_size for f in dst.rglob("*") if f.is_file())
    rows[name] = {
      "hours": hours,
      "wall": wall,
      "cpu": cpu,
      "hours_per_core_minute": hours / (cpu / 60),
      "bytes_per_hour": size / hours,
    }
  return {
    "prepare": rows,
    "prepare_hours_per_core_minute": {
      name: row["hours_per_core_minute"] for name, row in rows.items()
    },
    "bytes_per_hour": {
      "raw PCM": 2 * 2 * 16_000 * 3600,
      "noise of -60 dBFS": rows["pool of 1"]["bytes_per_hour"],
      "noise of -70 dBFS": rows["pool of 1, noise of -70 dBFS"][
        "bytes_per_hour"
      ],
      "digital silence": rows["pool of 1, digital silence"]["bytes_per_hour"],
    },
  }


def killed(root: pathlib.Path) -> dict[str, Any]:
  """Kills a run and what it started, again and again; then lets it end."""
  src = root / "short"
  if not src.exists():
    made_calls.write(
      src, count=_FILES.value, seconds=_SHORT_SECONDS, noise=_NOISE
    )
  draw = random.Random(0)
  with tempfile.TemporaryDirectory(dir=root) as folder:
    whole, cut = (pathlib.Path(folder) / n / "calls" for n in ("whole", "cut"))
    seconds, _ = _prepare(src, whole, "--processes=2")
    units, finished = len(corpus.read_index(whole).units), [0]
    for _ in range(_KILLS.value):
      process = subprocess.Popen(
        _prepare_command(src, cut, "--processes=2"),
        start_new_session=True,
        **_QUIET,
      )
      # Some units more, and a moment that is part of one.
      most = 2 * units // (2 * _KILLS.value + 1)
      wanted = finished[-1] + draw.randint(1, max(1, most))
      while _units(cut) < wanted and process.poll() is None:
        time.sleep(0.05)
      time.sleep(draw.uniform(0, seconds / units))
      if process.poll() is not None:
        raise RuntimeError(f"it ended before it was killed: {finished}")
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      finished.append(_units(cut))
    _prepare(src, cut, "--processes=2")
    differs = _contents(whole) ^ _contents(cut)
    found = {
      "files": _FILES.value,
      "units": units,
      "finished": finished[1:],
      "differs": sorted({name for name, _ in differs}),
    }
  return {"killed": found}


def faults(root: pathlib.Path) -> dict[str, Any]:
  """Recall and precision, and `prepare` with and without the checks."""
  found = data_faults.measure(root, calls=_CALLS.value)
  taken = {}
  for check in ("all", "none"):
    with tempfile.TemporaryDirectory(dir=root) as folder:
      dst = pathlib.Path(folder) / "calls"
      _, cpu = _prepare(
        root / "faults", dst, "--processes=1", f"--check={check}"
      )
      hours = corpus.read_index(dst).seconds / 3600
    taken[check] = hours / (cpu / 60)
  found["faults"]["prepare_hours_per_core_minute"] = taken
  return found


def _units(folder: pathlib.Path) -> int:
  """That are finished."""
  return len(list((folder / "units").glob("*.parquet")))


def _contents(folder: pathlib.Path) -> set[tuple[str, int]]:
  return {
    (str(path.relative_to(folder)), zlib.crc32(path.read_bytes()))
    for path in folder.rglob("*")
    if path.is_file()
  }


def load(root: pathlib.Path) -> dict[str, Any]:
  """What loaders give, and what eats it."""
  path = root / "kinds"
  if not (path / "made-calls").exists():
    _prepare(
      _made(root, "noisy", noise=_NOISE), path / "made-calls", "--processes=2"
    )
  data_kinds.write(path)
  rows = {
    name: {
      str(workers): _loaded(
        data_kinds.config(mixture, workers=workers), data_dir=path
      )
      for workers in _WORKERS
    }
    for name, mixture in data_kinds.MIXTURES.items()
  }
  trained = _trained(path, root=root)
  result = {
    "loader": rows,
    "loader_positions_per_second": {
      name: {workers: row["positions"] for workers, row in each.items()}
      for name, each in rows.items()
    },
    "train": trained,
    "input_wait_share": trained["data"] / trained["step"],
    "tpu_host": data_tables.tpu_host(),
    "read_hours_per_core_second": _read_alone(path / "made-calls"),
  }
  if not _LHOTSE.value:
    print("no --lhotse_python: lhotse's loader is not timed")
    return result
  script = "import sys; from benchmarks import lhotse_loader as l; l.main()"
  said = subprocess.run(
    [
      *(_LHOTSE.value, "-c", script, str(root / "noisy")),
      *(str(root / "shar"), str(_SECONDS.value)),
    ],
    cwd=_ROOT,
    env=os.environ | {"PYTHONPATH": str(_ROOT)},
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  ).stdout
  return result | {"lhotse": json.loads(said.splitlines()[-1])}


def _loaded(config: Config, *, data_dir: pathlib.Path) -> dict[str, float]:
  """What a loader gives a second, from its first batch on."""
  turn = frame_lib.token_id(frame_lib.Control.TURN, config=config.streams)
  hour = config.streams.turn_ms / 1000 / 3600  # hours of a window
  batches = loader.Loader(config, data_dir=data_dir, split=Split.TRAIN)
  next(batches)
  positions = slots = windows = 0
  start, before = time.perf_counter(), lhotse_loader.cpu_seconds()
  while (seconds := time.perf_counter() - start) < _SECONDS.value:
    packed = next(batches).packed
    positions += int(np.count_nonzero(packed.segment_ids))
    slots += packed.segment_ids.size
    windows += int(np.count_nonzero(packed.inputs.tokens == turn))
  cpu = lhotse_loader.cpu_seconds() - before
  batches.close()
  return {
    "positions": positions / seconds,
    "positions_per_core_second": positions / cpu,
    "filled": positions / slots,
    "hours": windows * hour / seconds,
    "hours_per_core_second": windows * hour / cpu,
  }


def _trained(path: pathlib.Path, *, root: pathlib.Path) -> dict[str, float]:
  """Seconds of a step of `tiny` on all three, and of its wait for data."""
  config = data_kinds.config(data_kinds.MIXTURES["all three"], workers=0)
  with tempfile.TemporaryDirectory(dir=root) as workdir:
    subprocess.run(
      [
        *(sys.executable, "-m", "tml_jax.train", f"--workdir={workdir}/run"),
        f"--data_dir={path}",
        "--config=experiments/pretrain.py:tiny_pretrain",
        f"--config.streams.max_patches={config.streams.max_patches}",
        f"--config.data.voices={','.join(config.data.voices)}",
        f"--config.data.mixture={','.join(config.data.mixture)}",
        "--config.train.steps=40",
        "--config.train.log_every=20",
        "--config.train.optim.warmup_steps=2",
      ],
      check=True,
      **_QUIET,
    )
    lines = (pathlib.Path(workdir) / "run/metrics.jsonl").read_text()
  rows = [json.loads(line) for line in lines.splitlines()]
  rows = [row for row in rows if "time/data" in row][1:]  # the first compiles
  return {
    "step": sum(row["seconds_per_step"] for row in rows) / len(rows),
    "data": sum(row["time/data"] for row in rows) / len(rows),
    "slots": config.train.global_batch_size * config.streams.seq_len,
  }


def _read_alone(path: pathlib.Path) -> float:
  """Hours of calls a core-second that are only read and decoded."""
  calls = corpus.RecordSource(path)
  before, number, seconds = time.process_time(), 0, 0.0
  while (taken := time.process_time() - before) < _SECONDS.value / 3:
    seconds += calls[number % len(calls)].duration
    number += 1
  return seconds / 3600 / taken


def open_corpora(root: pathlib.Path) -> dict[str, Any]:
  """Seconds and MiB of the first batch by number of recordings."""
  if not _BASE.value:
    print("no --base: commit 0a9b157 is not opened")
  return data_open.measure(root, sizes=map(int, _SIZES.value), base=_BASE.value)


def augment(root: pathlib.Path) -> dict[str, Any]:
  """Speed of the transforms, on calls of `prepare`."""
  path = root / "kinds" / "made-calls"
  if not path.exists():
    _prepare(_made(root, "noisy", noise=_NOISE), path, "--processes=1")
  return data_augment.measure(path, noises=_NOISES.value)


def importers(root: pathlib.Path) -> dict[str, Any]:
  """Speed and size by importer."""
  # Imports Lhotse and others, which no other part needs.
  from benchmarks import data_importers

  return data_importers.measure(root, minutes=_IMPORTED_MINUTES.value)


def hosts(root: pathlib.Path) -> dict[str, Any]:
  """Things lost and repeated over 35 corpora."""
  config, path = data_hosts.config(35), root / "hosts"
  if not path.exists():
    data_hosts.write(config, root=path)
  counted = data_hosts.count(config, data_dir=path, steps=15)
  return {
    "hosts": dataclasses.asdict(counted),
    "lost_or_repeated": counted.lost + counted.repeated + counted.again,
  }


MEASURED: dict[str, Callable[[pathlib.Path], dict[str, Any]]] = {
  "open": open_corpora,
  "prepare": prepare,
  "killed": killed,
  "faults": faults,
  "loader": load,
  "augment": augment,
  "importers": importers,
  "hosts": hosts,
}


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  unknown = set(_PARTS.value) - MEASURED.keys()
  if unknown:
    raise app.UsageError(f"--parts: {min(unknown)!r} is none of {[*MEASURED]}")
  file = pathlib.Path(config_flags.JSON.value or os.devnull)
  result = json.loads(file.read_text() or "{}") if file.is_file() else {}
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(_DIR.value or folder).absolute()
    root.mkdir(parents=True, exist_ok=True)
    for part in _PARTS.value:
      made = timing.made()
      result |= MEASURED[part](root)
      result.setdefault("made", {})[part] = made
      file.write_text(json.dumps(result, indent=2) + "\n")
  document = pathlib.Path(__file__).with_suffix(".md")
  text = data_tables.markdown(
    result, before=document.read_text(encoding="utf-8")
  )
  document.write_text(text, encoding="utf-8")
  print(text)


if __name__ == "__main__":
  app.run(main)
