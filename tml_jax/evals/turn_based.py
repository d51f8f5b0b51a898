"""The harness of today's voice agents around the model: listen, then speak.

For: the baseline that an interaction model is compared with, on the same users
and the same clock. Not for: its training data (`data.turns`, the same rules).
Start at `Turns`, with the options of `connect`.

Every 200 ms, at the end of a window:

  listening   Voice-activity detection hears the user; the model hears nothing.
              When the turn is over (`streams.endpoint`), it is given to the
              model at once, which is not asked meanwhile, and then the model
              is asked, in a window with nothing in it. `<quiet>` is no answer.
  speaking    One window of the model after another, without microphone, until
              it says `<quiet>` and writes nothing; or until speech of the user
              is detected: then it is made quiet at once, and what it had said
              stays in its context.

So speech can be late by the time-out but never by the model: as in
`run.converse`, what is decided in a window sounds in the next, however long it
took. A harness knows no time: the clock of `<turn>` counts the windows that
the model was given, those of silence are missing. Messages take no time either,
but for those of more than `_ASKED` windows.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Generator
from typing import Protocol

import numpy as np

from tml_jax import errors
from tml_jax.config import Config, Layout
from tml_jax.data import turns as turns_lib
from tml_jax.evals import vad as vad_lib
from tml_jax.live import session, user
from tml_jax.live.transport import Answer, Arrived
from tml_jax.streams import clock, endpoint
from tml_jax.streams.frame import Frame

_ASKED = 4  # windows of messages that are written within one window of time


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


def connect(config: Config, *, vad: str, endpoint_seconds: float) -> Connect:
  """The harness with these options.

  Args:
    config: of the run.
    vad: name of the detector, see `vad.VADS`.
    endpoint_seconds: without speech, that end a turn.

  Raises:
    errors.UserError: no such detector, or its package is missing; or a model
      of other micro-turns.
  """
  if clock.of(config.streams) != clock.TICKS:
    raise errors.UserError(
      f"streams.turn_ms = {config.streams.turn_ms}: the harness cuts turns"
      f" every {clock.TICKS.ms} ms; take --agent=duplex, or train with"
      f" streams.turn_ms={clock.TICKS.ms}"
    )
  vad_lib.create(vad)
  return functools.partial(
    Turns,
    config=config,
    make_vad=functools.partial(vad_lib.create, vad),
    endpoint_seconds=endpoint_seconds,
  )


def as_trained(config: Config) -> Connect:
  """What the layout of a run's data asks for."""
  if config.data.layout is Layout.DUPLEX:
    return user.Recorded
  return connect(
    config, vad="energy", endpoint_seconds=turns_lib.ENDPOINT_SECONDS
  )


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
    endpoint_seconds: float,
  ):
    """Starts at the first window.

    Args:
      part: the user.
      config: of the run.
      make_vad: makes a detector of the conversation's own.
      endpoint_seconds: without speech, that end a turn.
    """
    self.frames: list[Frame] = []
    self.seconds: list[float] = []
    self._part = part
    self._ear = session.Session(config, seed=0)  # on the user's clock
    self._detector = make_vad()
    self._endpointer = endpoint.Endpointer(endpoint_seconds)
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

  def _talk(self) -> Generator[Arrived, Answer, None]:
    """Windows for the model, which gets none while it waits for a turn."""
    part, endpointer, detector = self._part, self._endpointer, self._detector
    waiting: list[int] = []  # windows of turns that the model has not heard
    replying = False
    nothing = Arrived(None)
    for k in itertools.takewhile(part.has, itertools.count()):
      self.seconds.append(0.0)
      perceived = self._ear.receive(part.window(k))
      self._ear.window += 1
      turn = endpointer.push(
        detector.push(part.samples(k)), hop=detector.hop, brings=part.brings(k)
      )
      if turn is not None:
        waiting += turn.windows
      decided: list[Frame] = []
      own = None
      if replying:
        is_asked = not endpointer.in_turn
        answer = yield dataclasses.replace(nothing, is_asked=is_asked)
        decided.append(answer.frame)
        own = answer.frame.own_dmel
        replying = _goes_on(answer.frame) and is_asked
      if waiting and not replying and not endpointer.in_turn:
        yield from _deliver(part, windows=waiting)
        waiting = []
        for _ in range(_ASKED):
          answer = yield nothing
          decided.append(answer.frame)
          replying = _goes_on(answer.frame)
          if answer.frame.speak or not replying:
            break
      self.frames.append(_joined(perceived, decided, own=own))
      part.take(self.frames[-1])


def _deliver(
  part: user.Part, *, windows: list[int]
) -> Generator[Arrived, Answer, None]:
  """The model perceives these windows, and typed text to its end."""
  is_reading = True
  for window in windows:
    answer = yield dataclasses.replace(part.window(window), is_asked=False)
    is_reading = answer.is_reading
  while is_reading:
    is_reading = (yield Arrived(None, is_asked=False)).is_reading


def _goes_on(frame: Frame) -> bool:
  """Whether a reply is not over with this frame."""
  return frame.speak or bool(frame.text_out)


def _joined(
  perceived: Frame, decided: list[Frame], *, own: np.ndarray | None
) -> Frame:
  """A window of time in which the model decided several times, or never."""
  last = decided[-1] if decided else perceived
  return dataclasses.replace(
    perceived,
    own_dmel=own,
    say=tuple(token for frame in decided for token in frame.say),
    text_out=tuple(burst for frame in decided for burst in frame.text_out),
    speak=last.speak,
    target_mel=last.target_mel,
  )
