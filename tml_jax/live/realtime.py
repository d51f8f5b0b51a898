"""A conversation at the pace of the clock.

For: playing somebody to a model as fast as they speak (`sample --realtime`).
Not for: devices. Start at `Realtime`. Window k is heard when it has ended, at
(k + 1) times its length, and its decision and sound are due before the next
one ends: the sound plays from there on. A window whose input reaches the model
after the decision was due is absent for the model; the windows behind it keep
their times.
"""

import dataclasses
import time

import numpy as np

from tml_jax.live.transport import Answer, Arrived, Transport
from tml_jax.streams import clock


class WallClock:
  """Seconds since the session began."""

  def __init__(self) -> None:
    self._start = time.monotonic()

  def now(self) -> float:
    return time.monotonic() - self._start

  def wait_until(self, seconds: float) -> None:
    time.sleep(max(0.0, seconds - self.now()))


class Realtime:
  """A transport whose windows come when they have ended.

  Attributes:
    seconds: of each window, from perceived window to decision and sound.
    missed: windows whose decision or sound came after it was due.
    late: windows whose input came after that, too.
  """

  def __init__(self, inner: Transport, *, grid: clock.Grid, pace: WallClock):
    """The clock `pace` starts now."""
    self._inner, self._grid, self._pace = inner, grid, pace
    self.seconds: list[float] = []
    self.missed: list[int] = []
    self.late: list[int] = []

  @property
  def _due(self) -> float:
    """When the next window's decision is."""
    return (len(self.seconds) + 2) * self._grid.seconds

  def bring(self) -> Arrived | None:
    """Waits until the window has ended."""
    arrived = self._inner.bring()
    if arrived is None:
      return None
    self._pace.wait_until(self._due - self._grid.seconds)
    if self._pace.now() > self._due:
      self.late.append(len(self.seconds))
      return dataclasses.replace(arrived, samples=None, images=())
    return arrived

  def take(self, answer: Answer) -> None:
    self._inner.take(answer)
    if self._pace.now() > self._due:
      self.missed.append(len(self.seconds))
    self.seconds.append(answer.seconds)

  def __str__(self) -> str:
    milliseconds = 1000 * np.array(self.seconds)
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return (
      f"real time: {len(self.missed)} of {len(self.seconds)} deadlines missed,"
      f" {len(self.late)} windows late; a tick and its sound took {p50:.1f} ms"
      f" (median), {p99:.1f} (p99), {milliseconds.max():.1f} (max) of"
      f" {self._grid.ms}"
    )
