"""How the user of an item and a session are connected.

For: `run.converse`, which holds many conversations in one pool. Not for: what
they are scored by. Start at `duplex`; a harness is in `turn_based`.
"""

import dataclasses
from collections.abc import Callable, Generator

from tml_jax.sampling import session, user
from tml_jax.streams.frame import Frame


@dataclasses.dataclass(frozen=True)
class Step:
  """The next frame of a session.

  Attributes:
    inputs: what the model perceives.
    quiet: it is not asked what it says.
  """

  inputs: Frame
  quiet: bool = False


# Yields the steps of a conversation and is sent the finished frame of each;
# appends a frame for every window of time to the list.
Steps = Generator[Step, Frame, None]
Hold = Callable[[user.UserPart, session.Session, list[Frame]], Steps]


def duplex(
  part: user.UserPart, live: session.Session, frames: list[Frame]
) -> Steps:
  """Window by window: all is perceived, and may be answered, at once."""
  while len(frames) < len(part):
    frames.append((yield Step(part.perceive(live))))
