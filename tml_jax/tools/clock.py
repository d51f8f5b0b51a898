"""`<call> clock` and `<call> timer 90`: what time it is, and when it is over.

For: time that the model asks for in words; its own sense of time is the clock
embedding of every window. Start reading at `Clock`.
"""

import datetime
import math
from collections.abc import AsyncIterator

from tml_jax.tools import background
from tml_jax.tools.background import Call, Failure

_HOUR = 3600.0


class Clock:
  """A tool: the time of day and how long the conversation has lasted."""

  timeout = 5.0

  async def run(self, call: Call) -> AsyncIterator[str]:
    now = datetime.datetime.now().astimezone()
    minutes, seconds = divmod(round(call.time), 60)
    yield (
      f"{now:%A %Y-%m-%d %H:%M:%S}, {minutes} min {seconds} s into the"
      " conversation"
    )


class Timer:
  """A tool: says so when SECONDS have passed."""

  timeout = 2 * _HOUR

  async def run(self, call: Call) -> AsyncIterator[str]:
    number = call.arguments.removesuffix("s").strip()
    try:
      seconds = float(number)
    except ValueError:
      seconds = math.nan
    if not 0 < seconds <= _HOUR:
      raise Failure(f"timer SECONDS, up to {_HOUR:g}, not {number[:40]!r}")
    await background.sleep(seconds)
    yield f"{seconds:g} s are over"
