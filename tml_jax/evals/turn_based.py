"""The harness of today's voice agents around the model: listen, then speak.

For: the baseline that an interaction model is compared with, on the same users
and the same clock. Not for: its training data (`data.turns`, the same rules).
Start at `turns`.

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
from typing import Any

import numpy as np

from tml_jax.config import Config
from tml_jax.evals import run
from tml_jax.models import interaction
from tml_jax.sampling import session, user
from tml_jax.sampling import vad as vad_lib
from tml_jax.streams import endpoint
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams import tokenizer as tokenizer_lib
from tml_jax.streams.frame import Frame

_ASKED = 4  # windows of messages that are written within one window of time


def converse_turns(
  config: Config,
  *,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  timelines: list[timeline_lib.Timeline],
  tokenizer: tokenizer_lib.Tokenizer,
  vad: Callable[[], vad_lib.Vad],
  endpoint_seconds: float,
  title: str,
) -> run.Live:
  """`run.converse` behind turn detection; a frame for every window of time.

  Args:
    vad: makes a detector; each conversation has its own.
    endpoint_seconds: without speech, that end a turn.
  """
  return run.converse(
    config,
    model=model,
    variables=variables,
    timelines=timelines,
    tokenizer=tokenizer,
    title=title,
    hold=functools.partial(
      turns, config=config, vad=vad, endpoint_seconds=endpoint_seconds
    ),
  )


def turns(
  part: user.UserPart,
  live: session.Session,
  *,
  config: Config,
  vad: Callable[[], vad_lib.Vad],
  endpoint_seconds: float,
) -> run.Talk:
  """One conversation; see the module.

  Returns:
    Frames on the clock of the user: what was perceived in each window, with
    the sound that the agent made in it and all that it decided at its end.
  """
  detector, endpointer = vad(), endpoint.Endpointer(endpoint_seconds)
  ear = session.Session(config, seed=live.seed)  # on the user's clock
  recording: list[Frame] = []
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
        (yield run.Step(live.perceive(None), quiet=endpointer.in_turn))
      )
      own = decided[0].own_dmel
      replying = _goes_on(decided[0]) and not endpointer.in_turn
    if waiting and not replying and not endpointer.in_turn:
      yield from _deliver(part, live, windows=waiting)
      waiting = []
      for _ in range(_ASKED):
        decided.append((yield run.Step(live.perceive(None))))
        replying = _goes_on(decided[-1])
        if decided[-1].speak or not replying:
          break
    recording.append(_joined(perceived, decided, own=own))
  return recording


def _deliver(
  part: user.UserPart, live: session.Session, *, windows: list[int]
) -> Generator[run.Step, Frame, None]:
  """The model perceives these windows, and typed text to its end."""
  for window in windows:
    yield run.Step(part.deliver(live, window=window), quiet=True)
  while live.has_text:
    yield run.Step(live.perceive(None), quiet=True)


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
