"""What runs outside of the model: tools and the background model.

For: the protocol of a tool, and `Runner`, which runs calls at the same time
while sessions go on. Not for: which text becomes a call and when a result is
read (`session_tools`), or the tools themselves (`tools`). Start reading at
`Background`, then `Runner.start`.

Nothing here waits for a tool: a session asks a `Ticket` what has come so far.
"""

import asyncio
import collections
import contextlib
import contextvars
import dataclasses
import enum
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any, Protocol

from absl import logging

from tml_jax.logs.transcript import Line
from tml_jax.streams import calls as calls_lib

_JOIN_SECONDS = 1.0  # a tool that blocks the loop does not block the exit


@dataclasses.dataclass(frozen=True)
class Call:
  """A `<call>` message as it leaves a session, with all that led to it.

  Attributes:
    number: of the call in its session, from 1.
    time: seconds of the session at which the call was complete.
    name: first word of the message.
    arguments: the rest of it.
    conversation: the last of what both sides said, wrote and read, with times.
    others: the session's last calls before it and what became of them.
  """

  number: int
  time: float
  name: str
  arguments: str
  conversation: tuple[Line, ...] = ()
  others: tuple[dict[str, Any], ...] = ()

  @property
  def text(self) -> str:
    return calls_lib.call_text(calls_lib.Request(self.name, self.arguments))

  def to_json(self, *, without: Collection[Line] = ()) -> dict[str, Any]:
    """JSON values only; without these lines, and others by their numbers."""
    return {
      "call": self.number,
      "time_s": round(self.time, 3),
      "name": self.name,
      "arguments": self.arguments,
      "conversation": [
        {
          "start_s": round(line.start, 3),
          "end_s": round(line.end, 3),
          "who": line.who,
          "text": line.text,
        }
        for line in self.conversation
        if line not in without
      ],
      "others": [other["call"] for other in self.others],
    }


class Failure(Exception):
  """A call that cannot be answered; the message is read by the model."""


class Background(Protocol):
  """A tool, or a background model.

  `run` yields the text of the result as it comes, and raises `Failure` with a
  short reason where there is none. It shares a loop with all other calls: what
  blocks goes into `asyncio.to_thread`. It waits with `sleep` of this module.

  Attributes:
    timeout: seconds after which a call is given up.
  """

  timeout: float

  def run(self, call: Call) -> AsyncIterator[str]: ...


