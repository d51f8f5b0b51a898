"""Checkpoints of a small state in both tiers, and ways to damage them."""

import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments import interaction
from tml_jax import workdir as workdir_lib
from tml_jax.config import text as config_text
from tml_jax.parallel import processes as processes_lib
from tml_jax.training import tiers

KINDS = ("flip", "cut", "remove", "empty")


def state_of(step: int):
  """A state that says which step it is of."""
  key = jax.random.key(step)
  return {
    "step": jnp.int32(step),
    "params": {"a": jax.random.normal(key, (64, 32)), "b": jnp.ones((7,))},
    "router": {},
    "ema": {},
  }


def abstract():
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    state_of(0),
  )


def opened(root: pathlib.Path, *, local_every: int = 0) -> tiers.Tiers:
  """The checkpoints of the run at `root`, which has begun."""
  config = config_text.with_fields(
    interaction.tiny(),
    {
      "train.local_checkpoint_every": local_every,
      "train.checkpoint_every": 100,
      "train.keep_checkpoints": 3,
    },
  )
  workdir_lib.create(str(root), config, is_begun=False)
  return tiers.Tiers(
    config.train,
    workdir=str(root),
    local_dir=str(root.with_name(root.name + "_local")),
    processes=processes_lib.Processes(),
  )


def save(root: pathlib.Path, *, steps: dict[int, tiers.Tier]) -> None:
  """Saves each of `steps` where it says."""
  found = opened(root, local_every=50)
  assert found.resume(abstract()) is None
  for step, tier in steps.items():
    loader = {"identity": {}, "shards": {"0": {"offset": step}}}
    found.save(step, tier=tier, state=state_of(step), loader_state=loader)
    found.wait()
  found.close()


def resumed_step(root: pathlib.Path) -> int:
  """The step that the run goes on from, with all of its bits; 0 if none."""
  found = opened(root, local_every=50)
  try:
    resumed = found.resume(abstract())
  finally:
    found.close()
  if resumed is None:
    return 0
  want = jax.tree.leaves(state_of(resumed.step))
  for value, wanted in zip(jax.tree.leaves(resumed.state), want, strict=True):
    assert np.asarray(value).tobytes() == np.asarray(wanted).tobytes()
  assert resumed.loader_state["shards"] == {"0": {"offset": resumed.step}}
  return resumed.step


def files_of(directory: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in directory.rglob("*") if path.is_file())


def damage(path: pathlib.Path, *, kind: str, at: float = 0.5) -> None:
  """Changes a file; a flip is of one bit, at this share of the file."""
  content = bytearray(path.read_bytes())
  if kind == "remove":
    path.unlink()
    return
  if kind == "flip" and content:
    bit = min(int(at * 8 * len(content)), 8 * len(content) - 1)
    content[bit // 8] ^= 1 << bit % 8
  elif kind == "cut":
    content = content[: len(content) // 2]
  else:
    content = bytearray()
  path.write_bytes(content)


def all_of(directory: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
  """Every file of a step, each kind of damage; files are as they were after."""
  for path in files_of(directory):
    before = path.read_bytes()
    for kind in KINDS:
      damage(path, kind=kind)
      yield path, kind
      path.write_bytes(before)
