"""One person at the other end: what they send, and what they are to be sent.

For: the transport between a socket, which lives on the loop of asyncio, and
the pool's thread. Not for: the clock (`beat`), or protocols (`connection`).
Start at `Line`. Nothing here waits: what comes in is kept until a window ends,
and at most so much of it.
"""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tml_jax.live.server import ear as ear_lib
from tml_jax.live.server import formats
from tml_jax.live.server.attached import Attached, Made
from tml_jax.live.server.formats import Format
from tml_jax.live.transport import Answer, Arrived
from tml_jax.streams import clock, patches
from tml_jax.streams.frame import Control

MOST_WAITING = 4096  # tokens of typed text that were not read


@dataclasses.dataclass
class Choices:
  """What clients of a session have set; the next client finds it so.

  Attributes:
    heard: how their sound is coded.
    played: how the agent's is.
    instructions: that the model was told last.
    is_paused: windows do not pass before a client says so.
  """

  heard: Format = formats.PCM_24
  played: Format = formats.PCM_24
  instructions: str = ""
  is_paused: bool = False

  def state(self) -> dict[str, Any]:
    """JSON values."""
    return {
      "heard": self.heard.to_json(),
      "played": self.played.to_json(),
      "instructions": self.instructions,
      "is_paused": self.is_paused,
    }

  def restore(self, state: dict[str, Any]) -> None:
    """The inverse.

    Raises:
      KeyError, TypeError, ValueError: it is no such state.
    """
    self.heard = formats.of_json(state["heard"])
    self.played = formats.of_json(state["played"])
    self.instructions = str(state["instructions"])
    self.is_paused = bool(state["is_paused"])


@dataclasses.dataclass(frozen=True)
class Timing:
  """When one window was worked on, in seconds.

  Attributes:
    ended: time of the session at the window's end.
    wall: seconds since 1970, by the wall's clock.
    waited: from the window's end until its tick began.
    ticked: from there until its sound was made.
    late: that its sound came after it was due; 0 where it did not.
  """

  ended: float
  wall: float
  waited: float
  ticked: float
  late: float


@dataclasses.dataclass(frozen=True)
class Passed:
  """One window, as the client is told of it.

  Attributes:
    answer: what was decided.
    heard: of the window.
    timing: of it.
    made: calls, results and strokes.
    lost: windows so far that were absent although there was a microphone.
    newly_lost: of these, since the window before.
    is_cancelled: the client did not want the model to be asked.
  """

  answer: Answer
  heard: ear_lib.Window
  timing: Timing
  made: tuple[Made, ...]
  lost: int
  newly_lost: int
  is_cancelled: bool = False


@dataclasses.dataclass(frozen=True)
class Taken:
  """One window with all that came in, to be recorded.

  Attributes:
    arrived: what the model was given, but for results.
    results: tokens of `<result>` messages that were queued before it.
    passed: what came of it.
  """

  arrived: Arrived
  results: tuple[tuple[int, ...], ...]
  passed: Passed


