"""Where the time of a run goes, over all its starts.

For: `train`, which says what it is doing; the share of time in steps that
lasted (goodput) is in the metrics, and WORKDIR/goodput.json keeps the sums.
Not for: where the time of one step goes. Start reading at `Goodput`.

Every second since the first start of the run is in one category; the seconds
between two starts, too. Within a start they are those of a clock that nobody
sets; between two there is only the clock on the wall, which may be set back:
then nothing is counted for the pause.
"""

import contextlib
import enum
import json
import math
import time
from collections.abc import Iterator
from typing import Any

from absl import logging

from tml_jax import files
from tml_jax import workdir as workdir_lib

_KEPT_STEPS = 100  # a run goes on from one of its newest checkpoints


class Category(enum.StrEnum):
  """What a second was spent on; all but STEP are lost."""

  STEP = "step"  # of steps that need not be done again
  STARTUP = "startup"  # to the first step, without compiling
  COMPILE = "compile"
  DATA = "data_wait"
  CHECKPOINT = "checkpoint_blocked"
  EVALUATION = "evaluation"
  REPEATED = "repeated"  # steps after the checkpoint that a start went back to
  STOPPED = "stopped"  # between the last sign of a start and the next one


class Goodput:
  """A clock with a hand for each category.

  Attributes:
    seconds: of the whole run by category, up to the last change of category.
  """

  def __init__(self, workdir: str, *, process_start: float, writes: bool):
    """Goes on from the file of earlier starts, if there is one.

    Args:
      workdir: directory of the run.
      process_start: when this start began, as time.monotonic() counts.
      writes: whether this process keeps the file; one does.
    """
    self._file = files.path(workdir) / workdir_lib.GOODPUT
    self._writes = writes
    self.seconds = dict.fromkeys(Category, 0.0)
    self._at_step: dict[int, float] = {}  # productive seconds when it was saved
    self._category = Category.STARTUP
    self._since = process_start
    kept = files.read_json(self._file) if writes else None
    if kept is not None:
      self._go_on(kept)

  def _go_on(self, kept: dict[str, Any]) -> None:
    """Takes what earlier starts kept, if all of it can be."""
    try:
      seconds = {Category(k): _seconds(v) for k, v in kept["seconds"].items()}
      at_step = {int(k): _seconds(v) for k, v in kept["at_step"].items()}
      last = _seconds(kept["time"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      logging.warning(
        "%s is damaged (%r): the times of earlier starts are begun anew",
        self._file,
        error,
      )
      return
    began = time.time() - (time.monotonic() - self._since)
    self.seconds |= seconds
    self.seconds[Category.STOPPED] += max(0.0, began - last)
    self._at_step = at_step

  def resumed(self, step: int) -> None:
    """This start goes on from `step`; later steps were done in vain."""
    lasting = max(
      (v for k, v in self._at_step.items() if k <= step), default=0.0
    )
    lasting = min(lasting, self.seconds[Category.STEP])
    self.seconds[Category.REPEATED] += self.seconds[Category.STEP] - lasting
    self.seconds[Category.STEP] = lasting
    self._at_step = {k: v for k, v in self._at_step.items() if k <= step}

  def saved(self, step: int) -> None:
    """A start may go on from `step` from now on."""
    self.enter(self._category)
    self._at_step[step] = self.seconds[Category.STEP]
    for old in sorted(self._at_step)[:-_KEPT_STEPS]:
      del self._at_step[old]

  def enter(self, category: Category) -> Category:
    """Time counts for `category` from now on; returns the one before."""
    now, before = time.monotonic(), self._category
    self.seconds[before] += now - self._since
    self._category, self._since = category, now
    return before

  @contextlib.contextmanager
  def during(self, category: Category) -> Iterator[None]:
    """Time inside counts for `category`."""
    before = self.enter(category)
    try:
      yield
    finally:
      self.enter(before)

  def scalars(self) -> dict[str, float]:
    """`goodput`, and seconds of the run by category."""
    self.enter(self._category)
    total = max(sum(self.seconds.values()), 1e-9)
    return {"goodput": self.seconds[Category.STEP] / total} | {
      f"goodput/{category}_seconds": value
      for category, value in self.seconds.items()
    }

  def write(self) -> None:
    """Keeps the sums; not synced, as a lost one costs nothing but accuracy."""
    self.enter(self._category)
    if not self._writes:
      return
    kept = {
      "time": time.time(),
      "seconds": self.seconds,
      "at_step": self._at_step,
    }
    files.write_unsynced(self._file, content=json.dumps(kept))


def _seconds(value: Any) -> float:
  """Of the file; a clock that was set may have left a negative number."""
  if not math.isfinite(value) or value < 0:
    raise ValueError(f"{value} seconds")
  return float(value)
