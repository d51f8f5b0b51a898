"""When to save, where to, and from where a run goes on.

For: `train`. Two tiers: the checkpoints in the workdir, whole and for any
mesh, and those that each process keeps on its host. Not for: how they are
written (`checkpoint`, `local_checkpoint`). Start reading at `Tiers`.
"""

import dataclasses
import enum
import json
from typing import Any

from tml_jax import workdir as workdir_lib
from tml_jax.config import LoopConfig
from tml_jax.data import loader as loader_lib
from tml_jax.parallel import processes as processes_lib
from tml_jax.training import checkpoint, local_checkpoint, local_directory
from tml_jax.training import state as state_lib


class Tier(enum.Enum):
  NONE = "none"
  LOCAL = "local"  # this host's disk
  WORKDIR = "workdir"


@dataclasses.dataclass(frozen=True)
class Resumed:
  """What a run goes on from."""

  step: int
  state: state_lib.TrainState
  loader_state: dict[str, Any]
  path: str


class Tiers:
  """The checkpoints of one run, as one process sees them."""

  def __init__(
    self,
    train: LoopConfig,
    *,
    workdir: str,
    local_dir: str,
    processes: processes_lib.Processes,
  ):
    """Opens both tiers; the workdir was created before."""
    self._train = train
    self._processes = processes
    self._workdir = checkpoint.Checkpointer.to_train(
      workdir, keep=train.keep_checkpoints
    )
    self.path = self._workdir.path
    self._local = None
    if train.local_checkpoint_every:
      self._local = local_checkpoint.LocalCheckpointer(
        local_directory.of_run(local_dir, workdir=workdir),
        start=workdir_lib.start_ids(workdir)[-1],
        index=processes.index,
        count=processes.count,
      )

  def resume(self, abstract_state: state_lib.TrainState) -> Resumed | None:
    """The newest checkpoint that every process has; None in a new run.

    Raises:
      errors.UserError: it is broken or of another model.
    """
    step, local = self._workdir.latest_step() or 0, 0
    if self._local is not None:
      local = self._newest_local(abstract_state)
      self._local.discard_after(max(step, local))
    if local > step:
      state, loader_state = self._local.restore(abstract_state, step=local)
      return Resumed(local, state, loader_state, str(self._local.path))
    if not step:
      return None
    state, loader_state = self._workdir.restore(abstract_state, step=step)
    return Resumed(step, state, loader_state, self.path)

  def due(self, step: int, *, is_last: bool) -> Tier:
    """Where the state after `step` goes; never to both."""
    if is_last or step % self._train.checkpoint_every == 0:
      return Tier.WORKDIR
    every = self._train.local_checkpoint_every
    return Tier.LOCAL if every and step % every == 0 else Tier.NONE

  def save(
    self,
    step: int,
    *,
    tier: Tier,
    state: state_lib.TrainState,
    loader_state: dict[str, Any],
  ) -> None:
    """Starts a save on this process; all must come, with the same tier.

    Raises:
      errors.UserError: this save or the one before cannot be written.
    """
    if tier == Tier.LOCAL:
      self._local.save(step, state=state, loader_state=loader_state)
      return
    # One process writes the positions of all in the data.
    parts = self._processes.to_first(json.dumps(loader_state))
    if parts:
      loader_state = loader_lib.merge_states(map(json.loads, parts))
    self._workdir.save(step, state=state, loader_state=loader_state)

  def wait(self) -> None:
    """Blocks until the running saves are finished."""
    if self._local is not None:
      self._local.wait()
    self._workdir.wait()

  def close(self) -> None:
    """Waits and frees what is held."""
    self._workdir.close()
    if self._local is not None:
      self._local.wait()

  def _newest_local(self, abstract_state: state_lib.TrainState) -> int:
    """The newest step that all processes hold of one start, 0 if none."""
    mine = self._local.usable(abstract_state)
    texts = self._processes.all_of(json.dumps(mine))
    sets = [set(json.loads(text).items()) for text in texts]
    return max((int(step) for step, _ in set.intersection(*sets)), default=0)