class Outcome(enum.StrEnum):
  """How a call stands, or ended."""

  RUNNING = "running"
  DONE = "done"
  CUT = "cut"  # done, but too long
  FAILED = "failed"
  TIMED_OUT = "timed out"
  CANCELLED = "cancelled"


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a session's calls may take.

  Attributes:
    result_chars: a longer result is cut.
    open_calls: of one session at a time.
    all_calls: of one session; more are refused, and not written down.
    unread_calls: whose end the model has not read; more are not told to it.
    lines: of the conversation that a call is told.
    line_chars: of each of them; the last ones.
  """

  result_chars: int = 2000
  open_calls: int = 8
  all_calls: int = 2000
  unread_calls: int = 32
  lines: int = 200
  line_chars: int = 1000


class Ticket:
  """One running call, as its session sees it; made by `Runner.start`.

  Attributes:
    call: what was asked.
    outcome: as far as the session has been told.
    reason: why it failed, else "".
  """

  def __init__(self, call: Call, *, timeout: float, chars: int):
    self.call = call
    self.outcome = Outcome.RUNNING
    self.reason = ""
    self._timeout = timeout
    self._deadline = time.monotonic() + timeout
    self._left = chars
    self._changed = threading.Condition()
    self._texts: collections.deque[str] = collections.deque()
    self._ended: tuple[Outcome, str] | None = None
    self._sleeping = False
    self._now = call.time  # on the clock of a session from files
    self._stop: Callable[[], None] = lambda: None

  @classmethod
  def failed(
    cls, call: Call, reason: str, *, outcome: Outcome = Outcome.FAILED
  ) -> "Ticket":
    """Of a call that is not run, or whose end nobody was told."""
    ticket = cls(call, timeout=math.inf, chars=0)
    ticket._end(outcome, reason)
    return ticket

  def take(self) -> str:
    """The text that came since the last time; never waits.

    Where that was the last text, `outcome` is set.
    """
    with self._changed:
      text = "".join(self._texts)
      self._texts.clear()
      if self._ended is None and time.monotonic() >= self._deadline:
        self._end(Outcome.TIMED_OUT, f"timed out after {self._timeout:g} s")
      if self._ended is not None:
        self.outcome, self.reason = self._ended
    return text

  def settle(self) -> None:
    """Waits until the call has ended or sleeps: for sessions without a clock.

    At most until the call times out.
    """
    with self._changed:
      self._changed.wait_for(
        lambda: self._ended is not None or self._sleeping,
        timeout=min(
          max(0.0, self._deadline - time.monotonic()), threading.TIMEOUT_MAX
        ),
      )

  def cancel(self, reason: str) -> None:
    self._end(Outcome.CANCELLED, reason)

  def _put(self, text: str) -> bool:
    """Takes text from the tool; returns whether more is wanted."""
    with self._changed:
      if self._ended is not None:
        return False
      kept = text[: self._left]
      if kept:
        self._texts.append(_clean(kept))
      self._left -= len(kept)
      if len(kept) < len(text):
        self._end(Outcome.CUT, "")
      return self._ended is None

  def _end(self, outcome: Outcome, reason: str) -> None:
    """The first end counts."""
    with self._changed:
      if self._ended is None:
        self._ended = (outcome, reason)
        self._stop()
        self._changed.notify_all()

  def _sleeps(self, sleeping: bool) -> None:
    with self._changed:
      self._sleeping = sleeping
      self._changed.notify_all()


def _clean(text: str) -> str:
  """`text` in valid Unicode: half a surrogate pair has no encoding."""
  return text.encode("utf-8", errors="replace").decode("utf-8")


class SessionClock:
  """Time that stands still between windows: for sessions from files.

  Tools that `sleep` wake when the session has come so far, however long that
  takes, so that a session is the same every time it is run.
  """

  def __init__(self):
    self._now = 0.0
    self._waiting: list[tuple[float, Ticket, Callable[[], None]]] = []
    self._lock = threading.Lock()

  def advance(self, now: float) -> None:
    """The session has come to `now` seconds; wakes whose time it is."""
    with self._lock:
      self._now = now
      due = [entry for entry in self._waiting if entry[0] <= now + 1e-6]
      self._waiting = [e for e in self._waiting if e not in due]
    for _, ticket, wake in due:
      ticket._sleeps(False)
      wake()

  async def sleep(self, seconds: float, *, ticket: Ticket) -> None:
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake():
      with contextlib.suppress(RuntimeError):  # the loop has been closed
        loop.call_soon_threadsafe(woken.set)

    # By what the call knows of time: when its thread got here does not count.
    ticket._now += seconds
    with self._lock:
      if ticket._now <= self._now + 1e-6:
        return
      self._waiting.append((ticket._now, ticket, wake))
      ticket._sleeps(True)
    await woken.wait()


_CURRENT: contextvars.ContextVar[tuple[SessionClock | None, Ticket]] = (
  contextvars.ContextVar("current call")
)


async def sleep(seconds: float) -> None:
  """Waits inside of a tool, by the clock of the call's session."""
  clock, ticket = _CURRENT.get((None, None))
  if clock is None:
    await asyncio.sleep(seconds)
  else:
    await clock.sleep(seconds, ticket=ticket)


