"""Checkpoints: the whole run or nothing.

For: saving and restoring state, data-iterator position and step with Orbax.
Not for: the config of a run, which `workdir` keeps and compares, nor what is
done about damage (`tiers`). A save that is killed leaves a temporary directory
that Orbax ignores; the last finished one stays. In a bucket it is a folder
without `COMMITTED`. Checksums of all files
(`checksums`) are written before a step gets its name. Start reading at
`Checkpointer`.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from tml_jax import buckets, errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.config import text as config_text
from tml_jax.streams import tokenizer
from tml_jax.training import checksums
from tml_jax.training import state as state_lib

_STATE = "state"  # the folder of a step that the arrays are in
_LISTED = 6  # differences in one message


def _is_not_chatter(record) -> bool:
  """Orbax logs a dozen lines for each save and each restore."""
  return "orbax" not in record.pathname


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class Sealing:
  """Writes the checksums of a step after its files and before it has a name.

  Attributes:
    options: for the manager that saves.
    step: that is being saved; to be set before every save.
  """

  def __init__(self, checkpoints: pathlib.Path):
    self._checkpoints = checkpoints
    self._barrier = None  # known once jax has all of its processes
    self.step = 0
    self.options = ocp.AsyncOptions(
      # On process 0, when all parts are there.
      post_finalization_callback=self._seal,
      # On every process, when its own part is there.
      barrier_sync_fn=self._seal_part,
    )

  def _seal(self) -> None:
    checksums.write(checksums.under_way(self._checkpoints, step=self.step))

  def _seal_part(self, *, key: str, timeout_ms: int) -> None:
    if "async_write_complete" in key:
      checksums.write_part(
        checksums.under_way(self._checkpoints, step=self.step),
        index=jax.process_index(),
      )
    if self._barrier is None:
      self._barrier = ocp.multihost.get_barrier_sync_fn()
    self._barrier(key=key, timeout_ms=timeout_ms)


class Checkpointer:
  """Asynchronous checkpoints under `workdir`/checkpoints/STEP."""

  def __init__(self, workdir: str, *, keep: int):
    """Opens a run to save in; removes what killed saves left there.

    Args:
      workdir: directory of the run.
      keep: how many of the newest checkpoints stay.
    """
    logging.get_absl_handler().addFilter(_is_not_chatter)
    directory = files.absolute(workdir) / workdir_lib.CHECKPOINTS
    self.path = str(directory)
    self._directory = directory
    self._sealing = Sealing(directory)
    self._manager = ocp.CheckpointManager(
      self.path,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=True,
        cleanup_tmp_directories=True,
        atomicity_options=_atomicity(self.path),
        async_options=self._sealing.options,
      ),
    )

  def save(
    self,
    step: int,
    *,
    state: state_lib.TrainState,
    loader_state: dict[str, Any],
  ) -> None:
    """Starts a save; returns once the arrays are copied off the device.

    Raises:
      errors.TransientError: this save or the one before cannot be written;
        `wait` and `close` may find that too.
    """
    with self._saving():
      self._manager.wait_until_finished()  # it is sealed by its number
      self._sealing.step = step
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          loader=ocp.args.JsonSave(loader_state),
        ),
        force=True,
      )

  def restore(
    self, abstract_state: state_lib.TrainState, *, step: int
  ) -> tuple[state_lib.TrainState, dict[str, Any]]:
    """State and loader state of a checkpoint, sharded as `abstract_state`.

    Raises:
      errors.UserError: the checkpoint is of another model.
      errors.TransientError: it cannot be read now.
    """
    directory = self._directory / str(step)
    with _reading(directory):
      handler = ocp.StandardCheckpointHandler()
      kept = _shapes(handler.metadata(directory / _STATE).tree)
    if problems := _differences(kept, wanted=_shapes(abstract_state)):
      raise errors.UserError(
        f"checkpoint {directory} does not fit this config"
        f" ({_listed(problems)}); use the run's own config, or delete that"
        " directory to go back to the one before"
      )
    with _reading(directory):
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(abstract_state),
          loader=ocp.args.JsonRestore(),
        ),
      )
    return restored["state"], restored["loader"]

  def wait(self) -> None:
    """Blocks until the running save is finished."""
    with self._saving():
      self._manager.wait_until_finished()
      files.sync_directory(self._directory)

  def close(self) -> None:
    """Waits and frees what is held."""
    with self._saving():
      self._manager.close()
      files.sync_directory(self._directory)

  @contextlib.contextmanager
  def _saving(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:
      if not isinstance(error, ValueError) and not files.is_fault(error):
        raise
      raise errors.TransientError(
        f"cannot save to {self.path} ({_first_line(error)}); the checkpoints"
        " before stay: mend that, then run the same command"
      ) from error


class Weights:
  """Weights of a finished checkpoint, without the rest of its state.

  Averaged weights where the run keeps an average: those that sampling uses.
  """

  def __init__(self, path: str, *, index: int = 0, count: int = 1):
    """Compares checksums and reads shapes; no arrays.

    Args:
      path: a workdir, whose newest checkpoint counts, or WORKDIR/checkpoints/
        STEP.
      index: of this process among `count` that open it; each compares a share.
      count: how many those are.

    Raises:
      errors.UserError: no finished checkpoint there.
      errors.DeadEndError: it is damaged.
    """
    logging.get_absl_handler().addFilter(_is_not_chatter)
    self.path, self.step = _locate(path)
    check_whole(self.path, step=self.step, index=index, count=count)
    self._manager = ocp.CheckpointManager(
      self.path,
      options=ocp.CheckpointManagerOptions(
        create=False,
        read_only=True,
        atomicity_options=_atomicity(self.path),
      ),
      item_handlers={"state": ocp.PyTreeCheckpointHandler()},
    )
    tree = self._manager.item_metadata(self.step)["state"].tree
    self._params = "ema" if tree.get("ema") else "params"
    tree = {"params": tree[self._params], "router": tree.get("router") or {}}
    self.shapes = _shapes(tree)

  def check(self, abstract: dict[str, Any], *, config: Any) -> None:
    """Compares with the shapes of a model.

    Args:
      abstract: {"params": ..., "router": ...} of jax.ShapeDtypeStruct.
      config: of the model.

    Raises:
      errors.UserError: they differ; names the fields of the config that do,
        where the run still has one, else some of the tensors.
    """
    if problems := _differences(self.shapes, wanted=_shapes(abstract)):
      raise self._is_other(self._changed_fields(config) or problems)

  def _is_other(self, problems: list[str]) -> errors.UserError:
    return errors.UserError(
      f"the weights of {self.path}/{self.step} are of another model"
      f" ({_listed(problems)}): give the config that they were made with"
    )

  def _changed_fields(self, config: Any) -> list[str]:
    """Fields of the model, "NAME OLD -> NEW"; none where that is unknown."""
    run = files.path(self.path).parent
    try:
      old = workdir_lib.load_config(str(run), config_type=type(config))
    except errors.UserError:  # weights alone, or of an older version
      return []
    return [
      f"{name} {change}"
      for name, change in config_text.diff(old, new=config).items()
      if name.startswith(("model.", "streams."))
      or name in workdir_lib.LAYOUT_FIELDS
    ]

  def restore(self, abstract: dict[str, Any]) -> dict[str, Any]:
    """Arrays for the leaves of `abstract`, which may be a part of all.

    A jax.ShapeDtypeStruct with a sharding gives an array on its devices, one
    without gives a numpy array.

    Raises:
      errors.UserError: the checkpoint is of another model.
      errors.TransientError: it cannot be read now.
    """
    wanted = _shapes(abstract)
    kept = {path: x for path, x in self.shapes.items() if path in wanted}
    if problems := _differences(kept, wanted=wanted):
      raise self._is_other(problems)
    item = {
      self._params if collection == "params" else collection: leaves
      for collection, leaves in abstract.items()
    }
    with _reading(files.path(self.path) / str(self.step)):
      restored = self._manager.restore(
        self.step,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeRestore(
            item,
            restore_args=jax.tree.map(_restore_args, item),
            partial_restore=True,
          )
        ),
      )["state"]
    return {
      collection: restored[
        self._params if collection == "params" else collection
      ]
      for collection in abstract
    }

  def check_tokenizer(self, path: str) -> None:
    """Compares the tokenizer at `path` with that of the training.

    Raises:
      errors.UserError: they differ. Imported weights have none.
    """
    step = files.path(self.path) / str(self.step)
    file = step / workdir_lib.LOADER_STATE
    if not file.exists():
      return
    trained_with = json.loads(file.read_bytes())["identity"].get("tokenizer")
    if trained_with != tokenizer.digest(path):
      raise errors.UserError(
        f"{self.path} was not trained with {tokenizer.described(path)}, but"
        f" with the tokenizer {trained_with}: its text would be read wrongly;"
        " give that as --tokenizer=FILE, or the --data_dir of its training"
      )

  def close(self) -> None:
    self._manager.close()


def check_whole(
  checkpoints: str, *, step: int, index: int = 0, count: int = 1
) -> None:
  """Refuses a damaged checkpoint; see `checksums.damage`.

  Raises:
    errors.DeadEndError: what is damaged, and which others there are.
    errors.TransientError: the disk does not answer.
  """
  directory = files.path(checkpoints) / str(step)
  problem = checksums.damage(directory, index=index, count=count)
  if not problem:
    return
  steps = workdir_lib.checkpoint_steps(directory.parent.parent)
  others = ", ".join(str(other) for other in steps if other != step)
  raise errors.DeadEndError(
    f"checkpoint {directory} is damaged: {problem}; move it away, and the"
    f" newest of the others counts ({others or 'there is none'})"
  )


@contextlib.contextmanager
def _reading(directory: pathlib.Path) -> Iterator[None]:
  """A step that is whole and of this model: what fails is outside of it.

  Raises:
    errors.TransientError: the next start may read it.
  """
  try:
    yield
  except Exception as error:
    is_of_orbax = isinstance(error, (ValueError, KeyError, TypeError))
    if not is_of_orbax and not files.is_fault(error):
      raise
    raise errors.TransientError(
      f"checkpoint {directory} cannot be read ({_first_line(error)}): see to"
      " the disk or the connection, then run the same command again"
    ) from error


def _shapes(tree: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
  """Of each leaf, by the names on the way to it, as Orbax has them."""
  return {
    tuple(jax.tree_util.keystr((key,), simple=True) for key in path): tuple(
      leaf.shape
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _differences(
  kept: dict[tuple[str, ...], tuple[int, ...]],
  *,
  wanted: dict[tuple[str, ...], tuple[int, ...]],
) -> list[str]:
  return [
    f"{'/'.join(path)}: {kept.get(path, 'absent')} in the checkpoint,"
    f" {wanted.get(path, 'absent')} in the config"
    for path in sorted(wanted.keys() | kept.keys())
    if kept.get(path) != wanted.get(path)
  ]


def _listed(problems: list[str]) -> str:
  more = len(problems) - _LISTED
  return "; ".join(
    [*problems[:_LISTED], *([f"and {more} more"] if more > 0 else [])]
  )


def _restore_args(leaf: jax.ShapeDtypeStruct) -> ocp.RestoreArgs:
  if leaf.sharding is None:
    return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
  return ocp.ArrayRestoreArgs(sharding=leaf.sharding, dtype=leaf.dtype)


def _atomicity(path: str) -> ocp.options.AtomicityOptions | None:
  """How a checkpoint is made complete there; of a disk as Orbax does it."""
  if not buckets.is_url(path):
    return None
  from tml_jax.training import bucket_arrays

  bucket_arrays.prepare()
  return bucket_arrays.ATOMICITY


def _locate(path: str) -> tuple[str, int]:
  """Directory of the checkpoints and the step that `path` means."""
  place = files.absolute(path)
  directory = place / workdir_lib.CHECKPOINTS
  steps = workdir_lib.checkpoint_steps(place)
  is_step = place.name.isdecimal() and place.name.isascii()
  if (
    is_step
    and place.parent.name == workdir_lib.CHECKPOINTS
    and not directory.is_dir()  # it is no workdir of that name
  ):
    directory, steps = place.parent, [int(place.name)]
  if not steps or not (directory / str(max(steps))).is_dir():
    raise errors.UserError(
      f"no finished checkpoint in {directory}; run `python -m tml_jax.train "
      f"--workdir={directory.parent}` first"
    )
  return str(directory), max(steps)
