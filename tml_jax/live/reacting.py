"""A user who reacts: a script, played to whatever the agent does.

For: evaluations, rollouts and clients of a server, which share this one
implementation. Not for: what the user waits for (`moves`), or what is heard of
it (`performed`). Start at `Reacting.next`. Nothing here imports jax.

The user is a state machine with one input, whether the agent sounds in the
tick that begins, and one output, what is played in it: the next window of the
script, or none while the user waits. The script's clock stands still then, and
with it all else that is heard and seen. So the user's moves keep their order
and never overlap, and an agent that does as the recorded one hears the script.

  waiting       where a reply is due, until it begins; for `PATIENCE` ticks
  asking again  then the script goes back to the question, once
  interrupting  where the user interrupted, and the agent has not been silent
    again       for one tick since: at once, and at most twice
  giving up     the script goes on
  letting talk  before the next move, until the agent has been silent as long
                as in the script; for `PATIENCE` ticks, then over it
  dropping      a backchannel, where the agent is silent

Nothing is drawn at random: the script has its seed, and what is done follows
from the script and the agent's ticks. A conversation is at most `most_ticks`
long.
"""

import dataclasses
import enum
import functools

import numpy as np

from tml_jax.live import moves, performed
from tml_jax.live.moves import Trigger
from tml_jax.live.performed import Step
from tml_jax.streams.timeline import Timeline

PATIENCE = 10  # ticks, 2 s
BREATH = 2  # ticks without sound, after which an agent is still speaking


class Users(enum.StrEnum):
  """How the users of scenarios meet an agent."""

  SCRIPTED = "scripted"  # everything when it was planned
  REACTING = "reacting"


class Reacting:
  """One conversation, tick by tick.

  Attributes:
    script: as composed.
    plan: what the user waits for.
    position: the window of the script that comes next.
    reached: the highest that it has been.
    steps: what was played so far, one per tick.
  """

  def __init__(self, script: Timeline, *, users: Users = Users.REACTING):
    """Starts at the first window.

    Args:
      script: the conversation.
      users: `SCRIPTED` for one who waits for nothing.
    """
    self.script = script
    is_reacting = users is Users.REACTING
    self.plan = (moves.plan_of if is_reacting else moves.as_planned)(script)
    self.position = self.reached = 0
    self.steps: list[Step] = []
    self._asks: dict[int, list[moves.Ask]] = {}
    for ask in self.plan.asks:
      self._asks.setdefault(ask.at, []).append(ask)
    self._moves = {move.first: move for move in self.plan.moves}
    self._again: dict[moves.Ask, int] = {}  # how often it was
    self._played: dict[int, int] = {}  # the last tick of a script's window
    self._held = 0  # ticks at this position, until a reply begins
    self._let = 0  # and until the agent ends
    self._dropping = 0  # the script's window up to which nothing is said

  @property
  def most_ticks(self) -> int:
    """No conversation is longer, whatever the agent does."""
    starts = [move.first for move in self.plan.moves]
    holds = [ask.at for ask in self.plan.asks] + starts
    total = self.plan.windows + PATIENCE * len(holds)
    # Whatever is said again may wait for all in it once more.
    for ask in self.plan.asks:
      inside = sum(ask.since <= at <= ask.at for at in holds)
      total += ask.again * (ask.at - ask.since + PATIENCE * inside)
    return total

  @functools.cached_property
  def sound(self) -> performed.Sound:
    """Of the script."""
    return performed.Sound(self.script, quiet=self.plan.quiet)

  def heard(self, tick: int) -> np.ndarray:
    """[samples] that the agent heard in a tick that was played."""
    return self.sound.heard(self.steps[tick], tick=tick)

  @property
  def told(self) -> Timeline:
    """What has happened so far, without sound and pictures."""
    return performed.timeline_of(self.script, steps=self.steps)

  @property
  def timeline(self) -> Timeline:
    """What has happened so far, as the script of an item that went so."""
    return performed.with_sound(
      self.told, script=self.script, steps=self.steps, sound=self.sound
    )

  def next(self, sounds: bool) -> Step | None:
    """What is played in the tick that begins; None when all is over.

    Args:
      sounds: whether the agent does in this tick, which was decided before.
    """
    is_again = False
    for ask in self._asks.get(self.position, ()):
      verdict = self._judge(ask, sounds)
      if verdict is _Verdict.WAITS:
        self._held += 1
        return self._add(Step(None, sounds))
      if verdict is _Verdict.ASKS_AGAIN:
        self._again[ask] = self._again.get(ask, 0) + 1
        self._go_to(ask.since)
        is_again = True
        break
    move = self._moves.get(self.position)
    if move is not None and not is_again and self._lets_talk(move, sounds):
      self._let += 1
      return self._add(Step(None, sounds))
    if self.position == self.plan.windows:
      return None
    if move is not None and move.trigger is Trigger.WHILE_SPEAKING:
      before = [step.sounds for step in self.steps[-BREATH:]]
      self._dropping = 0 if any([*before, sounds]) else move.stop
    at = self.position
    self._played[at] = len(self.steps)
    self._go_to(at + 1)
    return self._add(Step(at, sounds, is_dropped=at < self._dropping))

  def also_sounds(self) -> None:
    """The agent has begun within the tick that was played last."""
    self.steps[-1] = dataclasses.replace(self.steps[-1], sounds=True)

  def _judge(self, ask: moves.Ask, sounds: bool) -> "_Verdict":
    """What the user does where a reply is due."""
    times = self._again.get(ask, 0)
    if ask.interrupts is not None:
      begun = self._played[ask.interrupts] + 1
      if sounds and all(step.sounds for step in self.steps[begun:]):
        return _Verdict.ASKS_AGAIN if times < ask.again else _Verdict.GOES_ON
    said = self._played[ask.asked - 1] + 1
    if sounds or any(step.sounds for step in self.steps[said:]):
      return _Verdict.GOES_ON
    if self._held < PATIENCE:
      return _Verdict.WAITS
    if times < min(ask.again, moves.ASK_AGAIN):
      return _Verdict.ASKS_AGAIN
    return _Verdict.GOES_ON

  def _lets_talk(self, move: moves.Move, sounds: bool) -> bool:
    """Whether the agent has not been silent for long enough."""
    if move.trigger is not Trigger.REPLY_END or self._let >= PATIENCE:
      return False
    last = self.steps[len(self.steps) - move.gap :] if move.gap else []
    return sounds or any(step.sounds for step in last)

  def _go_to(self, position: int) -> None:
    self.position = position
    self.reached = max(self.reached, position)
    self._held = self._let = 0

  def _add(self, step: Step) -> Step:
    self.steps.append(step)
    return step


class _Verdict(enum.Enum):
  """What comes of an `Ask`."""

  WAITS = enum.auto()
  ASKS_AGAIN = enum.auto()
  GOES_ON = enum.auto()
