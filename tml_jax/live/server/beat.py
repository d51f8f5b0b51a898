"""The clock of a pool: a thread that takes every session through its windows.

For: sessions that go on by the clock on the wall, whatever clients do. Not
for: what they send (`line`) or the windows themselves (`conversation`). Start
at `Beat`; everything else that touches the pool is done by its thread between
two ticks, by `Beat.call`.

All sessions share one beat: a client may join at any time, and its first
window began with the pool's. One compiled call costs as much for one session
as for all, so that windows that end together wait for nobody, and those that
end apart would wait for each other's ticks. Where a client's sound falls on
the beat is `ear`'s work.

A window whose tick begins after it was due is absent, as are windows that the
network lost. A pool that is behind by more than `MOST_BEHIND` lets its clock
stand still instead, by whole windows, for all sessions alike: that is counted.
"""

import collections
import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from absl import logging

from tml_jax.live.conversation import Conversation, Guest, Room
from tml_jax.live.pool import SessionPool
from tml_jax.live.saved import Snapshot
from tml_jax.live.server.line import Line, Passed, Timing
from tml_jax.live.session import Session
from tml_jax.streams import clock
from tml_jax.streams.frame import Control

MOST_BEHIND = 1.0  # seconds
_REMEMBERED = 200  # ticks
_MOST_FAILED = 5  # windows of the pool in a row, before it is given up
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Round:
  """One tick of the pool.

  Attributes:
    passed: what each session's client is to be told.
    ticked: seconds from perceived windows to decisions and sound.
    waited: seconds from the windows' end to the tick's beginning.
    missed: whether the deadline was.
    stood_still: seconds that the clock then stood still.
  """

  passed: tuple[tuple[Line, Passed], ...]
  ticked: float
  waited: float
  missed: bool
  stood_still: float


@dataclasses.dataclass
class _Seat:
  """A session in the pool.

  Attributes:
    conversation: of it.
    goes_on: whether windows pass.
  """

  conversation: Conversation
  goes_on: bool = False


def rehearse(pool: SessionPool, *, windows: int) -> list[float]:
  """Seconds that each tick takes with a session that speaks in every slot."""
  grid = clock.of(pool.config.streams)
  random = np.random.default_rng(0)
  sessions: list[Session] = []
  while not pool.is_full:
    sessions.append(pool.join(seed=len(sessions)))
  seconds = []
  for _ in range(windows):
    sound = 0.1 * random.standard_normal(grid.samples).astype(np.float32)
    ticked = pool.tick({each: each.perceive(sound) for each in sessions})
    seconds.append(ticked.seconds)
  for each in sessions:
    pool.leave(each)
  return seconds


