"""The harness of today's voice agents around the model: listen, then speak.

For: the rival of an interaction model, on the same users and the same clock.
Not for: its training data (`data.turns`, cut by the same rules), nor its
settings (`config.turns`). Start at `Turns`, with `connect`.

Every 200 ms, at the end of a window, one of `_State`:

  LISTENING  Voice-activity detection hears the user; the model hears nothing.
             When the turn is over (`streams.endpoint`), it is given to the
             model at once, which is not asked meanwhile. Next: ASKING.
  ASKING     The model is asked, in a window with nothing in it. `<quiet>`: not
             yet. It is asked again in every window of silence, at most
             `TurnsConfig.asks` times; then, or where the user goes on:
             LISTENING. When it speaks, or has not ended a message: REPLYING.
  REPLYING   One window of the model after another, without microphone, of
             those in which it writes and does not speak up to `_ASKED` at once,
             until it says `<quiet>` and writes nothing; or until the user has
             spoken for `minimum_interruption_s`: then it is made quiet at
             once, and what it had said stays in its context. Turns that are
             shorter wait for the end of the reply.

An interruption was false where the model, given what the user said, answered
nothing until `resume_after_false_s` of silence. It goes on where it was cut,
and has never heard what was said since: its session is as it was then.

So speech can be late by the time-out but never by the model: as in
`run.converse`, what is decided in a window sounds in the next, however long it
took. Messages take no time either, but for those of more than `_ASKED` windows
in each window of time. A speculative start uses the windows since the first
silence for them, too. It makes the very reply that is made at the end: the
turn that is delivered is the same, as silence is no part of it, and what was
thrown away leaves no trace. So it is counted here and not computed twice.

A harness knows no time: the clock of `<turn>` counts the windows that the model
was given; of silence it has those in which it was asked.
"""

import dataclasses
import enum
import functools
import itertools
from collections.abc import Callable, Generator
from typing import Protocol

import numpy as np

from tml_jax import errors
from tml_jax.config import Config, Layout, Start, TurnsConfig
from tml_jax.data import vad as vad_lib
from tml_jax.live import session, user
from tml_jax.live.transport import Answer, Arrived, Past
from tml_jax.streams import clock, endpoint
from tml_jax.streams.endpoint import Brings
from tml_jax.streams.frame import Frame

_ASKED = 4  # windows of messages that are written within one window of time
_NOTHING = Arrived(None)
_EPSILON = 1e-6

_Windows = Generator[Arrived, Answer, None]


class Talk(Protocol):
  """The transport of an evaluation: `user.Recorded` or `Turns`.

  Attributes:
    frames: one per window of the user's clock.
    seconds: wall-clock time of the calls in each.
  """

  frames: list[Frame]
  seconds: list[float]

  def bring(self) -> Arrived | None: ...

  def take(self, answer: Answer) -> None: ...


Connect = Callable[[user.Part], Talk]


def connect(config: Config) -> Connect:
  """The harness with the settings `config.turns`.

  Raises:
    errors.UserError: the package of the detector is missing, or it is a model
      of other micro-turns.
  """
  if clock.of(config.streams) != clock.TICKS:
    raise errors.UserError(
      f"streams.turn_ms = {config.streams.turn_ms}: the harness cuts turns"
      f" every {clock.TICKS.ms} ms; take --agent=duplex, or train with"
      f" streams.turn_ms={clock.TICKS.ms}"
    )
  vad_lib.create(config.turns.vad)
  return functools.partial(
    Turns,
    config=config,
    make_vad=functools.partial(vad_lib.create, config.turns.vad),
  )


def as_trained(config: Config) -> Connect:
  """What the layout of a run's data asks for."""
  if config.data.layout is Layout.DUPLEX:
    return user.Recorded
  return connect(config)


def describe(config: TurnsConfig) -> str:
  """The settings in a line, for titles and logs."""
  parts = [
    str(config.vad),
    f"{config.endpoint_s:g} s",
    f"asked {config.asks} times",
    f"interrupted after {config.minimum_interruption_s:g} s",
    f"goes on after {config.resume_after_false_s:g} s"
    if config.resume_after_false_s
    else "never goes on",
    f"{config.start} start",
  ]
  return f"turns ({', '.join(parts)})"


class _State(enum.Enum):
  """What the harness does, see the module."""

  LISTENING = "listening"
  ASKING = "asking"
  REPLYING = "replying"


@dataclasses.dataclass
class _Window:
  """What the model did within one window of time.

  Attributes:
    decided: its frames.
    own: [tokens, 80] dMel of what it sounded; None where it was silent.
  """

  decided: list[Frame] = dataclasses.field(default_factory=list)
  own: np.ndarray | None = None


