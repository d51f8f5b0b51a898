"""`<call> timer 90`: says so when it is over. Start reading at `Timer`."""

import math
from collections.abc import AsyncIterator

from tml_jax import tools
from tml_jax.tools import background
from tml_jax.tools.background import Call, Failure

_HOUR = 3600.0


@tools.register("timer")
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
