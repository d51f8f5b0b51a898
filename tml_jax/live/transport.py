"""What brings the windows of a conversation and takes what was decided.

For: whoever connects a conversation to somebody: files (`user.Recorded`), the
wall clock (`realtime`), the user of an evaluation, a socket. Not for: what
happens to a window in between (`conversation`). Start at `Transport`. Nothing
here imports jax.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tml_jax import errors
from tml_jax.streams.frame import Control, Frame


class Past(enum.Enum):
  """What the model knows of the conversation when a window arrives."""

  ALL = "all of it"
  KEPT = "all of it; and how it was before this window is kept"
  AS_KEPT = "what it knew before the window that was KEPT, and no more"


@dataclasses.dataclass(frozen=True)
class Arrived:
  """What came in for one window.

  Attributes:
    samples: [grid.samples] of the microphone; None where the window was lost.
    images: video frames of the window.
    typed: text tokens by channel, to be read from now on.
    is_asked: false where the model only listens: its frame ends with
      `<quiet>`.
    past: what has been. Tools and results are not taken back.
  """

  samples: np.ndarray | None
  images: Sequence[np.ndarray] = ()
  typed: Sequence[tuple[Control, Sequence[int]]] = ()
  is_asked: bool = True
  past: Past = Past.ALL


@dataclasses.dataclass(frozen=True)
class Answer:
  """What came of one window.

  Attributes:
    frame: the finished frame.
    sound: [grid.samples] to play in the next window, the vocoder's delay
      late; None in a pool without a voice.
    messages: what was shown (`SHOW`) and drawn (`DRAW`: its strokes), each
      when it is complete.
    is_reading: whether typed text still waits to be read.
    refused: what was wrong with the input, which was absent then.
    seconds: wall-clock time from perceived windows to decisions and sound, of
      all sessions that were ticked together.
  """

  frame: Frame
  sound: np.ndarray | None
  messages: tuple[tuple[Control, str], ...]
  is_reading: bool
  refused: errors.UserError | None
  seconds: float


class Transport(Protocol):
  """One end of a conversation; the two calls take turns."""

  def bring(self) -> Arrived | None:
    """The next window; None when the conversation is over."""

  def take(self, answer: Answer) -> None:
    """What the model made of it; keeps what is to be kept."""
