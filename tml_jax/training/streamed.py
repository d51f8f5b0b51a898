"""Saving weights that are never in memory at once.

For: writing a checkpoint from another format, one array at a time. Not for:
the checkpoints of a run, whose state is in memory anyway (`checkpoint`).
Start reading at `save`. The files are the same: what Orbax's own handler
writes for arrays.
"""

import asyncio
import ctypes
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tml_jax import workdir as workdir_lib
from tml_jax.training import checkpoint

# Small arrays are written together up to this size. One transaction for each
# writes the index of all arrays before it again: 292 small ones took 90 MB.
GROUP_BYTES = 32 << 20


@dataclasses.dataclass(frozen=True)
class Later:
  """An array that is made when its turn comes.

  Attributes:
    struct: shape, dtype and sharding.
    load: makes it; called once, by every process in the same order.
  """

  struct: jax.ShapeDtypeStruct
  load: Callable[[], jax.Array]

  @property
  def shape(self) -> tuple[int, ...]:
    return self.struct.shape

  @property
  def dtype(self) -> np.dtype:
    return self.struct.dtype

  @property
  def size(self) -> int:
    return self.struct.size

  @property
  def nbytes(self) -> int:
    return self.size * self.dtype.itemsize

  @property
  def local_bytes(self) -> int:
    """Of what the devices of this process hold."""
    sharding = self.struct.sharding
    part = math.prod(sharding.shard_shape(self.shape)) * self.dtype.itemsize
    return part * len(sharding.addressable_devices)


class _Handler(ocp.type_handlers.ArrayHandler):
  """Makes, writes and forgets some arrays before it turns to the next."""

  async def serialize(self, values, infos, args=None):
    args = args or [ocp.SaveArgs()] * len(values)
    rows = list(zip(values, infos, args, strict=True))
    for group in _groups(rows):
      await self._write(*zip(*group, strict=True))
      _give_back()
    return []

  async def _write(self, values, infos, args) -> None:
    """Arrays in one transaction."""
    arrays = [value.load() for value in values]
    for future in await super().serialize(arrays, list(infos), list(args)):
      await asyncio.to_thread(future.result)
    for array in arrays:
      array.delete()


def _groups(rows: list[tuple[Later, Any, Any]]) -> Iterator[list]:
  """Neighbours of at most `GROUP_BYTES` in this process, or one alone."""
  group, total = [], 0
  for row in rows:
    size = row[0].local_bytes
    if group and total + size > GROUP_BYTES:
      yield group
      group, total = [], 0
    group.append(row)
    total += size
  if group:
    yield group


def _give_back() -> None:
  """Returns freed memory to the system, where the C library keeps it.

  glibc has a pool for each thread that compressed an array: without this
  three arrays of 256 MB, written one after the other, left 237 MB each.
  """
  trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
  if trim is not None:
    trim(0)


def save(workdir: pathlib.Path, *, variables: Any, step: int) -> None:
  """Writes a checkpoint of weights alone; returns when it is finished.

  Args:
    workdir: of the new run.
    variables: {"params": ..., "router": ...} of `Later`.
    step: number of the checkpoint.
  """
  registry = ocp.type_handlers.create_type_handler_registry(
    (Later, _Handler(array_metadata_store=None))
  )
  handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
  directory = workdir.absolute() / workdir_lib.CHECKPOINTS
  sealing = checkpoint.Sealing(directory)
  sealing.step = step
  manager = ocp.CheckpointManager(
    directory,
    options=ocp.CheckpointManagerOptions(
      create=True, async_options=sealing.options
    ),
    item_handlers={"state": handler},
  )
  manager.save(
    step,
    args=ocp.args.Composite(state=ocp.args.PyTreeSave(variables)),
    force=True,
  )
  manager.wait_until_finished()
  manager.close()
