"""Conversations: a window goes perceive -> tick -> sound -> tools.

For: whoever holds sessions: `sample`, evaluations, benchmarks, a server. Not
for: where windows come from and who keeps what was decided (`transport`), or
the compiled calls (`pool`). Start at `Room.step`; `hold` talks to guests until
all have gone.

A `Conversation` keeps nothing that grows: its transport takes every frame and
sample, and keeps what it needs. An hour of frames is 100 MB.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np

from tml_jax import errors
from tml_jax.live import pool as pool_lib
from tml_jax.live import saved
from tml_jax.live.session import Session
from tml_jax.live.transport import Answer, Arrived, Past, Transport
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.tokenizer import Tokenizer


class Tools(Protocol):
  """What runs beside a session."""

  def step(self, frame: Frame) -> list[list[int]]:
    """Takes a finished frame; gives `<result>` messages for the next one."""


class NoTools:
  """Nobody listens to calls."""

  def step(self, frame: Frame) -> list[list[int]]:
    return []


@dataclasses.dataclass(frozen=True)
class Guest:
  """Somebody who wants to talk.

  Attributes:
    transport: the other end.
    seed: of every draw of the model.
    tools: of this conversation.
    done: called when it is over.
    most_unfinished: tokens of one message that does not end, of which the
      first are kept; None keeps all.
  """

  transport: Transport
  seed: int
  tools: Tools = dataclasses.field(default_factory=NoTools)
  done: Callable[[], None] = lambda: None
  most_unfinished: int | None = None


@dataclasses.dataclass(frozen=True)
class Kept:
  """A conversation as it was.

  Attributes:
    session: all of it.
    unfinished: as in `Conversation`.
  """

  session: saved.Snapshot
  unfinished: dict[Control, list[int]]


@dataclasses.dataclass(eq=False)
class Conversation:
  """A session and what it is connected to.

  Attributes:
    session: in the pool.
    guest: at the other end.
    unfinished: tokens of messages that are not complete, by channel.
    kept: what `Past.AS_KEPT` goes back to; None before the first `Past.KEPT`.
  """

  session: Session
  guest: Guest
  unfinished: dict[Control, list[int]] = dataclasses.field(default_factory=dict)
  kept: Kept | None = None

  def perceive(self, arrived: Arrived) -> tuple[Frame, errors.UserError | None]:
    """Inputs of the next window; what cannot be used is absent."""
    try:
      return self.session.receive(arrived), None
    except errors.UserError as error:
      return self.session.perceive(None), error

  def messages(
    self, frame: Frame, *, tokenizer: Tokenizer
  ) -> tuple[tuple[Control, str], ...]:
    """Shown and drawn texts that `frame` completes."""
    complete = []
    for burst in frame.text_out:
      if burst.channel == Control.CALL:
        continue
      tokens = self.unfinished.setdefault(burst.channel, [])
      tokens += burst.tokens
      if self.guest.most_unfinished is not None:
        del tokens[self.guest.most_unfinished :]
      if burst.complete:
        text = tokenizer.decode(self.unfinished.pop(burst.channel))
        complete.append((burst.channel, text))
    return tuple(complete)


@dataclasses.dataclass(frozen=True)
class Stepped:
  """One window of a room.

  Attributes:
    seconds: from perceived windows to decisions and sound.
    drafted: output tokens that took no step of their own, of all together.
    results: `<result>` messages that each will read from its next window on.
  """

  seconds: float
  drafted: int
  results: Mapping[Conversation, list[list[int]]]


class Room:
  """The conversations of a pool."""

  def __init__(self, pool: pool_lib.SessionPool, *, tokenizer: Tokenizer):
    self.pool = pool
    self._tokenizer = tokenizer

  def join(self, guest: Guest) -> Conversation:
    """A new conversation, between any two steps.

    Raises:
      errors.UserError: the pool is full.
    """
    return Conversation(self.pool.join(seed=guest.seed), guest)

  def leave(self, conversation: Conversation) -> None:
    """The conversation is over."""
    self.pool.leave(conversation.session)

  def step(self, arrived: Mapping[Conversation, Arrived]) -> Stepped:
    """One window of these conversations, whatever their clocks say.

    The others rest. Every transport takes its answer before any tool runs.
    """
    for who, window in arrived.items():
      self._recall(who, window.past)
    perceived = {who: who.perceive(window) for who, window in arrived.items()}
    ticked = self.pool.tick(
      {who.session: frame for who, (frame, _) in perceived.items()},
      quiet={who.session for who, at in arrived.items() if not at.is_asked},
    )
    for who, (_, refused) in perceived.items():
      frame = ticked.frames[who.session]
      who.guest.transport.take(
        Answer(
          frame=frame,
          sound=ticked.sounds.get(who.session),
          messages=who.messages(frame, tokenizer=self._tokenizer),
          is_reading=who.session.has_text,
          refused=refused,
          seconds=ticked.seconds,
        )
      )
    results = {}
    for who in perceived:
      results[who] = who.guest.tools.step(ticked.frames[who.session])
      for tokens in results[who]:
        who.session.type(Control.RESULT, tokens)
    return Stepped(
      seconds=ticked.seconds,
      drafted=int(ticked.drafted.sum()),
      results=results,
    )

  def _recall(self, who: Conversation, past: Past) -> None:
    """Keeps a conversation, or takes it back to what was kept."""
    if past is Past.KEPT:
      who.kept = Kept(
        self.pool.snapshot(who.session), copy.deepcopy(who.unfinished)
      )
    elif past is Past.AS_KEPT:
      if who.kept is None:
        raise errors.UserError(
          "a transport asks for the past that was kept, and none was: send a"
          " window with Past.KEPT first"
        )
      self.pool.leave(who.session)
      who.session = self.pool.revive(who.kept.session)
      who.unfinished = copy.deepcopy(who.kept.unfinished)


def hold(room: Room, guests: Iterable[Guest]) -> np.ndarray:
  """Talks to all guests; the next joins when another is over.

  A conversation depends on its guest alone, whoever shares the pool.

  Args:
    room: of a pool that may be warm.
    guests: asked for one when there is a free slot.

  Returns:
    [ticks] wall-clock time of each, compilation included.
  """
  guests = iter(guests)
  seconds: list[float] = []
  arrived: dict[Conversation, Arrived] = {}

  def go_on(conversation: Conversation) -> None:
    window = conversation.guest.transport.bring()
    if window is not None:
      arrived[conversation] = window
      return
    room.leave(conversation)
    conversation.guest.done()

  while True:
    while not room.pool.is_full:
      guest = next(guests, None)
      if guest is None:
        break
      go_on(room.join(guest))
    if not arrived:
      return np.array(seconds)
    windows, arrived = arrived, {}
    seconds.append(room.step(windows).seconds)
    for conversation in windows:
      go_on(conversation)