class Line:
  """A session's other end.

  Attributes:
    session_id: for people and files.
    seed: of the session.
    attached: tools and drawing.
    choices: of its clients.
    seconds: of the session that have passed, windows only.
    keep: given every window, on the pool's thread; None keeps nothing.
  """

  def __init__(
    self,
    *,
    session_id: str,
    seed: int,
    grid: clock.Grid,
    attached: Attached,
    now: Callable[[], float] = time.monotonic,
  ):
    self.session_id = session_id
    self.seed = seed
    self.attached = attached
    self.choices = Choices()
    self.seconds = 0.0
    self.keep: Callable[[Taken], None] | None = None
    self._now = now
    self._lock = threading.Lock()  # of all below
    self._ear = ear_lib.Ear(grid)
    self._images: collections.deque[np.ndarray] = collections.deque(
      maxlen=patches.PAIR
    )
    self._typed: list[tuple[Control, Sequence[int]]] = []
    self._unread = 0  # tokens typed that no frame has had
    self._is_cancelled = False
    # Of the window in the works; the pool's thread alone.
    self._arrived = Arrived(None)
    self._heard = ear_lib.ABSENT
    self._answer: Answer | None = None
    self._results: tuple[tuple[int, ...], ...] = ()
    self._lost = 0

  # ------------------------------------------------------- from the client
  def hear(self, samples: np.ndarray) -> int:
    """Takes [n] int16 at 16 kHz; returns how many were too far ahead."""
    with self._lock:
      return self._ear.push(samples, now=self._now())

  def clear(self) -> None:
    """Sound that was sent ahead is not heard."""
    with self._lock:
      self._ear.clear()

  def mute(self, muted: bool) -> None:
    with self._lock:
      self._ear.mute(muted)

  def type(self, tokens: Sequence[int]) -> bool:
    """Queues text; False where too much waits already."""
    with self._lock:
      if self._unread + len(tokens) > MOST_WAITING:
        return False
      self._unread += len(tokens)
      self._typed.append((Control.USER_TEXT, tokens))
      return True

  @property
  def room(self) -> int:
    """Tokens of text that may be typed now."""
    with self._lock:
      return max(0, MOST_WAITING - self._unread)

  def show(self, image: np.ndarray) -> None:
    """A frame of video; of one window the last two are seen."""
    with self._lock:
      self._images.append(image)

  def cancel(self) -> None:
    """The model is not asked in the next window."""
    with self._lock:
      self._is_cancelled = True

  @property
  def counts(self) -> ear_lib.Counts:
    with self._lock:
      return dataclasses.replace(self._ear.counts)

  @property
  def lead(self) -> float:
    """See `ear.Ear.lead`."""
    with self._lock:
      return self._ear.lead

  @property
  def is_untouched(self) -> bool:
    """Nothing has happened in it: no window, and nothing was typed."""
    with self._lock:
      return not self.seconds and not self._unread

  # ---------------------------------------------------- on the pool's thread
  def state(self) -> dict[str, Any]:
    """JSON values from which `restore` makes another line go on."""
    with self._lock:
      typed = [list(map(int, tokens)) for _, tokens in self._typed]
    return {
      "typed": typed,  # what no window has taken
      "choices": self.choices.state(),
      "attached": self.attached.state(),
    }

  def restore(self, state: dict[str, Any]) -> list[list[int]]:
    """Takes the state of a line that is gone; one that was kept stays.

    Returns:
      `<result>` messages that the model is to read.

    Raises:
      AttributeError, KeyError, TypeError, ValueError: it is no such state.
    """
    if self.seconds or not state:
      return []
    self.choices.restore(state["choices"])
    for tokens in state["typed"]:
      self.type([int(token) for token in tokens])
    return self.attached.restore(state["attached"])

  def stop(self) -> None:
    """No windows pass until `begin`."""
    with self._lock:
      self._ear.stop()

  def begin(self, at: float) -> None:
    """The next window begins at a time of the clock."""
    with self._lock:
      self._ear.start(at, now=self._now())

  def shift(self, seconds: float) -> None:
    """The clock stood still."""
    with self._lock:
      self._ear.shift(seconds)

  def bring(self) -> Arrived:
    """All that came for the next window, which has ended."""
    with self._lock:
      self._heard = self._ear.take(now=self._now())
      samples = self._heard.samples
      self._arrived = Arrived(
        samples=None if samples is None else formats.to_float(samples),
        images=tuple(self._images),
        typed=tuple(self._typed),
        is_asked=not self._is_cancelled,
      )
      self._images.clear()
      self._typed = []
      self._is_cancelled = False
    return self._arrived

  def lose(self) -> Arrived:
    """What is left of it where the window is too late to be decided."""
    with self._lock:
      self._ear.counts.lost_windows += self._heard.samples is not None
    self._heard = ear_lib.ABSENT
    self._arrived = dataclasses.replace(self._arrived, samples=None, images=())
    return self._arrived

  def take(self, answer: Answer) -> None:
    self._answer = answer
    read = sum(
      len(burst.tokens)
      for burst in answer.frame.text_in
      if burst.channel == Control.USER_TEXT
    )
    with self._lock:
      self._unread = max(0, self._unread - read)

  def pass_on(
    self, timing: Timing, *, results: tuple[tuple[int, ...], ...]
  ) -> Passed:
    """The window is over; `results` were queued for the next one."""
    assert self._answer is not None
    lost = self.counts.lost_windows
    newly_lost, self._lost = lost - self._lost, lost
    passed = Passed(
      answer=self._answer,
      heard=self._heard,
      timing=timing,
      made=self.attached.made(),
      lost=lost,
      newly_lost=newly_lost,
      is_cancelled=not self._arrived.is_asked,
    )
    keep = self.keep  # another thread may end it now
    if keep is not None:
      keep(Taken(self._arrived, self._results, passed))
    self._results = results
    self.seconds = timing.ended
    return passed
