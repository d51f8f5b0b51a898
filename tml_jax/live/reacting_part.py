"""The part of a user who reacts, for any transport that plays a part.

For: holding the conversation of a script with a model: `user.Recorded` and the
turn-based harness play it. Not for: what the user decides (`reacting`). Start
at `ReactingPart`. Nothing here imports jax.

The user lives on ticks of 200 ms, the model on its own grid: a longer window
holds several ticks, in all of which the agent does the same; a tick of several
windows begins with the first of them.
"""

import numpy as np

from tml_jax.live import user
from tml_jax.live.reacting import Reacting
from tml_jax.live.transport import Arrived
from tml_jax.streams import clock, framing
from tml_jax.streams.endpoint import Brings
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.timeline import Timeline
from tml_jax.streams.tokenizer import Tokenizer


class ReactingPart:
  """See `user.Part`; made of a script, as it goes.

  Attributes:
    grid: of the windows.
    user: who decides.
  """

  def __init__(
    self,
    script: Timeline,
    *,
    tokenizer: Tokenizer,
    grid: clock.Grid,
    tool: user.Tool | None = None,
  ):
    """Starts at the first window.

    Args:
      script: the conversation as planned.
      tokenizer: of the run.
      grid: of the windows.
      tool: whose results are typed beside what the user types.
    """
    self.grid, self.user = grid, Reacting(script)
    self._tokenizer, self._tool = tokenizer, tool
    self._ticks: list[np.ndarray] = []  # what was heard
    self._images: dict[int, list[np.ndarray]] = {}
    self._typed: dict[int, list[tuple[Control, list[int]]]] = {}
    self._taken = 0
    self._speaks = False  # in the window that comes next

  @property
  def timeline(self) -> Timeline:
    """What has happened so far."""
    return self.user.timeline

  def has(self, window: int) -> bool:
    """Whether the conversation goes on; plays it so far."""
    while len(self._ticks) * clock.TICKS.ms < (window + 1) * self.grid.ms:
      step = self.user.next(self._speaks)
      if step is None:
        break
      tick = len(self._ticks)
      self._ticks.append(self.user.heard(tick))
      if step.position is not None:
        self._show(step.position, tick=tick)
    return len(self._ticks) * clock.TICKS.ms > window * self.grid.ms

  def window(self, k: int) -> Arrived:
    """All that window `k` brings, which has been asked for (`has`)."""
    return Arrived(
      samples=self.samples(k),
      images=self._images.get(k, ()),
      typed=self._typed.get(k, ()),
    )

  def samples(self, window: int) -> np.ndarray:
    """[grid.samples] of the microphone, silent behind the end."""
    first = window * self.grid.samples
    size, result = clock.TICKS.samples, np.zeros(self.grid.samples, np.float32)
    low, high = first // size, -(-(first + len(result)) // size)
    found = self._ticks[low:high]
    if found:
      offset = first - low * size
      part = np.concatenate(found)[offset : offset + len(result)]
      result[: len(part)] = part
    return result

  def brings(self, window: int) -> Brings:
    """What a window holds besides sound."""
    if window in self._typed:
      return Brings.TEXT
    return Brings.PICTURES if window in self._images else Brings.NOTHING

  def take(self, frame: Frame) -> None:
    """What the model decided in the next window: the user hears it, too."""
    window, self._taken = self._taken, self._taken + 1
    begins = window * self.grid.ms % clock.TICKS.ms
    if begins and frame.own_dmel is not None:
      self.user.also_sounds()  # a tick of several windows
    self._speaks = frame.speak
    if self._tool is None:
      return
    seconds = self.user.reached * clock.TICKS.seconds
    reached = self.grid.num_windows(seconds) - 1
    for at, tokens in self._tool.take(window, frame, reached=reached):
      typed = self._typed.setdefault(max(at, window + 1), [])
      typed.append((Control.RESULT, tokens))

  def _show(self, position: int, *, tick: int) -> None:
    """Pictures and text of a window of the script, which is played now."""
    later = (tick - position) * clock.TICKS.seconds
    script = self.user.script
    for image in script.video:
      if clock.TICKS.window_of(image.time) == position:
        window = self.grid.window_of(image.time + later)
        self._images.setdefault(window, []).append(image.image)
    for event in sorted(script.events, key=lambda event: event.time):
      if (
        event.kind in framing.TYPED
        and clock.TICKS.window_of(event.time) == position
      ):
        typed = self._typed.setdefault(
          self.grid.window_of(event.time + later), []
        )
        text = self._tokenizer.encode(event.text)
        typed.append((framing.TYPED[event.kind], text))
