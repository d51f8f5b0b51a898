"""What ended earlier starts of a run in a step: the same again is a dead end.

For: `train`. Resuming is deterministic: a loss that is not finite, or a crash,
comes back at the same step, and whatever starts the command again would do so
for ever. The first time ends with `Status.FAILED`, as a chip may have erred;
the second with `Status.DEAD_END`. Not for: faults of disks and networks, nor
what kills a process from outside. Start reading at `Failures`.
"""

import collections
import dataclasses
import json
import math
import pathlib
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from absl import logging

from tml_jax import buckets, errors, files
from tml_jax import workdir as workdir_lib

NOT_FINITE = "a loss or gradient that is not finite"


class Failures:
  """The failures of a run, kept in WORKDIR/failures.jsonl."""

  def __init__(self) -> None:
    self._file: pathlib.Path | None = None
    self._known: collections.Counter[tuple[int, str]] = collections.Counter()
    self._step: Callable[[], int] = lambda: -1

  def open(self, workdir: str, *, processes: Any) -> None:
    """Reads what earlier starts have left; the same in all processes."""
    self._file = files.path(workdir) / workdir_lib.FAILURES
    mine = files.read_json_lines(self._file)
    known = json.loads(processes.all_of(json.dumps(mine))[0])
    self._known.update(
      (x["step"], str(x.get("what")))
      for x in known
      if isinstance(x.get("step"), int)
    )

  def watch(self, step: Callable[[], int]) -> None:
    """From here on a crash is one of the step that `step` gives.

    Before, it may be one of a device that another process holds.
    """
    self._step = step

  def note(self, what: str, *, step: int, writes: bool = True) -> errors.Status:
    """Keeps a failure; how the run is to end by it."""
    assert self._file is not None, "`open` comes first"
    if writes:
      line = {"step": step, "what": what, "time": time.time()}
      try:
        files.append_line(self._file, line=json.dumps(line))
      except Exception as error:
        if not files.is_fault(error):
          raise
        logging.warning("%s cannot be written: %s", self._file, error)
    self._known[step, what] += 1
    if self._known[step, what] == 1:
      return errors.Status.FAILED
    return errors.Status.DEAD_END

  def explain(self, error: BaseException) -> errors.UserError | None:
    """Notes a crash; what to say of it where it has come back."""
    step = self._step()
    if step < 0 or not isinstance(error, Exception) or _is_outside(error):
      return None
    what = describe(error)
    if self.note(what, step=step) is errors.Status.FAILED:
      return None
    return errors.DeadEndError(advice(step, what=what))


@dataclasses.dataclass(frozen=True)
class FiniteOnly:
  """Ends the run when a loss or gradient is not finite."""

  failures: Failures
  checkpoints: Any
  writes: bool

  def __call__(self, values: Any, *, step: int, saved: int) -> None:
    """Looks at what `step` gave; its state is never saved.

    Exits with `Status.FAILED`, with `DEAD_END` where it has come back.
    """
    loss, norm = float(values["loss"]), float(values["grad_norm"])
    if math.isfinite(loss) and math.isfinite(norm):
      return
    self.checkpoints.wait()  # the save of a good step may still be running
    last = (
      f"the last good checkpoint is step {saved} in {self.checkpoints.last}"
      if saved
      else "no checkpoint had been saved"
    )
    logging.error(
      "step %d: loss %s, gradient norm %s; %s", step, loss, norm, last
    )
    what = NOT_FINITE
    status = self.failures.note(what, step=step, writes=self.writes)
    if status is errors.Status.DEAD_END:
      logging.error("%s", advice(step, what=what))
    sys.exit(status)


def advice(step: int, *, what: str) -> str:
  """What to do about a failure that comes back."""
  return (
    f"{what} in step {step}, as in an earlier start: every start would end"
    f" here. Skip its batch with --config.train.skip_batches={step}, or go back"
    " further (docs/reliability.md)"
  )


def describe(error: Exception) -> str:
  """Type and place of a crash: words may have numbers that change."""
  frames = traceback.extract_tb(error.__traceback__)
  if not frames:
    return type(error).__name__
  name = pathlib.Path(frames[-1].filename).name
  return f"{type(error).__name__} at {name}:{frames[-1].lineno}"


def _is_outside(error: Exception) -> bool:
  """Whether the world may be another one at the next start."""
  return errors.is_transient(error) or buckets.is_fault(error)
