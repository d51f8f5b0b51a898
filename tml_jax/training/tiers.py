"""When to save, where to, and from where a run goes on.

For: `train`. Two tiers: the checkpoints in the workdir, all of the state and
for any mesh, and those that each process keeps on its host. A damaged one is
passed over, loudly. Not for: how they are written (`checkpoint`,
`local_checkpoint`). Start reading at `Tiers`.
"""

import dataclasses
import enum
import itertools
import json
from typing import Any

from absl import logging

from tml_jax import buckets, errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.config import LoopConfig
from tml_jax.data import loader as loader_lib
from tml_jax.parallel import processes as processes_lib
from tml_jax.training import (
  checkpoint,
  checksums,
  local_checkpoint,
  local_directory,
)
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
  """The checkpoints of one run, as one process sees them.

  Attributes:
    last: where the newest save lies, or what the run goes on from; "" if
      there is neither.
  """

  def __init__(
    self,
    train: LoopConfig,
    *,
    workdir: str,
    local_dir: str,
    processes: processes_lib.Processes,
  ):
    """Opens the tier on this host; the workdir was created before."""
    self._train = train
    self._processes = processes
    self._run = files.absolute(workdir)
    self.path = str(self._run / workdir_lib.CHECKPOINTS)
    self.last = ""
    self._workdir: checkpoint.Checkpointer | None = None  # until `resume`
    self._local = None
    if train.local_checkpoint_every:
      self._local = local_checkpoint.LocalCheckpointer(
        local_directory.of_run(local_dir, workdir=workdir),
        start=processes.all_of(workdir_lib.start_ids(workdir)[-1])[0],
        index=processes.index,
        count=processes.count,
      )

  def resume(self, abstract_state: state_lib.TrainState) -> Resumed | None:
    """The newest whole checkpoint that every process has; None in a new run.

    To be called once, before any save. Damaged ones that are newer go to
    WORKDIR/damaged, so that their steps can be saved again.

    Raises:
      errors.DeadEndError: all are damaged.
      errors.UserError: it is of another model.
    """
    candidates = self._candidates(abstract_state)
    damaged: list[tuple[int, Tier]] = []
    problems = self._problems_of_index()
    found = None
    for step, tier in candidates:
      problem = self._damage(step, tier)
      if not problem:
        found = step, tier
        break
      damaged.append((step, tier))
      problems.append(problem)
    for problem in problems:
      logging.error("a checkpoint is DAMAGED and not used: %s", problem)
    if problems and found is None:
      raise errors.DeadEndError(
        f"no whole checkpoint of {self._run} is left ({'; '.join(problems)}):"
        " put a copy of one there, or begin anew in another --workdir"
      )
    self._set_aside([s for s, tier in damaged if tier == Tier.WORKDIR])
    self._workdir = checkpoint.Checkpointer(
      str(self._run), keep=self._train.keep_checkpoints
    )
    step, tier = found or (0, Tier.NONE)
    if self._local is not None:
      self._local.discard_after(step)
    if tier == Tier.NONE:
      return None
    self.last = self._place(step, tier=tier)
    if tier == Tier.LOCAL:
      state, loader_state = self._local.restore(abstract_state, step=step)
      return Resumed(step, state, loader_state, str(self._local.path))
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
    self.last = self._place(step, tier=tier)
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
    if self._workdir is not None:
      self._workdir.close()
    if self._local is not None:
      self._local.wait()

  def _place(self, step: int, *, tier: Tier) -> str:
    root = self._local.path if tier == Tier.LOCAL else self.path
    return f"{root}/{step}"

  def _candidates(
    self, abstract_state: state_lib.TrainState
  ) -> list[tuple[int, Tier]]:
    """Steps that all processes hold, newest first; of both, the workdir's."""
    found = workdir_lib.checkpoint_steps(self._run)
    steps = json.loads(self._processes.all_of(json.dumps(found))[0])
    result = {step: Tier.WORKDIR for step in steps}
    if self._local is not None:
      mine = self._local.usable(abstract_state)
      texts = self._processes.all_of(json.dumps(mine))
      self._local.remove_others()  # all have opened theirs
      sets = [set(json.loads(text).items()) for text in texts]
      for step, _ in set.intersection(*sets):  # of the same start
        result.setdefault(int(step), Tier.LOCAL)
    return sorted(result.items(), key=lambda item: -item[0])

  def _problems_of_index(self) -> list[str]:
    """Local steps of which a process does not even know what they are."""
    found = list(self._local.damaged.values()) if self._local else []
    return self._of_all(found)

  def _damage(self, step: int, tier: Tier) -> str:
    """What a process finds wrong with a step; "" if it is whole for all."""
    with self._processes.waiting():  # it is read from end to end
      if tier == Tier.LOCAL:
        problem = self._local.damage(step)
      else:
        problem = checksums.damage(
          self._run / workdir_lib.CHECKPOINTS / str(step),
          index=self._processes.index,
          count=self._processes.count,
        )
    return "; ".join(self._of_all([problem] if problem else []))

  def _of_all(self, problems: list[str]) -> list[str]:
    texts = self._processes.all_of(json.dumps(problems))
    return sorted({p for text in texts for p in json.loads(text)})

  def _set_aside(self, steps: list[int]) -> None:
    """Moves damaged checkpoints of the workdir away."""
    with self._processes.together():
      if not self._processes.is_first or not steps:
        return
      away = self._run / workdir_lib.DAMAGED
      for step in steps:
        old = self._run / workdir_lib.CHECKPOINTS / str(step)
        new = away / str(step)
        for copy in itertools.count(1):
          if not new.exists():
            break
          new = away / f"{step}.{copy}"
        try:
          if buckets.is_url(old):
            buckets.move(old, to=new, last=workdir_lib.COMMITTED)
          else:
            away.mkdir(exist_ok=True)
            old.rename(new)
        except Exception as error:
          raise files.fault(
            error, what=f"{old} is damaged and cannot be moved to {new}"
          ) from error
        logging.error("the damaged checkpoint %s is now %s", old, new)
