"""Expected texts that are checked in; `python -m tests.goldens` rewrites them.

The tests compare; rewrite after a change that is meant, and read the diff.
"""

import math
import pathlib
import re

import jax

from experiments import interaction, topologies
from tml_jax import inspect
from tml_jax.config import text as config_text
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import optim
from tml_jax.training import state as state_lib

ROOT = pathlib.Path(__file__).parent.parent
PARAMETERS = ROOT / "docs" / "parameters.md"
README = ROOT / "experiments" / "README.md"
COUNTED = (
  "tiny",
  "medium",
  "tml_interaction_small",
  "inkling_small_as_shipped",
)


def config_path(size: str) -> pathlib.Path:
  return ROOT / "tests" / "golden" / f"config_{size}.txt"


def config_of(size: str) -> str:
  return config_text.to_text(interaction.get_config(size))


def sharding_path(size: str, *, topology: str) -> pathlib.Path:
  name = f"sharding_{size}_{re.sub('[:]', '_', topology)}.txt"
  return ROOT / "tests" / "golden" / name


def sharding_of(size: str, *, topology: str) -> str:
  """Where every array of the state lies on a topology, without devices.

  One line for equal parameters of several layers: how many, the part on a
  device, the whole, the mesh axes of each dim. Moments and averages lie where
  their parameter lies.
  """
  config = interaction.get_config(f"{size}@{topology}")
  mesh = mesh_lib.abstract(config.mesh)
  state = state_lib.abstract(
    config,
    model=state_lib.create_model(config),
    optimizer=optim.create(config.train.optim, steps=config.train.steps),
    mesh=mesh,
  ).state
  lines: dict[str, int] = {}
  total = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    here = leaf.sharding.shard_shape(leaf.shape)
    total += math.prod(here) * leaf.dtype.itemsize
    if name.startswith("params/"):
      name = re.sub(r"_\d+", "_*", name.removeprefix("params/"))
      line = f"{name} {list(here)} of {list(leaf.shape)}: {leaf.sharding.spec}"
      lines[line] = lines.get(line, 0) + 1
  axes = ", ".join(f"{a} {n}" for a, n in mesh.shape.items())
  head = [f"mesh: {axes}", *config.mesh.rules]
  head.append(f"state of a device: {total / 2**30:.3f} GiB")
  rows = [f"{count} x {line}" for line, count in lines.items()]
  return "\n".join([*head, "", *rows]) + "\n"


def with_counts(text: str, *, counts: dict[str, dict[str, inspect.Row]]) -> str:
  """docs/parameters.md with the numbers of its two tables from `counts`."""
  lines, column = [], "total"
  for line in text.splitlines():
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    if len(cells) == 2 + len(COUNTED):
      module = cells[0].strip("*")
      if module in ("module", "active"):
        column = {"module": "total", "active": "active"}[module]
      elif module in inspect.MODULES:
        rows = [counts[size][module] for size in COUNTED]
        cells[2:] = [f"{getattr(row, column):,}" for row in rows]
        line = f"| {' | '.join(cells)} |"
    lines.append(line)
  return "\n".join(lines) + "\n"


def with_tiny_size(text: str, *, everything: inspect.Row) -> str:
  """experiments/README.md with the size of `tiny` in millions."""
  size = f"{everything.total / 1e6:.2f} M / {everything.active / 1e6:.2f} M"
  return re.sub(r"[\d.]+ M / [\d.]+ M", size, text)


def counts() -> dict[str, dict[str, inspect.Row]]:
  """Rows of the parameter table by size and module."""
  return {
    size: {
      row.module: row
      for row in inspect.parameter_rows(interaction.get_config(size))
    }
    for size in COUNTED
  }


def main() -> None:
  for size, topology in topologies.ROWS:
    sharding_path(size, topology=topology).write_text(
      sharding_of(size, topology=topology), encoding="utf-8"
    )
  for size in interaction.SIZES:
    config_path(size).write_text(config_of(size), encoding="utf-8")
  table = counts()
  PARAMETERS.write_text(
    with_counts(PARAMETERS.read_text(encoding="utf-8"), counts=table),
    encoding="utf-8",
  )
  everything = table["tiny"]["= everything"]
  README.write_text(
    with_tiny_size(README.read_text(encoding="utf-8"), everything=everything),
    encoding="utf-8",
  )


if __name__ == "__main__":
  main()
