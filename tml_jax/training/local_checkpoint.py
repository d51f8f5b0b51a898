"""The fast tier: each process keeps its own shards on a disk of its host.

For: frequent saves of runs whose workdir is far away (a bucket). Not for:
another mesh or fewer processes, which need the checkpoints in the workdir. Not
Orbax: its emergency manager wants copies of the state on several slices, its
plain one writes numpy arrays on one process only. Start at `LocalCheckpointer`.

DIR/RUN/INDEX_of_COUNT/STEP holds `state.bin`, the blocks one after another,
`index.json`, which says what they are, and the checksums of both. Nothing is
exchanged to save; to restore, all processes must hold the same step of the same
start. `opened_by` beside the steps names the start whose process has the share:
what none of this start has is removed, as a host that comes back with another
INDEX would else keep all that it ever had.
"""

import json
import os
import pathlib
import shutil
import threading
from typing import Any

import jax
import numpy as np

from tml_jax import errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.training import checksums
from tml_jax.training import state as state_lib

_KEPT = 2  # a process may be killed between the others' saves of a step
_INDEX, _STATE = workdir_lib.LOCAL_INDEX, workdir_lib.LOCAL_STATE
_PARTIAL = ".partial"
_OPENED_BY = "opened_by"
Block = tuple[tuple[int, int], ...]  # start and stop of each dim


class LocalCheckpointer:
  """Saves and restores what lies on the devices of this process.

  Attributes:
    damaged: what `usable` has found to be wrong, by step.
  """

  def __init__(self, root: pathlib.Path, *, start: str, index: int, count: int):
    """Takes this process's share; removes what a killed save left in it.

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
    self.damaged: dict[int, str] = {}
    self.path.mkdir(parents=True, exist_ok=True)
    files.write_atomically(self.path / _OPENED_BY, content=start)
    for item in self.path.glob(f"*{_PARTIAL}"):
      shutil.rmtree(item, ignore_errors=True)

  def remove_others(self) -> None:
    """Removes shares of no process of this start; all must have opened theirs.

    Those of other processes on this host stay, whatever their number: each
    has written its start.
    """
    for other in self.path.parent.glob("*_of_*"):
      try:
        start = (other / _OPENED_BY).read_text()
      except FileNotFoundError:  # it was never opened by this version
        start = None
      except OSError:  # it cannot be known: the next start may
        continue
      if start != self._start:
        shutil.rmtree(other, ignore_errors=True)

  def usable(self, abstract_state: state_lib.TrainState) -> dict[int, str]:
    """Steps with every block that `abstract_state` wants here.

    Returns:
      The start that made each.
    """
    result = {}
    for step in self._steps():
      directory = self.path / str(step)
      problem = checksums.damage_of(directory, name=_INDEX)
      if problem:
        self.damaged[step] = problem
        continue
      index = self._index(step)
      if _has(index, abstract_state):
        result[step] = index["start"]
    return result

  def damage(self, step: int) -> str:
    """What is wrong with a step of `usable`; "" if it is whole."""
    return checksums.damage(self.path / str(step))

  def discard_after(self, step: int) -> None:
    """Forgets later steps: the run goes on from `step` and makes its own."""
    for other in self._steps():
      if other > step:
        _remove(self.path / str(other))

  def save(
    self,
    step: int,
    *,
    state: state_lib.TrainState,
    loader_state: dict[str, Any],
  ) -> None:
    """Copies the blocks and starts to write them.

    Raises:
      errors.TransientError: the save before could not be written.
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
    """State and loader state of a step of `usable` without `damage`."""
    index = self._index(step)
    data = np.memmap(self.path / str(step) / _STATE, dtype=np.uint8, mode="r")
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
      errors.TransientError: it could not be written.
    """
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._error is not None:
      error, self._error = self._error, None
      raise errors.TransientError(
        f"cannot save to --local_checkpoint_dir, {self.path}"
        f" ({error.strerror}): make room there, then run the same command"
      ) from error

  def _steps(self) -> list[int]:
    names = [item.name for item in self.path.iterdir()]
    return sorted(int(n) for n in names if n.isdecimal() and n.isascii())

  def _index(self, step: int) -> dict[str, Any]:
    return json.loads((self.path / str(step) / _INDEX).read_text())

  def _write(
    self, step: int, index: dict[str, Any], blocks: list[np.ndarray]
  ) -> None:
    partial = self.path / f"{step}{_PARTIAL}"
    try:
      shutil.rmtree(partial, ignore_errors=True)
      partial.mkdir()
      found = (0, 0)
      with open(partial / _STATE, "wb") as file:
        for block in blocks:
          data = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
          file.write(data)
          found = checksums.of_block(data, found)
        file.flush()
        os.fsync(file.fileno())
      (partial / _INDEX).write_text(json.dumps(index))
      checksums.write(partial, known={_STATE: found})
      shutil.rmtree(self.path / str(step), ignore_errors=True)
      os.replace(partial, self.path / str(step))
      files.sync_directory(self.path)
      for old in self._steps()[:-_KEPT]:
        _remove(self.path / str(old))
    except OSError as error:
      self._error = error


def _remove(path: pathlib.Path) -> None:
  """A step, or the file that damage has made of it."""
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink()


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
