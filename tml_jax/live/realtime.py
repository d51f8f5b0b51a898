"""A session held at the pace of the clock, or as fast as it goes.

For: whoever plays a recorded user to a model (`sample`). Not for: devices.
Start at `hold`. Against the clock, window k is heard when it has ended, at
(k + 1) times its length, and its decision is due before the next one ends: its
sound plays from there on. A window whose input is lost, or reaches the model
after the decision was due, is absent for the model; the windows behind it keep
their times.
"""

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from tml_jax.live import pool as pool_lib
from tml_jax.live import session as session_lib
from tml_jax.live import user
from tml_jax.streams import clock
from tml_jax.streams.frame import Control, Frame


@dataclasses.dataclass(frozen=True)
class Course:
  """How a session went.

  Attributes:
    frames: one per window.
    tick_seconds: [windows] from perceived window to decision.
    grid: of the windows.
    missed: windows whose decision came after it was due.
    late: windows whose input came after that, too.
    lost: windows whose input never came.
  """

  frames: list[Frame]
  tick_seconds: np.ndarray
  grid: clock.Grid
  missed: tuple[int, ...] = ()
  late: tuple[int, ...] = ()
  lost: tuple[int, ...] = ()

  def __str__(self) -> str:
    milliseconds = 1000 * self.tick_seconds
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return (
      f"real time: {len(self.missed)} of {len(self.frames)} deadlines missed,"
      f" {len(self.late)} windows late, {len(self.lost)} lost; a tick took"
      f" {p50:.1f} ms (median), {p99:.1f} (p99), {milliseconds.max():.1f} (max)"
      f" of {self.grid.ms}"
    )


class WallClock:
  """Seconds since the session began."""

  def __init__(self):
    self._start = time.monotonic()

  def now(self) -> float:
    return time.monotonic() - self._start

  def wait_until(self, seconds: float) -> None:
    time.sleep(max(0.0, seconds - self.now()))


def hold(
  pool: pool_lib.SessionPool,
  *,
  session: session_lib.Session,
  part: user.UserPart,
  results: Callable[[Frame], list[list[int]]],
  pace: WallClock | None,
  lost: frozenset[int] = frozenset(),
) -> Course:
  """Plays the user to the session.

  Args:
    pool: warm.
    session: in the pool, new.
    part: the user.
    results: given each finished frame, what tools have to say, as tokens of
      `<result>` messages; never waits.
    pace: a clock that starts now; None for as fast as can be.
    lost: windows whose input does not arrive.
  """
  frames, seconds, missed, late = [], [], [], []
  length = part.grid.seconds
  for k in range(len(part)):
    due = (k + 2) * length
    if pace is not None:
      pace.wait_until(due - length)
      if pace.now() > due:
        late.append(k)
    heard = k not in lost and k not in late
    ticked = pool.tick({session: part.perceive(session, heard=heard)})
    frames.append(ticked.frames[session])
    seconds.append(ticked.seconds)
    if pace is not None and pace.now() > due:
      missed.append(k)
    for tokens in results(frames[-1]):
      session.type(Control.RESULT, tokens)
  return Course(
    frames=frames,
    tick_seconds=np.array(seconds),
    grid=part.grid,
    missed=tuple(missed),
    late=tuple(late),
    lost=tuple(sorted(lost)),
  )


def losses(windows: int, *, share: float, seed: int) -> frozenset[int]:
  """Windows that a connection loses, at random."""
  draws = np.random.default_rng(seed).random(windows)
  return frozenset(np.flatnonzero(draws < share).tolist())
