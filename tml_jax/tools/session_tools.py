"""The calls of one session: requests out, results in, between two ticks.

For: whoever ticks a session: `step` is given every finished frame and returns
what is to be queued on the channel `<result>` for the coming windows. Not for:
running the calls (`background`). Start reading at `SessionTools.step`.

A step never waits for a tool, unless results are to arrive at stated windows.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from tml_jax.config import StreamsConfig
from tml_jax.logs import transcript
from tml_jax.logs.transcript import Line
from tml_jax.streams import calls as calls_lib
from tml_jax.streams import clock
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.tokenizer import Tokenizer
from tml_jax.tools import background
from tml_jax.tools.background import Call, Limits, Outcome, Ticket

# Of one message, at least: below, words would be cut in two. Larger frames
# take two windows for a message.
_PIECE_TOKENS = 48
_PATIENCE = 0.6  # seconds that a few words wait for more before they go out
_OTHERS = 16  # earlier calls that a call knows of
_CALL_TOKENS = 2048  # of one message; a model may forget to end it


@dataclasses.dataclass(frozen=True)
class Live:
  """Results come in as soon as they are there."""


@dataclasses.dataclass(frozen=True)
class Stated:
  """Results come in at stated windows, and the session waits until they can.

  Runs of the same session are then the same, at any speed.

  Attributes:
    windows: between a call and the first window that reads its result.
  """

  windows: Callable[[Call], int]


@dataclasses.dataclass
class _Entry:
  """A call and what is known of it.

  Attributes:
    ticket: of the running call.
    due: window from which its result may come in.
    news: lines of its conversation that the call before was not told.
    waiting: text that has not been handed out.
    since: window in which `waiting` became more than nothing.
    result: all text that came.
    ended: seconds of the session at its end; None while it runs.
    answered: seconds at which its first text was handed out.
  """

  ticket: Ticket
  due: int
  news: tuple[Line, ...]
  waiting: str = ""
  since: int = 0
  result: str = ""
  ended: float | None = None
  answered: float | None = None

  def to_json(self) -> dict[str, Any]:
    """JSON values only, without the conversation."""
    call = self.ticket.call
    return {
      "call": call.number,
      "time_s": round(call.time, 3),
      "name": call.name,
      "arguments": call.arguments,
      "outcome": str(self.ticket.outcome),
      "reason": self.ticket.reason,
      "result": self.result,
      "answered_s": self.answered and round(self.answered, 3),
      "ended_s": self.ended and round(self.ended, 3),
    }


class Starter(Protocol):
  """What starts calls: a `background.Runner`, or what stands before one."""

  def start(
    self,
    call: Call,
    *,
    chars: int,
    clock: background.SessionClock | None = None,
  ) -> Ticket: ...


class SessionTools:
  """Between one session and what runs its calls."""

  def __init__(
    self,
    runner: Starter,
    *,
    tokenizer: Tokenizer,
    config: StreamsConfig,
    arrival: Live | Stated,
    limits: Limits,
    heard: Callable[[float], list[Line]],
  ):
    """Starts with no calls.

    Args:
      runner: of the tools; sessions may share one.
      tokenizer: of the run.
      config: for the room that a frame has for text.
      arrival: when results come in.
      limits: of this session's calls.
      heard: what the user had said, by the words that somebody else knows, at
        a time in seconds. Nothing the model reads depends on it.
    """
    self._runner = runner
    self._tokenizer = tokenizer
    self._room = config.max_text_in
    self._text_rows = config.text_vocab_size
    self._arrival = arrival
    self._limits = limits
    self._heard = heard
    self._clock = background.SessionClock()
    self._grid = clock.of(config)
    # By the clock on the wall a session may last for hours.
    most = limits.lines if isinstance(arrival, Live) else None
    self._record = transcript.Record(tokenizer, grid=self._grid, most=most)
    self._told: tuple[Line, ...] = ()  # to the call before
    self._message: list[int] = []  # a call that is not complete
    self._entries: list[_Entry] = []
    self._count = 0  # of calls, also of those that are not written down
    # Calls that still have something to say; whose turn it is comes first.
    self._turns: collections.deque[_Entry] = collections.deque()
    self._unread = 0  # tokens handed out that no frame has had yet
    self._now = 0.0

  def step(self, frame: Frame) -> list[list[int]]:
    """Takes a finished frame; returns `<result>` messages to be queued.

    They are to be queued before the next window is perceived.
    """
    self._now = (frame.window + 1) * self._grid.seconds
    self._record.observe(frame)
    for burst in frame.text_in:
      if burst.channel == Control.RESULT:
        self._unread = max(0, self._unread - len(burst.tokens))
    self._clock.advance(self._now)
    for text in self._calls(frame):
      self._request(calls_lib.parse_call(text), window=frame.window)
    for entry in self._turns:
      self._collect(entry, window=frame.window + 1)
    return self._hand_out(window=frame.window + 1)

  def cancel(self, number: int, *, reason: str) -> None:
    """Ends call `number`, if it runs; the model reads that it was cancelled."""
    for entry in self._turns:
      if entry.ticket.call.number == number:
        if isinstance(self._arrival, Stated):
          entry.ticket.settle()
        entry.ticket.cancel(reason)

  def close(self) -> None:
    """The session is over: ends its calls.

    A result that was stated for later has not come, even if it is there.
    """
    reason = "the session is over"
    for entry in self._turns:
      entry.ticket.cancel(reason)
      due = self._grid.seconds * entry.due
      if isinstance(self._arrival, Stated) and due > self._now:
        entry.ticket = Ticket.failed(
          entry.ticket.call, reason, outcome=Outcome.CANCELLED
        )
      self._collect(entry, window=entry.due)

  def to_json(self) -> list[dict[str, Any]]:
    """Every call as it left the session and what became of it.

    A line of the conversation stands with the first call that was told it.
    """
    result, told = [], set()
    for entry in self._entries:
      call = entry.ticket.call
      result.append(call.to_json(without=told) | entry.to_json())
      told.update(call.conversation)
    return result

  def state(self) -> dict[str, Any]:
    """What outlives the process that runs the calls, as JSON."""
    return {
      "count": self._count,
      "open": [entry.ticket.call.number for entry in self._turns],
      "message": list(map(int, self._message)),
    }

  def restore(self, state: dict[str, Any]) -> list[list[int]]:
    """Goes on for a process that has ended, before the first `step`.

    Returns:
      `<result>` messages to be queued: what ran then was cancelled.

    Raises:
      KeyError, TypeError, ValueError: it is no such state.
    """
    count, most = int(state["count"]), self._limits.unread_calls
    numbers = [int(number) for number in state["open"]][:most]
    if not all(1 <= number <= count for number in numbers):
      raise ValueError(f"calls {numbers[:4]} of {count}")
    self._count = count
    self._message = [int(token) for token in state["message"]][:_CALL_TOKENS]
    messages = [
      self._tokenizer.encode(calls_lib.result_text(n, calls_lib.CANCELLED))
      for n in numbers
    ]
    self._unread += sum(map(len, messages))
    return messages

  def _calls(self, frame: Frame) -> list[str]:
    """Texts of the calls that this frame completes."""
    texts = []
    for burst in frame.text_out:
      if burst.channel != Control.CALL:
        continue
      room = _CALL_TOKENS - len(self._message)
      self._message += burst.tokens[: max(0, room)]
      if burst.complete:
        texts.append(self._tokenizer.decode(self._message))
        self._message = []
    return texts

  def _request(self, request: calls_lib.Request, *, window: int) -> None:
    if request.name == calls_lib.CANCEL:
      for entry in self._turns:
        number = entry.ticket.call.number
        if request.arguments in ("", str(number)):
          self.cancel(number, reason="the model asked for it")
      return
    self._count += 1
    call = Call(
      number=self._count,
      time=self._now,
      name=request.name,
      arguments=request.arguments,
      conversation=self._conversation(),
      others=tuple(entry.to_json() for entry in self._entries[-_OTHERS:]),
    )
    is_open = sum(entry.ended is None for entry in self._turns)
    due = window + 1
    if self._count > self._limits.all_calls:
      most = self._limits.all_calls
      ticket = Ticket.failed(call, f"a session has {most} calls")
    elif is_open >= self._limits.open_calls:
      ticket = Ticket.failed(call, f"{is_open} calls are running already")
    elif isinstance(self._arrival, Stated):
      due = window + max(1, self._arrival.windows(call))
      ticket = self._runner.start(
        call, chars=self._limits.result_chars, clock=self._clock
      )
    else:
      ticket = self._runner.start(call, chars=self._limits.result_chars)
    told, self._told = self._told, call.conversation
    news = tuple(line for line in call.conversation if line not in {*told})
    entry = _Entry(ticket, due, news)
    if self._count <= self._limits.all_calls:
      self._entries.append(entry)
    if len(self._turns) < self._limits.unread_calls:
      self._turns.append(entry)
    else:
      ticket.cancel("the model has not read the results before")
      self._collect(entry, window=due)

  def _conversation(self) -> tuple[Line, ...]:
    """The last lines of what was said, written and read so far."""
    most, chars = self._limits.lines, self._limits.line_chars
    lines = self._record.lines(last=most) + self._heard(self._now)[-most:]
    lines.sort(key=lambda line: (line.start, line.end))
    return tuple(
      line
      if len(line.text) <= chars
      else dataclasses.replace(line, text=f"... {line.text[-chars:]}")
      for line in lines[-most:]
    )

  def _collect(self, entry: _Entry, *, window: int) -> None:
    """Takes what has come of a call."""
    if entry.ended is not None or window < entry.due:
      return
    if isinstance(self._arrival, Stated):
      entry.ticket.settle()
    text = entry.ticket.take()
    outcome, reason = entry.ticket.outcome, entry.ticket.reason
    if outcome != Outcome.RUNNING:
      entry.ended = self._now
      # `to_json` needs no more, and every call was told the same again.
      entry.ticket.call = dataclasses.replace(
        entry.ticket.call, conversation=entry.news
      )
    entry.result += text
    if outcome == Outcome.CUT:
      text += f" {calls_lib.CUT}"
    elif outcome in (Outcome.FAILED, Outcome.TIMED_OUT):
      text += f" {calls_lib.FAILED}: {reason}"
    elif outcome == Outcome.CANCELLED:
      text += f" {calls_lib.CANCELLED}"
    elif outcome == Outcome.DONE and not (entry.waiting + text).strip():
      text += calls_lib.DONE  # what was handed out before was to go on
    if text and not entry.waiting:
      entry.since = window
    entry.waiting += text

  def _hand_out(self, *, window: int) -> list[list[int]]:
    """A window's worth of results, the calls taking turns."""
    messages = []
    ready = len(self._turns)
    while self._unread < self._room and ready:
      entry = self._turns.popleft()
      tokens = self._piece(entry, window=window)
      if tokens:
        messages.append(tokens)
        self._unread += len(tokens)
        entry.since = window
        if entry.answered is None:
          entry.answered = self._now
      if entry.ended is None or entry.waiting:
        self._turns.append(entry)
      ready = len(self._turns) if tokens else ready - 1
    return messages

  def _piece(self, entry: _Entry, *, window: int) -> list[int]:
    """The next message of a call's result, which `entry` then lacks."""
    most = max(_PIECE_TOKENS, 2 * self._room)
    text = " ".join(entry.waiting.split())
    if not text:
      entry.waiting = ""
      return []
    ended = entry.ended is not None
    whole = self._encode(entry, text, goes_on=not ended)
    if len(whole) <= most:
      waited = window - entry.since
      if not ended and waited < self._grid.num_windows(_PATIENCE):
        return []
      entry.waiting = ""
      return whole
    low, high = 1, len(text)  # the longest head that fits
    while low < high:
      middle = (low + high + 1) // 2
      head = self._encode(entry, text[:middle], goes_on=True)
      low, high = (middle, high) if len(head) <= most else (low, middle - 1)
    low = max(text.rfind(" ", 0, low + 1), 0) or low
    entry.waiting = text[low:]
    return self._encode(entry, text[:low], goes_on=True)

  def _encode(self, entry: _Entry, text: str, *, goes_on: bool) -> list[int]:
    if goes_on:
      text += f" {calls_lib.GOES_ON}"
    number = entry.ticket.call.number
    tokens = self._tokenizer.encode(calls_lib.result_text(number, text))
    if not all(0 <= token < self._text_rows for token in tokens):
      raise ValueError(f"{text!r} encodes to control tokens: {tokens}")
    return tokens
