"""Conversations from drawings, to be played to an agent that may do anything.

For: tests of users who react. Not for: composed conversations (`families`), or
logs (`drawn`). Start at `script`. One letter a tick: `u` user, `a` recorded
agent, `b` both, `e` something else.
"""

from collections.abc import Callable, Iterable

import numpy as np

from tml_jax.live.reacting import Reacting, Users
from tml_jax.streams import annotation, clock
from tml_jax.streams.annotation import Annotation
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  VideoFrame,
  Word,
)

_SIZE = clock.TICKS.samples


def script(
  drawing: str, *asked: Annotation, typed: dict[int, str] | None = None
) -> Timeline:
  """A conversation with noise, and a picture whose colour is its tick."""
  random = np.random.default_rng(len(drawing))
  noise = random.normal(size=(2, len(drawing), _SIZE)).astype(np.float32)
  tracks = []
  for role, letters in (
    (Role.USER, "ub"),
    (Role.AGENT, "ab"),
    (Role.ENVIRONMENT, "e"),
  ):
    active = np.array([letter in letters for letter in drawing])
    if role == Role.ENVIRONMENT and not active.any():
      continue
    audio = np.float32(0.2) * active[:, None] * noise[0]
    if role == Role.USER:
      audio += np.float32(0.001) * noise[1]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active, [0]])))
    spans = tuple(
      Span(float(a) * 0.2, float(b) * 0.2) for a, b in edges.reshape(-1, 2)
    )
    words = tuple(Word(s.start, s.end, f"w{i}") for i, s in enumerate(spans))
    track = Track(role, audio.reshape(-1), words, spans, str(role))
    tracks.append(track)
  items = sorted(asked, key=lambda a: (a.start, a.end))
  return Timeline(
    id=f"drawn/{drawing}",
    duration=len(drawing) * clock.TICKS.ms / 1000,
    tracks=tuple(tracks),
    video=tuple(
      VideoFrame(k * 0.2 + 0.05, np.full((8, 8, 3), k, np.uint8))
      for k in range(len(drawing))
    ),
    events=tuple(
      Event(k * 0.2 + 0.1, EventKind.USER_TEXT, text)
      for k, text in (typed or {}).items()
    ),
    metadata={annotation.KEY: [annotation.to_json(a) for a in items]},
  )


def play(
  made: Timeline,
  agent: Callable[[int, int], bool] | Iterable[bool],
  *,
  users: Users = Users.REACTING,
) -> Reacting:
  """Holds the conversation.

  Args:
    made: the script.
    agent: whether it sounds, by tick and the script's window that comes next;
      or its ticks, silent behind them.
    users: whether they react.
  """
  user = Reacting(made, users=users)
  if not callable(agent):
    bits = list(agent)
    agent = lambda tick, _: tick < len(bits) and bits[tick]  # noqa: E731
  while user.next(bool(agent(len(user.steps), user.position))) is not None:
    pass
  return user


def drawing(user: Reacting) -> str:
  """What happened, a letter a tick; `-` where the user waited in silence."""
  held = user.told
  result = []
  spoken = np.zeros(len(user.steps) + 1, bool)
  for span in held.track(Role.USER).spans:
    first = clock.TICKS.window_of(span.start)
    spoken[first : clock.TICKS.num_windows(span.end)] = True
  for k, step in enumerate(user.steps):
    if spoken[k]:
      result.append("b" if step.sounds else "u")
    elif step.sounds:
      result.append("a")
    else:
      result.append("-" if step.position is None else ".")
  return "".join(result)
