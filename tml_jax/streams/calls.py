"""The text of calls and results, as the model writes and reads it.

For: whoever makes or reads such text: sessions and scenarios. Not for: running
calls (`tools.background`). A `<call>` message is NAME ARGUMENTS; calls are
numbered from 1 in the order in which they end. A `<result>` message is
NUMBER: TEXT, and a result may come in several of them:

  <call> calculator 3+4            <result> 1: 7
  <call> search boiling point      <result> 2: tea.txt: Water boils at ...
                                   <result> 2: 100 degrees at sea level.
  <call> cancel 2                  <result> 2: cancelled
  <call> weather in Rome           <result> 3: failed: there is no tool ...

A result that goes on in a later message ends with "..."; where there was no
more to come, or nothing at all, that message is "done".
"""

import dataclasses
import re

CANCEL = "cancel"  # cancels the call with the number that follows
GOES_ON = "..."
CUT = "[cut]"  # ends a result that was too long
FAILED = "failed"
CANCELLED = "cancelled"
DONE = "done"


@dataclasses.dataclass(frozen=True)
class Request:
  """What a `<call>` message asks for."""

  name: str
  arguments: str


def parse_call(text: str) -> Request:
  """Name and arguments of a call; both may be empty, nothing is refused."""
  name, *rest = text.split(maxsplit=1)[:2] or [""]
  return Request(name, rest[0].strip() if rest else "")


def call_text(request: Request) -> str:
  """Inverse of `parse_call`, up to the space between."""
  return f"{request.name} {request.arguments}".strip()


def result_text(number: int, text: str) -> str:
  """The text of a `<result>` message."""
  return f"{number}: {text}"


def parse_result(text: str) -> tuple[int, str]:
  """Inverse of `result_text`.

  Raises:
    ValueError: it does not start with a number and a colon.
  """
  found = re.fullmatch(r"(\d+): ?(.*)", text, flags=re.DOTALL)
  if found is None:
    raise ValueError(f"{text!r} is no result: NUMBER: TEXT")
  return int(found[1]), found[2]
