"""How the user of an item and a session are connected.

For: `run.converse`, which holds many conversations in one pool. Not for: what
they are scored by. Start at `duplex`; a harness is in `turn_based`.
"""

import dataclasses
from collections.abc import Callable, Generator

from tml_jax.live import session, user
from tml_jax.streams.frame import Frame


@dataclasses.dataclass(frozen=True)
class Step:
  """The next frame of a conversation, for the model.

  Attributes:
    inputs: what it perceives.
    window: of the user's clock, at whose end this is.
    quiet: it is not asked what it says.
  """

  inputs: Frame
  window: int
  quiet: bool = False


# Given the finished frame of each step; returns the frames of the recording.
Talk = Generator[Step, Frame, list[Frame]]
Hold = Callable[[user.UserPart, session.Session], Talk]


def duplex(part: user.UserPart, live: session.Session) -> Talk:
  """Window by window: what the user does is heard, and answered, at once."""
  frames = []
  while len(frames) < len(part):
    frames.append((yield Step(part.perceive(live), window=live.window)))
  return frames
