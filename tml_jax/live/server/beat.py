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
from typing import Any, TypeVar

import numpy as np
from absl import logging

from tml_jax import errors
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
# Tokens of a shown or drawn message that does not end: minutes of it.
_MOST_UNFINISHED = 1 << 16
T = TypeVar("T")


class Ended(errors.UserError):
  """The pool's thread does nothing any more."""


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


@dataclasses.dataclass(frozen=True)
class _Errand:
  """What another thread wants to be done.

  Attributes:
    do: on the pool's thread.
    future: of what it returns.
  """

  do: Callable[[], Any]
  future: "concurrent.futures.Future[Any]"

  def run(self) -> None:
    if not self.future.set_running_or_notify_cancel():
      return
    try:
      self.future.set_result(self.do())
    except BaseException as error:
      self.future.set_exception(error)

  def fail(self, error: Exception) -> None:
    if self.future.set_running_or_notify_cancel():
      self.future.set_exception(error)


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
    is_broken: the thread has given up; errands fail from then on.
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
    self._errands: collections.deque[_Errand] = collections.deque()
    self._is_closing = False
    self.is_broken = False
    self._wake = threading.Condition()  # of the three above
    self._recent = collections.deque(rehearsed, maxlen=_REMEMBERED)
    self._thread = threading.Thread(target=self._run, name="pool", daemon=True)
    self._thread.start()

  # ------------------------------------------------------ for other threads
  def call(self, errand: Callable[[], T]) -> "concurrent.futures.Future[T]":
    """Runs `errand` on the pool's thread between two ticks.

    Raises:
      Ended: nobody would run it. An errand that waits when the thread gives up
        fails with this.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    with self._wake:
      if self.is_broken:
        raise _broken()
      if self._is_closing:
        raise Ended("the server is going down: connect to the next one")
      self._errands.append(_Errand(errand, future))
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
    self._seats[line] = _Seat(self._room.join(_guest(line, seed=line.seed)))

  def leave(self, line: Line) -> None:
    """The session is over."""
    self._room.leave(self._seats.pop(line).conversation)

  def rest(self, line: Line) -> Snapshot:
    """All of a session, which leaves its slot, also where that fails."""
    seat = self._seats.pop(line)
    line.stop()
    try:
      snapshot = self._room.pool.snapshot(seat.conversation.session)
    finally:
      self._room.leave(seat.conversation)
    waiting = {int(c): list(t) for c, t in seat.conversation.unfinished.items()}
    state = snapshot.state | {
      "unfinished": list(waiting.items()),
      "line": line.state(),
    }
    return dataclasses.replace(snapshot, state=state)

  def come_back(self, line: Line, snapshot: Snapshot) -> None:
    """The session of `rest`, which rests until `go_on`.

    A line that is new, because the server is, takes what the snapshot has of
    the old one; calls that were open then are cancelled.

    Raises:
      errors.UserError: no slot is free, or it is no such session.
    """
    try:
      unfinished = {
        Control(channel): list(map(int, tokens))
        for channel, tokens in snapshot.state.get("unfinished", [])
      }
      results = line.restore(snapshot.state.get("line", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise errors.UserError(
        f"no state of a line: {error!r:.80}: begin another session"
      ) from error
    session = self._room.pool.revive(snapshot)
    try:
      for tokens in results:
        session.type(Control.RESULT, tokens)
    except errors.UserError:
      self._room.pool.leave(session)
      raise
    line.seconds = session.window * self._grid.seconds
    guest = _guest(line, seed=session.seed)
    self._seats[line] = _Seat(Conversation(session, guest, unfinished))

  def go_on(self, line: Line) -> None:
    """Windows pass from now on; a pool that rested takes the line's beat."""
    seat = self._seats.get(line)
    if seat is None or seat.goes_on:  # None: it has just left
      return
    if not any(other.goes_on for other in self._seats.values()):
      self._origin, self._next = self._now() - line.lead, 0
    seat.goes_on = True
    line.begin(self._end - self._grid.seconds)

  def pause(self, line: Line) -> None:
    """No windows pass, and what waits to be heard is not."""
    if line in self._seats:
      self._seats[line].goes_on = False
      line.stop()

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
        errand.run()
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
            self._give_up()
            return

  def _give_up(self) -> None:
    """Nobody waits for a thread that has ended."""
    with self._wake:
      self.is_broken = True
      errands, self._errands = self._errands, collections.deque()
    for errand in errands:
      errand.fail(_broken())

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


def _guest(line: Line, *, seed: int) -> Guest:
  return Guest(
    line, seed=seed, tools=line.attached, most_unfinished=_MOST_UNFINISHED
  )


def _broken() -> Ended:
  return Ended(
    f"the model of this server failed {_MOST_FAILED} times in a row: its log"
    " says why; start the server again"
  )
