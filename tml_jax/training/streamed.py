"""Saving weights that are never in memory at once.

For: writing a checkpoint from another format, one array at a time. Not for:
the checkpoints of a run, whose state is in memory anyway (`checkpoint`).
Start reading at `save`. The files are the same: what Orbax's own handler
writes for arrays.
"""

import asyncio
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tml_jax.training import checkpoint


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


class _Handler(ocp.type_handlers.ArrayHandler):
  """Makes, writes and forgets one array before it turns to the next."""

  async def serialize(self, values, infos, args=None):
    args = args or [ocp.SaveArgs()] * len(values)
    for value, info, arg in zip(values, infos, args, strict=True):
      array = value.load()
      futures = await super().serialize([array], [info], [arg])
      for future in futures:
        await asyncio.to_thread(future.result)
      array.delete()
    return []


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
  manager = ocp.CheckpointManager(
    workdir.absolute() / checkpoint.DIRECTORY,
    options=ocp.CheckpointManagerOptions(create=True),
    item_handlers={"state": handler},
  )
  manager.save(
    step,
    args=ocp.args.Composite(state=ocp.args.PyTreeSave(variables)),
    force=True,
  )
  manager.wait_until_finished()
  manager.close()
