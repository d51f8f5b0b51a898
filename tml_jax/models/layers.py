"""Where each layer's parameters lie: one tree a layer, or stacked by blocks.

For: `trunk.py`, and whoever reads or writes parameters by layer. Not for:
running anything. Start at `Layout`.

With `scan_layers` the trunk is trunk/layer_00 .. for what comes before the
scanned blocks, trunk/blocks/layer_0 .. for the layers of a block, each array
with a leading dim of blocks, and trunk/layer_NN again for a last piece that is
no whole block. A block is one period of the attention pattern. Dense layers
come first and are never scanned, nor is the rest of their period.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import ModelConfig

BLOCKS = "blocks"


def name(layer: int) -> str:
  """Of a layer that is not scanned."""
  return f"layer_{layer:02d}"


@dataclasses.dataclass(frozen=True)
class Layout:
  """Which layers are scanned: `first` up to, not including, `end`."""

  first: int
  end: int
  period: int
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
      period=period,
      num_layers=layers,
    )

  @property
  def blocks(self) -> int:
    return (self.end - self.first) // self.period

  @property
  def unrolled(self) -> tuple[int, ...]:
    """Layers before and behind the blocks."""
    return (*range(self.first), *range(self.end, self.num_layers))

  def place(self, layer: int) -> tuple[tuple[str, ...], int | None]:
    """Path of a layer below `trunk` and its index, None if it has none."""
    if not self.first <= layer < self.end:
      return (name(layer),), None
    block, inner = divmod(layer - self.first, self.period)
    return (BLOCKS, f"layer_{inner}"), block


def stack(collection: Any, *, layout: Layout) -> Any:
  """A collection ("params" or "router") of single layers, in blocks."""
  if not layout.blocks or "trunk" not in collection:
    return collection
  trunk = dict(collection["trunk"])
  blocks = {}
  for inner in range(layout.period):
    layers = [
      trunk.pop(name(layer))
      for layer in range(layout.first + inner, layout.end, layout.period)
    ]
    blocks[f"layer_{inner}"] = jax.tree.map(_stacked, *layers)
  return {**collection, "trunk": trunk | {BLOCKS: blocks}}


def unstack(collection: Any, *, layout: Layout) -> Any:
  """The inverse of `stack`."""
  if not layout.blocks or "trunk" not in collection:
    return collection
  trunk = dict(collection["trunk"])
  blocks = trunk.pop(BLOCKS)
  for layer in range(layout.first, layout.end):
    (_, inner), block = layout.place(layer)
    trunk[name(layer)] = jax.tree.map(lambda x, i=block: x[i], blocks[inner])
  return {**collection, "trunk": trunk}


def _stacked(*arrays: Any) -> Any:
  on_host = all(isinstance(array, np.ndarray) for array in arrays)
  return (np if on_host else jnp).stack(arrays)
