"""What a checkpoint costs: bytes, time the loop waits, time until it is safe.

`python -m benchmarks.checkpoint [--rounds=3] [--dir=DIR] [--json=FILE]`. The
state of a size (weights, two moments, average) is filled with noise, which
does not compress, on one CPU device, saved by both tiers in turn and restored.
A save of the loop's is over when `save` returns; the next step may then give
the buffers away. It is durable when `wait` returns. The second row of a size
is for the disk below: as many bytes written and synced by one `dd`.
"""

import dataclasses
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax
import numpy as np
from absl import app, flags

from experiments import interaction
from tml_jax import workdir
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.parallel import hosts
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import checkpoint, local_checkpoint, optim
from tml_jax.training import state as state_lib

_JSON = config_flags.JSON
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Saves and restores of each tier.")
_DIR = flags.DEFINE_string("dir", "", "Where to save; a temporary one.")

_LOADER = {
  "identity": {},
  "shards": {str(i): {"group": 1, "offset": 2} for i in range(256)},
}


def sizes() -> dict[str, Config]:
  tiny = interaction.tiny()
  wide = dataclasses.replace(
    tiny.model, d_model=512, d_ff=1536, expert_d_ff=512, num_layers=12
  )
  return {"tiny": tiny, "tiny, wider": dataclasses.replace(tiny, model=wide)}


def noise(config: Config) -> tuple[state_lib.TrainState, state_lib.TrainState]:
  """A state of random bits, and its shapes."""
  mesh = dataclasses.replace(
    config.mesh, data=1, fsdp=1, expert=1, tensor=1, seq=1
  )
  abstract = state_lib.abstract(
    config,
    model=state_lib.create_model(config),
    optimizer=optim.create(config.train.optim, steps=100),
    mesh=mesh_lib.create(mesh, devices=jax.devices()[:1]),
  ).state
  random = np.random.default_rng(0)

  def fill(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    if leaf.dtype == np.int32:
      return jax.device_put(np.zeros(leaf.shape, np.int32), leaf.sharding)
    value = random.standard_normal(leaf.shape, np.float32)
    return jax.device_put(value.astype(leaf.dtype), leaf.sharding)

  return jax.tree.map(fill, abstract), abstract


def measure(
  save: Callable[[int], None],
  wait: Callable[[], None],
  restore: Callable[[int], object],
  *,
  directory: Callable[[int], pathlib.Path],
) -> dict[str, float]:
  """Medians over --rounds; the first save, which warms up, does not count."""
  blocked, durable, restored = [], [], []
  for step in range(1, _ROUNDS.value + 2):
    start = time.perf_counter()
    save(step)
    blocked.append(time.perf_counter() - start)
    wait()
    durable.append(time.perf_counter() - start)
  for _ in range(_ROUNDS.value):
    start = time.perf_counter()
    jax.block_until_ready(restore(_ROUNDS.value + 1)[0])
    restored.append(time.perf_counter() - start)
  files = directory(_ROUNDS.value + 1).rglob("*")
  return {
    "bytes": sum(file.stat().st_size for file in files if file.is_file()),
    "blocked_s": statistics.median(blocked[1:]),
    "durable_s": statistics.median(durable[1:]),
    "restore_s": statistics.median(restored),
  }


def rows_of(config: Config, *, path: pathlib.Path) -> dict[str, dict]:
  state, abstract = noise(config)
  size = hosts.num_bytes(state)
  orbax = checkpoint.Checkpointer(str(path), keep=1)
  local = local_checkpoint.LocalCheckpointer(
    path / "local", start="start", index=0, count=1
  )
  rows = {}
  for name, tier, directory in (
    ("workdir (Orbax)", orbax, path / workdir.CHECKPOINTS),
    ("local", local, local.path),
  ):
    rows[name] = measure(
      lambda step, tier=tier: tier.save(
        step, state=state, loader_state=_LOADER
      ),
      tier.wait,
      lambda step, tier=tier: tier.restore(abstract, step=step),
      directory=lambda step, directory=directory: directory / str(step),
    )
  orbax.close()
  rows["dd, synced"] = {"bytes": size, "durable_s": _dd(path, size=size)}
  return rows


def _dd(path: pathlib.Path, *, size: int) -> float:
  """Seconds of a plain synced write of `size` bytes."""
  start = time.perf_counter()
  command = ["dd", "if=/dev/zero", f"of={path}/dd", "bs=1M", "conv=fsync"]
  count = max(1, size // 2**20)
  subprocess.run([*command, f"count={count}"], check=True, capture_output=True)
  return time.perf_counter() - start


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  result = {}
  print("| state | tier | MiB on disk | loop waits s | durable s | restore s |")
  print("|---|---|---:|---:|---:|---:|")
  for name, config in sizes().items():
    path = pathlib.Path(tempfile.mkdtemp(dir=_DIR.value or None))
    try:
      rows = rows_of(config, path=path)
    finally:
      shutil.rmtree(path)
    result[name] = rows
    for tier, row in rows.items():
      cells = " | ".join(
        f"{row[key]:.2f}" if key in row else ""
        for key in ("blocked_s", "durable_s", "restore_s")
      )
      print(f"| {name} | {tier} | {row['bytes'] / 2**20:,.0f} | {cells} |")
  if _JSON.value:
    pathlib.Path(_JSON.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  app.run(main)
