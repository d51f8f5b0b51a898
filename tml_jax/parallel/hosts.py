"""Between arrays on the whole mesh and the memory of one host.

For: batches that each host makes a part of, weights that one host evaluates.
Not for: checkpoints, which never gather anything. Start reading at
`local_rows`.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from tml_jax import errors
from tml_jax.parallel import chips

# Of a host's memory for gathered weights: their user makes copies.
_SHARE = 0.5


def local_rows(sharding: jax.sharding.Sharding, *, size: int) -> list[int]:
  """Rows of a global batch of `size` that lie on devices of this process."""
  slices = sharding.addressable_devices_indices_map((size,)).values()
  return sorted({i for (rows,) in slices for i in range(*rows.indices(size))})


def put(
  batch: Any,
  *,
  rows: Sequence[int],
  sharding: jax.sharding.Sharding,
  size: int,
) -> Any:
  """Global arrays [size, ...] of which each process has its `local_rows`.

  `batch` is a tree of them, and so is the result.
  """

  def one(value: np.ndarray) -> jax.Array:
    def block(index: tuple[slice, ...]) -> np.ndarray:
      start, stop, _ = index[0].indices(size)
      # The rows of a device are neighbours, here as in the global batch.
      first = int(np.searchsorted(rows, start))
      return value[first : first + stop - start]

    return jax.make_array_from_callback(
      (size, *value.shape[1:]), sharding, block
    )

  return jax.tree.map(one, batch)


def num_bytes(tree: Any) -> int:
  """Size of all leaves, whole."""
  return sum(
    math.prod(leaf.shape) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def check_fits(tree: Any, *, what: str, fix: str) -> None:
  """Whether one host can hold what lies on many devices.

  Raises:
    errors.UserError: it would take more than half of its memory.
  """
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  needed = num_bytes(tree)
  if needed > _SHARE * memory:
    raise errors.UserError(
      f"{what}: the weights take {needed / chips.GIB:.1f} GiB, more than"
      f" half of this host's {memory / chips.GIB:.1f} GiB of memory; {fix}"
    )


def gather(tree: Any) -> Any:
  """The whole arrays on every host; all processes must come here.

  One array at a time is whole on the devices, too.
  """
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return jax.tree.map(
    lambda leaf: np.asarray(
      multihost_utils.process_allgather(leaf, tiled=True)
    ),
    tree,
  )
