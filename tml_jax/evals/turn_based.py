"""The harness of today's voice agents around the model: listen, then speak.

For: the baseline that an interaction model is compared with, on the same users
and the same clock. Not for: its training data (`data.turns`, the same rules).
Start at `turns`, with the options of `hold`.

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
from collections.abc import Callable, Generator

import numpy as np

from tml_jax import errors
from tml_jax.config import Config, Layout
from tml_jax.data import turns as turns_lib
from tml_jax.evals import duplex as live_lib
from tml_jax.evals import vad as vad_lib
from tml_jax.live import session, user
from tml_jax.streams import clock, endpoint
from tml_jax.streams.frame import Frame

_ASKED = 4  # windows of messages that are written within one window of time


def hold(config: Config, *, vad: str, endpoint_seconds: float) -> live_lib.Hold:
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
    turns,
    config=config,
    make_vad=functools.partial(vad_lib.create, vad),
    endpoint_seconds=endpoint_seconds,
  )


def as_trained(config: Config) -> live_lib.Hold:
  """What the layout of a run's data asks for."""
  if config.data.layout is Layout.DUPLEX:
    return live_lib.duplex
  return hold(config, vad="energy", endpoint_seconds=turns_lib.ENDPOINT_SECONDS)


def turns(
  part: user.UserPart,
  live: session.Session,
  *,
  config: Config,
  make_vad: Callable[[], vad_lib.Vad],
  endpoint_seconds: float,
) -> live_lib.Talk:
  """One conversation; see the module. With its options, a `live.Hold`.

  Args:
    part: the user.
    live: the session of the model.
    config: of the run.
    make_vad: makes a detector of the conversation's own.
    endpoint_seconds: without speech, that end a turn.

  Returns:
    Frames on the clock of the user: what was perceived in each window, with
    the sound that the agent made in it and all that it decided at its end.
  """
  frames: list[Frame] = []
  detector, endpointer = make_vad(), endpoint.Endpointer(endpoint_seconds)
  ear = session.Session(config, seed=live.seed)  # on the user's clock
  waiting: list[int] = []  # windows of turns that the model has not heard
  replying = False
  for k in range(len(part)):
    perceived = part.perceive(ear)
    ear.window += 1
    turn = endpointer.push(
      detector.push(part.samples(k)), hop=detector.hop, brings=part.brings(k)
    )
    if turn is not None:
      waiting += turn.windows
    decided: list[Frame] = []
    own = None
    if replying:
      decided.append(
        (yield live_lib.Step(live.perceive(None), k, quiet=endpointer.in_turn))
      )
      own = decided[0].own_dmel
      replying = _goes_on(decided[0]) and not endpointer.in_turn
    if waiting and not replying and not endpointer.in_turn:
      yield from _deliver(part, live, windows=waiting, now=k)
      waiting = []
      for _ in range(_ASKED):
        decided.append((yield live_lib.Step(live.perceive(None), k)))
        replying = _goes_on(decided[-1])
        if decided[-1].speak or not replying:
          break
    frames.append(_joined(perceived, decided, own=own))
  return frames


def _deliver(
  part: user.UserPart, live: session.Session, *, windows: list[int], now: int
) -> Generator[live_lib.Step, Frame, None]:
  """The model perceives these windows, and typed text to its end."""
  for window in windows:
    yield live_lib.Step(part.deliver(live, window=window), now, quiet=True)
  while live.has_text:
    yield live_lib.Step(live.perceive(None), now, quiet=True)


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
