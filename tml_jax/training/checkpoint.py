"""Checkpoints: the whole run or nothing.

For: saving and restoring state, data-iterator position and step with Orbax.
Not for: the config of a run, which `workdir` keeps and compares. A save that
is killed leaves a temporary directory that Orbax ignores; the last finished
one stays. Start reading at `Checkpointer`.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from tml_jax import errors
from tml_jax.streams import tokenizer
from tml_jax.training import state as state_lib

DIRECTORY = "checkpoints"


def _is_not_chatter(record) -> bool:
  """Orbax logs a dozen lines for each save and each restore."""
  return "orbax" not in record.pathname


def _first_line(error: Exception) -> str:
  return str(error).strip().splitlines()[0][:300]


class Checkpointer:
  """Asynchronous checkpoints under `workdir`/checkpoints/STEP."""

  def __init__(self, workdir: str, *, options: ocp.CheckpointManagerOptions):
    logging.get_absl_handler().addFilter(_is_not_chatter)
    self.path = os.path.join(os.path.abspath(workdir), DIRECTORY)
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

  @classmethod
  def to_read(cls, workdir: str) -> "Checkpointer":
    """Opens a run, which may be training, and changes nothing in it."""
    return cls(workdir, options=ocp.CheckpointManagerOptions(create=False))

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


def restore_for_sampling(
  workdir: str, *, abstract_state: state_lib.TrainState, tokenizer_path: str
) -> tuple[dict[str, Any], int]:
  """Variables of the newest checkpoint for `model.apply`, and its step.

  Raises:
    errors.UserError: `workdir` has no finished checkpoint, or one that was
      trained with another tokenizer.
  """
  path = os.path.join(workdir, DIRECTORY)
  step = None
  if os.path.isdir(path):
    checkpointer = Checkpointer.to_read(workdir)
    step = checkpointer.latest_step()
  if step is None:
    raise errors.UserError(
      f"no finished checkpoint in {path}; run `python -m tml_jax.train "
      f"--workdir={workdir}` first"
    )
  state, loader_state = checkpointer.restore(abstract_state, step=step)
  checkpointer.close()
  trained_with = loader_state["identity"].get("tokenizer")
  if trained_with != tokenizer.digest(tokenizer_path):
    raise errors.UserError(
      f"{workdir} was not trained with {tokenizer_path}: its text would be"
      " read wrongly; give the --data_dir of its training"
    )
  return jax.device_get(state.sampling_variables()), step