class Turns:
  """One conversation; see the module and, for attributes, `Talk`.

  Frames are on the clock of the user: what was perceived in each window, with
  the sound that the agent made in it and all that it decided at its end.
  """

  def __init__(
    self,
    part: user.Part,
    *,
    config: Config,
    make_vad: Callable[[], vad_lib.Vad],
  ):
    """Starts at the first window.

    Args:
      part: the user.
      config: of the run, with the settings of the harness.
      make_vad: makes a detector of the conversation's own.
    """
    self.frames: list[Frame] = []
    self.seconds: list[float] = []
    self._part = part
    self._config = config.turns
    self._ear = session.Session(config, seed=0)  # on the user's clock
    self._detector = make_vad()
    self._endpointer = endpoint.Endpointer(config.turns)
    self._state = _State.LISTENING
    self._waiting: list[int] = []  # windows of turns that were not delivered
    self._asks = 0  # that are left
    self._early = 0  # windows since when a reply to this turn was being made
    self._is_cut = False  # a reply that may go on
    self._windows = self._talk()
    self._answer: Answer | None = None

  def bring(self) -> Arrived | None:
    try:
      return self._windows.send(self._answer)
    except StopIteration:
      return None

  def take(self, answer: Answer) -> None:
    if answer.refused:
      raise answer.refused
    self._answer = answer
    self.seconds[-1] += answer.seconds

  def _talk(self) -> _Windows:
    """Windows for the model, which gets none while it waits for a turn."""
    part = self._part
    for k in itertools.takewhile(part.has, itertools.count()):
      self.seconds.append(0.0)
      perceived = self._ear.receive(part.window(k))
      self._ear.window += 1
      self._hear(k)
      window = _Window()
      if self._is_false_interruption():
        yield from self._resume(window)
      elif self._state is _State.REPLYING:
        yield from self._reply(window)
      if self._state is not _State.REPLYING and not self._endpointer.in_turn:
        if self._waiting:
          yield from self._deliver()
          yield from self._ask(window)
        elif self._state is _State.ASKING and not window.decided:
          yield from self._ask(window)
      elif self._state is _State.ASKING:
        self._state, self._asks = _State.LISTENING, 0  # the user goes on
      self.frames.append(_joined(perceived, window))
      part.take(self.frames[-1])

  def _hear(self, k: int) -> None:
    """Takes a window of the user; a turn that is over waits to be delivered."""
    brings = self._part.brings(k)
    turn = self._endpointer.push(
      self._detector.push(self._part.samples(k)),
      hop=self._detector.hop,
      brings=brings,
    )
    self._early = 0
    if turn is not None:
      self._waiting += turn.windows
      if (
        self._config.start is Start.SPECULATIVE
        and self._state is not _State.REPLYING
      ):
        self._early = k - self._endpointer.ready_since
    if brings is Brings.TEXT:
      self._is_cut = False  # something followed that is to be read

  def _is_false_interruption(self) -> bool:
    """Whether a reply was cut, and nothing came of it for long enough."""
    silence = self._endpointer.silence
    return (
      self._is_cut
      and not self._endpointer.in_turn
      and silence >= self._config.resume_after_false_s - _EPSILON
    )

  def _resume(self, window: _Window) -> _Windows:
    """The reply goes on where it was cut; what was heard since is forgotten."""
    self._is_cut, self._waiting, self._asks = False, [], 0
    self._took(window, (yield dataclasses.replace(_NOTHING, past=Past.AS_KEPT)))

  def _reply(self, window: _Window) -> _Windows:
    """The next window of a reply; the last one where the user interrupts."""
    if self._endpointer.interrupts is not None:
      self._is_cut = self._config.resume_after_false_s > 0
      self._asks = 0
      past = Past.KEPT if self._is_cut else Past.ALL
      answer = yield dataclasses.replace(_NOTHING, is_asked=False, past=past)
      window.own = answer.frame.own_dmel
      self._took(window, answer)
      return
    for k in range(_ASKED):  # messages take no time, until one speaks
      answer = yield _NOTHING
      if k == 0:  # in which it sounds what was decided before
        window.own = answer.frame.own_dmel
      self._took(window, answer)
      if answer.frame.speak or self._state is not _State.REPLYING:
        break

  def _deliver(self) -> _Windows:
    """The model perceives what waits, and typed text to its end."""
    is_reading = True
    for k in self._waiting:
      answer = yield dataclasses.replace(self._part.window(k), is_asked=False)
      is_reading = answer.is_reading
    while is_reading:
      answer = yield dataclasses.replace(_NOTHING, is_asked=False)
      is_reading = answer.is_reading
    self._waiting, self._asks = [], self._config.asks
    self._state = _State.ASKING

  def _ask(self, window: _Window) -> _Windows:
    """Is the turn over? `<quiet>`: not yet."""
    for _ in range(_ASKED * (1 + self._early)):
      answer = yield _NOTHING
      self._took(window, answer)
      if answer.frame.speak or self._state is _State.ASKING:
        break
    self._asks = max(0, self._asks - 1)
    if self._state is _State.ASKING and not self._asks:
      self._state = _State.LISTENING

  def _took(self, window: _Window, answer: Answer) -> None:
    """The model has decided: does its reply go on?"""
    frame = answer.frame
    window.decided.append(frame)
    if frame.speak or frame.text_out:
      self._state, self._is_cut = _State.REPLYING, False
    else:
      # Who has written and not spoken may yet.
      self._state = _State.ASKING if self._asks else _State.LISTENING
    if frame.speak:
      self._asks = 0


def _joined(perceived: Frame, window: _Window) -> Frame:
  """A window of time in which the model decided several times, or never."""
  decided = window.decided
  last = decided[-1] if decided else perceived
  return dataclasses.replace(
    perceived,
    own_dmel=window.own,
    say=tuple(token for frame in decided for token in frame.say),
    text_out=tuple(burst for frame in decided for burst in frame.text_out),
    speak=last.speak,
    target_mel=last.target_mel,
  )