class Runner:
  """Runs the calls of any number of sessions on one loop in a thread."""

  def __init__(self, tools: Mapping[str, Background], *, otherwise: str = ""):
    """Starts the thread.

    Args:
      tools: by the name that a call begins with.
      otherwise: the tool that takes calls of no such name, with all of their
        text; "" fails them.

    Raises:
      ValueError: a tool's time-out is none.
    """
    for name, tool in tools.items():
      if not isinstance(tool.timeout, int | float) or not tool.timeout > 0:
        raise ValueError(f"tool {name!r} has the time-out {tool.timeout!r}")
    self._tools = dict(tools)
    self._otherwise = otherwise
    self._loop = asyncio.new_event_loop()
    self._is_closed = False
    self._thread = threading.Thread(
      target=self._serve, name="background", daemon=True
    )
    self._thread.start()

  def _serve(self) -> None:
    """The loop of all calls, until it is closed: no tool ends it.

    `SystemExit` and `KeyboardInterrupt` of a task that a tool started come out
    of asyncio's loop, and a tool may stop it.
    """
    while not self._is_closed:
      try:
        self._loop.run_forever()
      except BaseException:
        logging.exception("a task of a tool")

  @property
  def names(self) -> list[str]:
    return sorted(self._tools)

  def start(
    self, call: Call, *, chars: int, clock: SessionClock | None = None
  ) -> Ticket:
    """Starts `call`; returns at once.

    Args:
      call: what is asked.
      chars: the result is cut after so many.
      clock: what `sleep` goes by; None for the time on the wall.
    """
    tool = self._tools.get(call.name) or self._tools.get(self._otherwise)
    if tool is None:
      known = ", ".join(self.names) or "none"
      return Ticket.failed(
        call, f"there is no tool {call.name[:40]!r}; tools: {known}"
      )
    return self.run(tool, call, chars=chars, clock=clock)

  def run(
    self,
    tool: Background,
    call: Call,
    *,
    chars: int,
    clock: SessionClock | None = None,
  ) -> Ticket:
    """Starts a call of a tool that is not one of these; see `start`."""
    ticket = Ticket(call, timeout=tool.timeout, chars=chars)
    coroutine = _run(tool, ticket, clock)
    future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
    with ticket._changed:
      ticket._stop = future.cancel
      if ticket._ended is not None:
        future.cancel()
    return ticket

  def close(self) -> None:
    """Cancels what runs and ends the thread."""

    async def cancel_all():
      others = asyncio.all_tasks() - {asyncio.current_task()}
      for task in others:
        task.cancel()
      await asyncio.gather(*others, return_exceptions=True)
      self._is_closed = True
      self._loop.stop()

    asyncio.run_coroutine_threadsafe(cancel_all(), self._loop)
    self._thread.join(_JOIN_SECONDS)
    if not self._thread.is_alive():
      self._loop.close()

  def __enter__(self) -> "Runner":
    return self

  def __exit__(self, *_) -> None:
    self.close()


async def _run(
  tool: Background, ticket: Ticket, clock: SessionClock | None
) -> None:
  """Feeds `ticket` from one call of `tool`, whatever that does."""
  _CURRENT.set((clock, ticket))
  outcome, reason = Outcome.DONE, ""
  try:
    async with contextlib.aclosing(tool.run(ticket.call)) as texts:
      async for text in texts:
        if not ticket._put(text):
          break
        # A tool that never waits for anything must not keep the loop.
        await asyncio.sleep(0)
  except asyncio.CancelledError:
    outcome, reason = Outcome.CANCELLED, "the session is over"
    raise
  except Failure as error:
    outcome, reason = Outcome.FAILED, str(error)
  except BaseException as error:  # a tool is anybody's code, and may exit
    # Its arguments may have what somebody said: a log is not to.
    logging.exception("a call of %r failed", ticket.call.name[:40])
    outcome, reason = Outcome.FAILED, type(error).__name__
    with contextlib.suppress(Exception):  # an error that cannot say what it is
      reason += f": {error}"
  finally:
    ticket._end(outcome, _clean(reason[:200]))