class Beat:
  """A pool's thread and clock.

  Attributes:
    is_broken: the thread has given up.
  """

  def __init__(
    self,
    room: Room,
    *,
    grid: clock.Grid,
    deliver: Callable[[Round], None],
    rehearsed: Sequence[float] = (),
    now: Callable[[], float] = time.monotonic,
  ):
    """Starts the thread.

    Args:
      room: of the pool, warmed up; nobody else touches it from now on.
      grid: of the windows.
      deliver: takes every round, on this thread; it must not wait.
      rehearsed: what ticks took before anybody came, see `rehearse`.
      now: seconds of a clock that never jumps back.
    """
    self._room = room
    self._grid = grid
    self._deliver = deliver
    self._now = now
    self._origin = now()  # where window 0 of the pool begins
    self._next = 0  # the pool's window that ends next
    self._seats: dict[Line, _Seat] = {}
    self._errands: collections.deque[Callable[[], None]] = collections.deque()
    self._is_closing = False
    self.is_broken = False
    self._wake = threading.Condition()  # of the two above
    self._recent = collections.deque(rehearsed, maxlen=_REMEMBERED)
    self._thread = threading.Thread(target=self._run, name="pool", daemon=True)
    self._thread.start()

  # ------------------------------------------------------ for other threads
  def call(self, errand: Callable[[], T]) -> "concurrent.futures.Future[T]":
    """Runs `errand` on the pool's thread between two ticks."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
      if not future.set_running_or_notify_cancel():
        return
      try:
        future.set_result(errand())
      except BaseException as error:
        future.set_exception(error)

    with self._wake:
      if self._is_closing:
        raise RuntimeError("the pool's thread has ended")
      self._errands.append(run)
      self._wake.notify()
    return future

  def close(self) -> None:
    """Ends the thread after the errands that it was given."""
    with self._wake:
      self._is_closing = True
      self._wake.notify()
    self._thread.join()

  @property
  def ticks(self) -> int:
    """That are remembered."""
    return len(self._recent)

  def tick_seconds(self, share: float) -> float:
    """A quantile of what the last ticks took; 0 where there were none."""
    recent = list(self._recent)
    return float(np.quantile(recent, share)) if recent else 0.0

  # -------------------------------------------------- on the pool's thread
  def join(self, line: Line) -> None:
    """A new session, which rests until `go_on`.

    Raises:
      errors.UserError: no slot is free.
    """
    guest = Guest(line, seed=line.seed, tools=line.attached)
    self._seats[line] = _Seat(self._room.join(guest))

  def leave(self, line: Line) -> None:
    """The session is over."""
    self._room.leave(self._seats.pop(line).conversation)

  def rest(self, line: Line) -> Snapshot:
    """All of a session, which leaves its slot."""
    seat = self._seats.pop(line)
    snapshot = self._room.pool.snapshot(seat.conversation.session)
    waiting = {int(c): list(t) for c, t in seat.conversation.unfinished.items()}
    self._room.leave(seat.conversation)
    state = snapshot.state | {"unfinished": list(waiting.items())}
    return dataclasses.replace(snapshot, state=state)

  def come_back(self, line: Line, snapshot: Snapshot) -> None:
    """The session of `rest`, which rests until `go_on`.

    Raises:
      errors.UserError: no slot is free, or it is no such session.
    """
    session = self._room.pool.revive(snapshot)
    guest = Guest(line, seed=session.seed, tools=line.attached)
    unfinished = {
      Control(channel): list(map(int, tokens))
      for channel, tokens in snapshot.state.get("unfinished", [])
    }
    self._seats[line] = _Seat(Conversation(session, guest, unfinished))

  def go_on(self, line: Line) -> None:
    """Windows pass from now on; a pool that rested takes the line's beat."""
    seat = self._seats[line]
    if seat.goes_on:
      return
    if not any(other.goes_on for other in self._seats.values()):
      self._origin, self._next = self._now() - line.lead, 0
    seat.goes_on = True
    line.begin(self._end - self._grid.seconds)

  def pause(self, line: Line) -> None:
    """No windows pass."""
    self._seats[line].goes_on = False

  @property
  def seats(self) -> int:
    return len(self._seats)

  @property
  def _end(self) -> float:
    """When the pool's next window ends."""
    return self._origin + (self._next + 1) * self._grid.seconds

  def _run(self) -> None:
    failed = 0  # windows, one after the other
    while True:
      errand = None
      with self._wake:
        is_going = any(seat.goes_on for seat in self._seats.values())
        if self._errands:
          errand = self._errands.popleft()
        elif self._is_closing:
          return
        elif not is_going:
          self._wake.wait()
          continue
        elif (left := self._end - self._now()) > 0:
          self._wake.wait(left)
          continue
      if errand is not None:
        errand()
        if self._end > self._now():
          continue
      if any(seat.goes_on for seat in self._seats.values()):
        try:
          self._tick()
          failed = 0
        except Exception:  # of one window; sessions go on
          logging.exception("a window of the pool failed")
          self._next += 1
          failed += 1
          if failed == _MOST_FAILED:
            self.is_broken = True
            return

  def _tick(self) -> None:
    going = {line: s for line, s in self._seats.items() if s.goes_on}
    end, began = self._end, self._now()
    due = end + self._grid.seconds
    arrived = {}
    for line, seat in going.items():
      window = line.bring()
      arrived[seat.conversation] = line.lose() if began > due else window
    windows = {line: s.conversation.session.window for line, s in going.items()}
    stepped = self._room.step(arrived)
    done = self._now()
    self._next += 1
    self._recent.append(done - began)
    late = max(0.0, done - due)
    passed = tuple(
      (
        line,
        line.pass_on(
          Timing(
            ended=(windows[line] + 1) * self._grid.seconds,
            wall=time.time(),
            waited=began - end,
            ticked=done - began,
            late=late,
          ),
          results=tuple(map(tuple, stepped.results[seat.conversation])),
        ),
      )
      for line, seat in going.items()
    )
    self._deliver(
      Round(
        passed=passed,
        ticked=done - began,
        waited=began - end,
        missed=late > 0,
        stood_still=self._catch_up(),
      )
    )

  def _catch_up(self) -> float:
    """Lets the clock stand still where the pool is far behind; seconds."""
    behind = self._now() - self._end
    if behind < MOST_BEHIND:
      return 0.0
    seconds = self._grid.seconds * int(behind / self._grid.seconds)
    self._origin += seconds
    for line, seat in self._seats.items():
      if seat.goes_on:
        line.shift(seconds)
    return seconds
