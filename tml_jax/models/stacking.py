"""Where each layer's parameters lie: one tree a layer, or stacked by blocks.

For: `trunk.py`, and whoever reads or writes parameters by layer. Not for:
running anything. Start at `Layout`.

With `scan_layers` the trunk is trunk/layer_00 .. for what comes before the
scanned blocks, then trunk/blocks, and trunk/layer_NN again for a last piece
that is no whole block. A block is one period of the attention pattern. Each run
of equal layers in it is scanned again, so that the compiler meets each kind
once: trunk/blocks/layer_5 has arrays with a leading dim of blocks, a run has
two, trunk/blocks/layers_0_4 [blocks, 5, ...]. Dense layers come first and are
never scanned, nor is the rest of their period.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import ModelConfig

BLOCKS = "blocks"
RUN = "layers_"  # names of runs begin so


def name(layer: int) -> str:
  """Of a layer that is not scanned."""
  return f"layer_{layer:02d}"


@dataclasses.dataclass(frozen=True)
class Run:
  """Equal layers next to one another in a block, `start` up to `end`."""

  start: int
  end: int

  @property
  def length(self) -> int:
    return self.end - self.start

  @property
  def name(self) -> str:
    if self.length == 1:
      return f"layer_{self.start}"
    return f"{RUN}{self.start}_{self.end - 1}"


def runs(pattern: str) -> tuple[Run, ...]:
  """The runs of equal letters of an attention pattern."""
  result, start = [], 0
  for _, letters in itertools.groupby(pattern):
    result.append(Run(start, start + len(tuple(letters))))
    start = result[-1].end
  return tuple(result)


@dataclasses.dataclass(frozen=True)
class Layout:
  """Which layers are scanned: `first` up to, not including, `end`."""

  first: int
  end: int
  runs: tuple[Run, ...]  # of a block
  num_layers: int

  @classmethod
  def of(cls, config: ModelConfig, *, scan_layers: bool) -> "Layout":
    period, layers = len(config.attention_pattern), config.num_layers
    first = -(-config.num_dense_layers // period) * period
    blocks = max(0, layers - first) // period if scan_layers else 0
    first = first if blocks else layers
    return cls(
      first=first,
      end=first + blocks * period,
      runs=runs(config.attention_pattern),
      num_layers=layers,
    )

  @property
  def period(self) -> int:
    return self.runs[-1].end

  @property
  def blocks(self) -> int:
    return (self.end - self.first) // self.period

  @property
  def unrolled(self) -> tuple[int, ...]:
    """Layers before and behind the blocks."""
    return (*range(self.first), *range(self.end, self.num_layers))

  def place(self, layer: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Path of a layer below `trunk`, and its index in the arrays there."""
    if not self.first <= layer < self.end:
      return (name(layer),), ()
    block, inner = divmod(layer - self.first, self.period)
    run = next(run for run in self.runs if inner < run.end)
    index = (block,) if run.length == 1 else (block, inner - run.start)
    return (BLOCKS, run.name), index


def stack(collection: Any, *, layout: Layout) -> Any:
  """A collection ("params" or "router") of single layers, in blocks."""
  if not layout.blocks or "trunk" not in collection:
    return collection
  trunk = dict(collection["trunk"])
  blocks = {}
  for run in layout.runs:
    parts = []
    for start in range(layout.first, layout.end, layout.period):
      layers = [
        trunk.pop(name(start + inner)) for inner in range(run.start, run.end)
      ]
      parts.append(
        layers[0] if run.length == 1 else jax.tree.map(_stacked, *layers)
      )
    blocks[run.name] = jax.tree.map(_stacked, *parts)
  return {**collection, "trunk": trunk | {BLOCKS: blocks}}


def unstack(collection: Any, *, layout: Layout) -> Any:
  """The inverse of `stack`."""
  if not layout.blocks or "trunk" not in collection:
    return collection
  trunk = dict(collection["trunk"])
  blocks = trunk.pop(BLOCKS)
  for layer in range(layout.first, layout.end):
    (_, run), index = layout.place(layer)
    trunk[name(layer)] = jax.tree.map(lambda x, i=index: x[i], blocks[run])
  return {**collection, "trunk": trunk}


def stacked_dims(path: Sequence[str]) -> int:
  """Leading dims of blocks and runs of an array at `path`."""
  return sum(key == BLOCKS or key.startswith(RUN) for key in path)


def _stacked(*arrays: Any) -> Any:
  on_host = all(isinstance(array, np.ndarray) for array in arrays)
  return (np if on_host else jnp).stack(arrays)
