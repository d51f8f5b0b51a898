"""`<call> clock`: what time it is.

For: time that the model asks for in words; its own sense of time is the clock
embedding of every window. Start reading at `Clock`.
"""

import datetime
from collections.abc import AsyncIterator

from tml_jax import tools
from tml_jax.tools.background import Call


@tools.register("clock")
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
