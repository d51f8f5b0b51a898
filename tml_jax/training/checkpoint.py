"""Checkpoints: the whole run or nothing.

For: saving and restoring state, data-iterator position and step with Orbax.
Not for: the config of a run, which `workdir` keeps and compares. A save that
is killed leaves a temporary directory that Orbax ignores; the last finished
one stays. Start reading at `Checkpointer`.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax import traverse_util

from tml_jax import errors
from tml_jax import workdir as workdir_lib
from tml_jax.config import text as config_text
from tml_jax.streams import tokenizer
from tml_jax.training import state as state_lib

_LISTED = 6  # differences in one message


def _is_not_chatter(record) -> bool:
  """Orbax logs a dozen lines for each save and each restore."""
  return "orbax" not in record.pathname


def _first_line(error: Exception) -> str:
  return str(error).strip().splitlines()[0][:300]


class Checkpointer:
  """Asynchronous checkpoints under `workdir`/checkpoints/STEP."""

  def __init__(self, workdir: str, *, options: ocp.CheckpointManagerOptions):
    logging.get_absl_handler().addFilter(_is_not_chatter)
    self.path = os.path.join(os.path.abspath(workdir), workdir_lib.CHECKPOINTS)
    self._manager = ocp.CheckpointManager(self.path, options=options)

  @classmethod
  def to_train(cls, workdir: str, *, keep: int) -> "Checkpointer":
    """Opens a run to save in; removes what killed saves left there.

    Args:
      workdir: directory of the run.
      keep: how many of the newest checkpoints stay.
    """
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, create=True, cleanup_tmp_directories=True
    )
    return cls(workdir, options=options)

  def latest_step(self) -> int | None:
    """Step of the newest finished checkpoint, None in a new run."""
    return self._manager.latest_step()

  def save(
    self,
    step: int,
    *,
    state: state_lib.TrainState,
    loader_state: dict[str, Any],
  ) -> None:
    """Starts a save; returns once the arrays are copied off the device.

    Raises:
      errors.UserError: this save or the one before cannot be written; `wait`
        and `close` may find that too.
    """
    with self._saving():
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
      errors.UserError: the checkpoint is broken or of another model.
    """
    try:
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(abstract_state),
          loader=ocp.args.JsonRestore(),
        ),
      )
    except (ValueError, OSError, KeyError, TypeError) as error:
      raise errors.UserError(
        f"checkpoint {os.path.join(self.path, str(step))} does not fit this"
        f" config or is broken ({_first_line(error)}); use the run's own"
        " config, or delete that directory to go back to the one before"
      ) from error
    return restored["state"], restored["loader"]

  def wait(self) -> None:
    """Blocks until the running save is finished."""
    with self._saving():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits and frees what is held."""
    with self._saving():
      self._manager.close()

  @contextlib.contextmanager
  def _saving(self) -> Iterator[None]:
    try:
      yield
    except (ValueError, OSError) as error:
      raise errors.UserError(
        f"cannot save to {self.path} ({_first_line(error)}); the checkpoints"
        " before stay: mend that, then run the same command"
      ) from error


class Weights:
  """Weights of a finished checkpoint, without the rest of its state.

  Averaged weights where the run keeps an average: those that sampling uses.
  """

  def __init__(self, path: str):
    """Reads shapes; no arrays.

    Args:
      path: a workdir, whose newest checkpoint counts, or WORKDIR/checkpoints/
        STEP.

    Raises:
      errors.UserError: no finished checkpoint there.
    """
    logging.get_absl_handler().addFilter(_is_not_chatter)
    self.path, self.step = _locate(path)
    self._manager = ocp.CheckpointManager(
      self.path,
      options=ocp.CheckpointManagerOptions(create=False, read_only=True),
      item_handlers={"state": ocp.PyTreeCheckpointHandler()},
    )
    tree = self._manager.item_metadata(self.step)["state"].tree
    self._params = "ema" if tree.get("ema") else "params"
    tree = {"params": tree[self._params], "router": tree.get("router") or {}}
    self.shapes = {
      path: tuple(leaf.shape)
      for path, leaf in traverse_util.flatten_dict(tree).items()
    }

  def check(self, abstract: dict[str, Any], *, config: Any) -> None:
    """Compares with the shapes of a model.

    Args:
      abstract: {"params": ..., "router": ...} of jax.ShapeDtypeStruct.
      config: of the model.

    Raises:
      errors.UserError: they differ; names the fields of the config that do,
        where the run still has one, else some of the tensors.
    """
    wanted = traverse_util.flatten_dict(abstract)
    problems = [
      f"{'/'.join(path)}: {_shape(self.shapes, path)} in the checkpoint,"
      f" {_shape(wanted, path)} in the config"
      for path in sorted(wanted.keys() | self.shapes.keys())
      if _shape(self.shapes, path) != _shape(wanted, path)
    ]
    if problems:
      problems = self._changed_fields(config) or problems
      more = len(problems) - _LISTED
      if more > 0:
        problems = [*problems[:_LISTED], f"and {more} more"]
      raise errors.UserError(
        f"the weights of {self.path}/{self.step} are of another model"
        f" ({'; '.join(problems)}): give the config that they were made with"
      )

  def _changed_fields(self, config: Any) -> list[str]:
    """Fields of the model, "NAME OLD -> NEW"; none where that is unknown."""
    run = os.path.dirname(self.path)
    try:
      old = workdir_lib.load_config(run, config_type=type(config))
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
      errors.UserError: the checkpoint is broken.
    """
    item = {
      self._params if collection == "params" else collection: leaves
      for collection, leaves in abstract.items()
    }
    try:
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
    except (ValueError, OSError, KeyError, TypeError) as error:
      first = str(error).strip().splitlines()[0][:300]
      raise errors.UserError(
        f"checkpoint {self.path}/{self.step} is broken ({first})"
      ) from error
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
    file = os.path.join(self.path, str(self.step), workdir_lib.LOADER_STATE)
    if not os.path.exists(file):
      return
    with open(file, encoding="utf-8") as stream:
      trained_with = json.load(stream)["identity"].get("tokenizer")
    if trained_with != tokenizer.digest(path):
      raise errors.UserError(
        f"{self.path} was not trained with {path}: its text would be read"
        " wrongly; give the --data_dir of its training"
      )

  def close(self) -> None:
    self._manager.close()


def _shape(tree: dict[tuple[str, ...], Any], path: tuple[str, ...]) -> Any:
  if path not in tree:
    return "absent"
  return tuple(getattr(tree[path], "shape", tree[path]))


def _restore_args(leaf: jax.ShapeDtypeStruct) -> ocp.RestoreArgs:
  if leaf.sharding is None:
    return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
  return ocp.ArrayRestoreArgs(sharding=leaf.sharding, dtype=leaf.dtype)


def _locate(path: str) -> tuple[str, int]:
  """Directory of the checkpoints and the step that `path` means."""
  path = os.path.abspath(path)
  parent, name = os.path.split(path)
  if name.isdecimal() and os.path.basename(parent) == workdir_lib.CHECKPOINTS:
    directory, steps = parent, [int(name)]
  else:
    directory, steps = os.path.join(path, workdir_lib.CHECKPOINTS), []
    if os.path.isdir(directory):
      # A save in progress, or one that was killed, has a longer name.
      steps = [int(n) for n in os.listdir(directory) if n.isdecimal()]
  if not steps or not os.path.isdir(os.path.join(directory, str(max(steps)))):
    raise errors.UserError(
      f"no finished checkpoint in {directory}; run `python -m tml_jax.train "
      f"--workdir={os.path.dirname(directory)}` first"
    )
  return directory, max(steps)
