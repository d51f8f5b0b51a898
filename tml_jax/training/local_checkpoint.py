"""The fast tier: each process keeps its own shards on a disk of its host.

For: frequent saves of runs whose workdir is far away (a bucket). Not for:
another mesh or fewer processes, which need the checkpoints in the workdir. Not
Orbax: its emergency manager wants copies of the state on several slices, its
plain one writes numpy arrays on one process only. Start at `LocalCheckpointer`.

DIR/RUN/INDEX_of_COUNT/STEP holds `state.bin`, the blocks one after another,
and `index.json`, which says what they are. Nothing is exchanged to save; to
restore, all processes must hold the same step of the same start.
"""

import json
import os
import pathlib
import shutil
import threading
import zlib
from typing import Any

import jax
import numpy as np

from tml_jax import errors
from tml_jax import workdir as workdir_lib
from tml_jax.training import state as state_lib

_KEPT = 2  # a process may be killed between the others' saves of a step
_INDEX, _STATE = workdir_lib.LOCAL_INDEX, workdir_lib.LOCAL_STATE
_PARTIAL = ".partial"
Block = tuple[tuple[int, int], ...]  # start and stop of each dim


class LocalCheckpointer:
  """Saves and restores what lies on the devices of this process."""

  def __init__(self, root: pathlib.Path, *, start: str, index: int, count: int):
    """Removes what a killed save and other numbers of processes left.

    Args:
      root: of this run (`local_directory.of_run`).
      start: names this start of it, the same on all processes.
      index: of this process.
      count: of the processes.
    """
    self.path = root / f"{index}_of_{count}"
    self._start = start
    self._thread: threading.Thread | None = None
    self._error: OSError | None = None
    self.path.mkdir(parents=True, exist_ok=True)
    for other in root.glob(f"{index}_of_*"):
      if other != self.path:
        shutil.rmtree(other, ignore_errors=True)
    for item in self.path.glob(f"*{_PARTIAL}"):
      shutil.rmtree(item, ignore_errors=True)

  def usable(self, abstract_state: state_lib.TrainState) -> dict[int, str]:
    """Steps with every block that `abstract_state` wants here.

    Returns:
      The start that made each.
    """
    result = {}
    for step in self._steps():
      index = json.loads((self.path / str(step) / _INDEX).read_text())
      size = (self.path / str(step) / _STATE).stat().st_size
      if size == index["bytes"] and _has(index, abstract_state):
        result[step] = index["start"]
    return result

  def discard_after(self, step: int) -> None:
    """Forgets later steps: the run goes on from `step` and makes its own."""
    for other in self._steps():
      if other > step:
        shutil.rmtree(self.path / str(other))

  def save(
    self,
    step: int,
    *,
    state: state_lib.TrainState,
    loader_state: dict[str, Any],
  ) -> None:
    """Copies the blocks and starts to write them.

    Raises:
      errors.UserError: the save before could not be written.
    """
    self.wait()
    blocks, leaves = [], {}
    for path, leaf in _leaves(state):
      here = {}  # of copies on several devices one is enough
      for shard in leaf.addressable_shards:
        here.setdefault(_block(shard.index, leaf.shape), shard.data)
      leaves[path] = {
        "shape": leaf.shape,
        "dtype": str(leaf.dtype),
        "blocks": list(here),
      }
      # A copy: the buffers are donated to the next step.
      blocks += [np.array(data, copy=True) for data in here.values()]
    index = {"start": self._start, "loader": loader_state, "leaves": leaves}
    self._thread = threading.Thread(
      target=self._write, args=(step, index, blocks), daemon=True
    )
    self._thread.start()

  def restore(
    self, abstract_state: state_lib.TrainState, *, step: int
  ) -> tuple[state_lib.TrainState, dict[str, Any]]:
    """State and loader state of a step of `usable`.

    Raises:
      errors.UserError: the disk gives back other bytes than were written.
    """
    directory = self.path / str(step)
    index = json.loads((directory / _INDEX).read_text())
    data = np.memmap(directory / _STATE, dtype=np.uint8, mode="r")
    if zlib.crc32(data) != index["crc32"]:
      raise errors.UserError(
        f"local checkpoint {directory} is broken: delete that directory, and"
        " the run goes on from the workdir's"
      )
    found, at = {}, 0
    for path, leaf in index["leaves"].items():
      dtype = np.dtype(leaf["dtype"])
      for block in map(_as_block, leaf["blocks"]):
        shape = tuple(stop - start for start, stop in block)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        found[path, block] = data[at : at + size].view(dtype).reshape(shape)
        at += size

    def restored(path, leaf) -> jax.Array:
      name = jax.tree_util.keystr(path)
      return jax.make_array_from_callback(
        leaf.shape,
        leaf.sharding,
        lambda index: np.array(found[name, _block(index, leaf.shape)]),
      )

    state = jax.tree_util.tree_map_with_path(restored, abstract_state)
    return state, index["loader"]

  def wait(self) -> None:
    """Blocks until the running save is finished.

    Raises:
      errors.UserError: it could not be written.
    """
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._error is not None:
      error, self._error = self._error, None
      raise errors.UserError(
        f"cannot save to --local_checkpoint_dir, {self.path}"
        f" ({error.strerror}): make room there, then run the same command"
      ) from error

  def _steps(self) -> list[int]:
    return sorted(
      int(item.name)
      for item in self.path.iterdir()
      if item.name.isdecimal() and (item / _INDEX).exists()
    )

  def _write(
    self, step: int, index: dict[str, Any], blocks: list[np.ndarray]
  ) -> None:
    partial = self.path / f"{step}{_PARTIAL}"
    try:
      shutil.rmtree(partial, ignore_errors=True)
      partial.mkdir()
      crc, size = 0, 0
      with open(partial / _STATE, "wb") as file:
        for block in blocks:
          data = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
          file.write(data)
          crc, size = zlib.crc32(data, crc), size + data.size
      index |= {"crc32": crc, "bytes": size}
      (partial / _INDEX).write_text(json.dumps(index))
      shutil.rmtree(self.path / str(step), ignore_errors=True)
      os.replace(partial, self.path / str(step))
      for old in self._steps()[:-_KEPT]:
        shutil.rmtree(self.path / str(old))
    except OSError as error:
      self._error = error


def _leaves(tree: Any) -> list[tuple[str, Any]]:
  return [
    (jax.tree_util.keystr(path), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]


def _has(index: dict[str, Any], abstract_state: state_lib.TrainState) -> bool:
  for path, leaf in _leaves(abstract_state):
    kept = index["leaves"].get(path)
    if kept is None or kept["dtype"] != str(leaf.dtype):
      return False
    if tuple(kept["shape"]) != leaf.shape:
      return False
    here = leaf.sharding.addressable_devices_indices_map(leaf.shape).values()
    wanted = {_block(index, leaf.shape) for index in here}
    if not wanted <= set(map(_as_block, kept["blocks"])):
      return False
  return True


def _block(index: tuple[slice, ...], shape: tuple[int, ...]) -> Block:
  return tuple(
    part.indices(size)[:2] for part, size in zip(index, shape, strict=True)
  )


def _as_block(value: list[list[int]]) -> Block:
  return tuple((start, stop) for start, stop in value)
