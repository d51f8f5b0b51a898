"""The tool of an evaluation: it answers the call that was made, when it was.

For: users of scenarios who ask what only a tool knows. Not for: tools that run
beside a session (`tml_jax.tools`), whose answers come when they come. Start at
`SimulatedTool.take`.

A call that a question of the item asks for gets the result of the recording,
as long after it as there. Any other is worked out: by the calculator, or it
fails, for there is no other tool. No call, no result. So a conversation depends
on its seed and on what the model does, and on no clock.
"""

import dataclasses

from tml_jax.streams import annotation, calls, clock
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.timeline import EventKind, Timeline
from tml_jax.streams.tokenizer import Tokenizer
from tml_jax.tools import calculator
from tml_jax.tools.background import Failure

_NAME = "calculator"
_DELAY_SECONDS = 2.0  # of a call in an item that has none


@dataclasses.dataclass(frozen=True)
class _Question:
  """What the user asks, as the recording answers it."""

  asked: int  # window in which it ends
  request: calls.Request
  result: str
  delay: int  # windows from call to result


def answers(timeline: Timeline) -> bool:
  """Whether an item says which calls its questions ask for."""
  return any(a.call for a in annotation.of(timeline))


def without_results(timeline: Timeline) -> Timeline:
  """The same user, and no result that comes by itself."""
  events = (e for e in timeline.events if e.kind != EventKind.RESULT)
  return dataclasses.replace(timeline, events=tuple(events))


class SimulatedTool:
  """Of one conversation."""

  def __init__(
    self, timeline: Timeline, *, tokenizer: Tokenizer, grid: clock.Grid
  ):
    """Reads what the recording asks, calls and is told.

    Args:
      timeline: the item, with its CALL and RESULT events.
      tokenizer: of the run.
      grid: of the windows.
    """
    self._tokenizer = tokenizer
    self._open = _questions(timeline, grid=grid)
    delays = [question.delay for question in self._open]
    self._usual = delays[0] if delays else grid.num_windows(_DELAY_SECONDS)
    self._unfinished: list[int] = []
    self._made = 0

  def take(
    self, window: int, frame: Frame, *, reached: int
  ) -> list[tuple[int, list[int]]]:
    """Hears what the model decided in a window.

    Args:
      window: of the conversation.
      frame: of it.
      reached: the window of the script that the user has come to: who waits
        for the agent asks later than there.

    Returns:
      Results as `<result>` tokens, each with the window in which it arrives.
    """
    arriving = []
    for burst in frame.text_out:
      if burst.channel != Control.CALL:
        continue
      self._unfinished += burst.tokens
      if not burst.complete:
        continue
      text = self._tokenizer.decode(self._unfinished)
      self._unfinished = []
      self._made += 1
      delay, result = self._answer(reached, calls.parse_call(text))
      message = calls.result_text(self._made, result)
      arriving.append((window + delay, self._tokenizer.encode(message)))
    return arriving

  def _answer(self, reached: int, request: calls.Request) -> tuple[int, str]:
    """Windows until a call is answered, and the answer."""
    for question in self._open:
      if question.request == request and question.asked <= reached:
        self._open.remove(question)
        return question.delay, question.result
    if request.name != _NAME:
      return self._usual, f"{calls.FAILED}: there is no tool {request.name!r}"
    try:
      value = calculator.evaluate(request.arguments)
    except Failure as failure:
      return self._usual, f"{calls.FAILED}: {failure}"
    return self._usual, calculator.write(value)


def _questions(timeline: Timeline, *, grid: clock.Grid) -> list[_Question]:
  """In the order in which they are asked."""
  told = {}
  for event in timeline.events:
    if event.kind == EventKind.RESULT:
      number, text = calls.parse_result(event.text)
      told.setdefault(number, (grid.window_of(event.time), text))
  made = [e for e in timeline.events if e.kind == EventKind.CALL]
  made.sort(key=lambda event: event.time)
  asked = sorted(
    (a for a in annotation.of(timeline) if a.call), key=lambda a: a.start
  )
  result = []
  for number, (event, a) in enumerate(zip(made, asked, strict=False), start=1):
    if number in told:
      arrived, text = told[number]
      called = grid.window_of(event.time)
      result.append(
        _Question(
          grid.num_windows(a.start) - 1,
          calls.parse_call(a.call),
          text,
          max(1, arrived - called),
        )
      )
  return result
