"""Where the seconds of the train loop go, as the host sees them.

For: `Breakdown`, timers around the parts of a step, which also name these
parts in a trace. Not for: what the device does meanwhile (`profiling.py`), nor
the whole run over its starts (`goodput.py`).
"""

import collections
import contextlib
import enum
import time
from collections.abc import Iterator

import jax

from tml_jax.training import goodput

STEP = "train"  # name of the steps in a trace


class Part(enum.StrEnum):
  """Parts of the loop. Device is the wait for the step before this one."""

  DATA = "data"  # next batch of the loader
  TRANSFER = "transfer"  # to the devices
  DISPATCH = "dispatch"  # the call of the step, which returns before it is done
  DEVICE = "device"
  METRICS = "metrics"  # fetching, summing up, writing
  CHECKPOINT = "checkpoint"  # until the loop may go on
  EVALUATION = "evaluation"


# What a run loses by them; the other parts are the step.
_LOST = {
  Part.DATA: goodput.Category.DATA,
  Part.CHECKPOINT: goodput.Category.CHECKPOINT,
  Part.EVALUATION: goodput.Category.EVALUATION,
}


class Breakdown:
  """Adds up seconds by part; `scalars` reads and clears."""

  def __init__(self, clock: goodput.Goodput):
    """Tells `clock`, too, what the run waits for."""
    self._clock = clock
    self._seconds: collections.Counter[Part] = collections.Counter()
    self.clear()

  @contextlib.contextmanager
  def of(self, part: Part) -> Iterator[None]:
    """Around work that belongs to a part."""
    start = time.perf_counter()
    lost = _LOST.get(part)
    with contextlib.ExitStack() as stack:
      stack.enter_context(jax.profiler.TraceAnnotation(part.value))
      if lost is not None:
        stack.enter_context(self._clock.during(lost))
      try:
        yield
      finally:
        self._seconds[part] += time.perf_counter() - start

  def clear(self) -> None:
    self._seconds.clear()
    self._start = time.perf_counter()

  def scalars(self, *, steps: int) -> dict[str, float]:
    """time/PART and time/other, seconds a step since the last call."""
    total = time.perf_counter() - self._start
    other = total - sum(self._seconds.values())
    result = {f"time/{part}": self._seconds[part] / steps for part in Part}
    result["time/other"] = other / steps
    self.clear()
    return result
