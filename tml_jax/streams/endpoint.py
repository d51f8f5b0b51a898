"""Turns of a user, as a harness cuts them from what it hears.

For: the turn-based baseline, the same rule for its training data
(`data.turns`) and its sessions (`evals.turn_based`). Not for: finding speech
(`data.vad`). Start at `Endpointer`. An interaction model needs none of it.

A spoken turn begins with the first 0.1 s of speech and is over after the
endpoint time-out without any, both seen at the end of a window. What is
delivered are whole windows, from 0.1 s before the first speech to the last of
it: neither the silence before it nor that of the time-out. Typed text is a turn
by itself unless somebody speaks. Windows that bring pictures or text are
delivered with the turn that comes next. What the agent does changes no turn.
"""

import dataclasses
import enum

import numpy as np

from tml_jax.config import TurnsConfig
from tml_jax.streams import clock

START_SECONDS = 0.1  # of speech without a break; a click begins no turn
PRE_ROLL_SECONDS = 0.1  # what a detector hears late
_EPSILON = 1e-6


class Brings(enum.Enum):
  """What a window holds besides sound."""

  NOTHING = "nothing"
  PICTURES = "pictures"
  TEXT = "typed text or results, perhaps pictures, too"


@dataclasses.dataclass(frozen=True)
class Turn:
  """What the user said, showed and typed before it was the agent's turn.

  Attributes:
    windows: that are delivered, in order.
    is_spoken: or else typed.
    detected: the window at whose end it was noticed.
    interrupts: the window at whose end an agent that speaks has to stop; None
      where the turn is too short for that, or typed.
    last: the window of the last speech, or of the text.
    ended: the window at whose end it was over.
  """

  windows: tuple[int, ...]
  is_spoken: bool
  detected: int
  interrupts: int | None
  last: int
  ended: int


class Endpointer:
  """Cuts turns, one window at a time.

  Attributes:
    in_turn: whether the user is speaking, as far as it knows.
    interrupts: the window at whose end the turn that is spoken, or the one that
      is over now, had lasted long enough to interrupt; None where it has not.
    ready_since: the window at whose end all was there that a turn that is over
      now delivers: a reply that was begun then was not in vain.
  """

  def __init__(self, config: TurnsConfig):
    """Of a harness with these settings."""
    self._timeout = config.endpoint_s
    self._interruption = config.minimum_interruption_s
    self._window = -1
    self._now = 0.0  # end of the last frame
    self._run_start = 0.0  # of speech without a break
    self._onset = 0.0  # of the turn
    self._last_speech = 0.0
    self._first = self._detected = self._delivered = -1
    self._brought: list[int] = []
    self.in_turn = False
    self.interrupts: int | None = None
    self.ready_since = 0

  @property
  def silence(self) -> float:
    """Seconds since the last speech of a turn."""
    return self._now - self._last_speech

  def push(
    self, active: np.ndarray, *, hop: int, brings: Brings = Brings.NOTHING
  ) -> Turn | None:
    """Takes a window; returns the turn that is over now.

    Args:
      active: [n] bool, speech or not, of the frames that it completed.
      hop: samples from frame to frame.
      brings: what else it holds.
    """
    self._window += 1
    if not self.in_turn:
      self.interrupts = None
    if brings is not Brings.NOTHING:
      self._brought.append(self._window)
      self.ready_since = self._window
    for is_speech in active:
      self._now += hop / clock.SAMPLE_RATE
      if not is_speech:
        self._run_start = self._now
      elif self.in_turn:
        self._last_speech = self._now
      elif self._now - self._run_start >= START_SECONDS - _EPSILON:
        self._begin()
    if self.in_turn:
      spoken = self._last_speech - self._onset
      if self.interrupts is None and spoken >= self._interruption - _EPSILON:
        self.interrupts = self._window
      if self.silence <= _EPSILON:
        self.ready_since = self._window + 1
    if self.in_turn and self.silence >= self._timeout - _EPSILON:
      return self.finish()
    if brings is Brings.TEXT and not self.in_turn:
      return self._deliver(
        range(0), is_spoken=False, detected=self._window, last=self._window
      )
    return None

  def finish(self) -> Turn:
    """Ends the spoken turn here and now."""
    last = clock.TICKS.num_windows(self._last_speech) - 1
    self.in_turn = False
    return self._deliver(
      range(self._first, last + 1),
      is_spoken=True,
      detected=self._detected,
      last=last,
    )

  def _begin(self) -> None:
    self._onset = self._run_start
    onset = max(0.0, self._onset - PRE_ROLL_SECONDS)
    self._first = clock.TICKS.window_of(onset)
    self._detected = self._window
    self._last_speech = self._now
    self.in_turn = True
    self.interrupts = None

  def _deliver(
    self, spoken: range, *, is_spoken: bool, detected: int, last: int
  ) -> Turn:
    windows = sorted({*spoken, *self._brought})
    windows = [w for w in windows if w > self._delivered]
    self._delivered = max([self._delivered, *windows])
    self._brought = []
    return Turn(
      tuple(windows),
      is_spoken=is_spoken,
      detected=detected,
      interrupts=self.interrupts if is_spoken else None,
      last=last,
      ended=self._window,
    )
