"""A pool that ticks a real model and then answers by rule.

For: tests of what lies around the pool (server, page), which need an answer
to every sound. Not for: what a model decides. Start at `AnsweringPool.tick`.

When the user begins to make sound the agent speaks a tone for some windows:
it says words, shows a text, draws and calls the calculator. When the user
begins again while it speaks, it gives way.
"""

import dataclasses
import weakref

import numpy as np

from tml_jax.live import pool as pool_lib
from tml_jax.live.session import Session
from tml_jax.streams.frame import Burst, Control, Frame

FREQUENCY = 440.0
RATE = 16_000
SPEAKING = 10  # windows
PAUSE = 2  # windows without sound, after which sound is a beginning
LOUD = 6  # dMel level, on the mean over channels of the loudest token
STROKES = ("M0 0 L4 0 ", "L4 6 ", "L0 6 Z")


@dataclasses.dataclass
class _Rule:
  """Where one session is.

  Attributes:
    quiet: windows without sound of the user.
    left: windows to speak.
  """

  quiet: int = PAUSE
  left: int = 0

  def next(self, heard: Frame) -> bool:
    """Whether the agent speaks in the next window."""
    sound = heard.user_dmel is not None and (
      heard.user_dmel.mean(axis=1).max() > LOUD
    )
    begins = sound and self.quiet >= PAUSE
    self.quiet = 0 if sound else self.quiet + 1
    if begins:
      self.left = 0 if self.left else SPEAKING
    elif self.left:
      self.left -= 1
    return self.left > 0


class AnsweringPool(pool_lib.SessionPool):
  """Costs what the model costs and says what the rule says.

  Its tokenizer is `tests.helpers.frames.ByteTokenizer`.
  """

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self._rules = weakref.WeakKeyDictionary()

  def tick(self, inputs: dict[Session, Frame], **more) -> pool_lib.Ticked:
    ticked = super().tick(inputs, **more)
    frames, sounds = {}, {}
    for session, heard in inputs.items():
      rule = self._rules.setdefault(session, _Rule())
      speak = rule.next(heard)
      done = SPEAKING - rule.left
      frames[session] = dataclasses.replace(
        ticked.frames[session],
        speak=speak,
        say=tuple(f"word{done} ".encode()) if speak else (),
        text_out=_texts(done) if speak else (),
      )
      sounds[session] = _tone(done, samples=ticked.sounds[session].size)
      if not speak:
        sounds[session][:] = 0
    return dataclasses.replace(ticked, frames=frames, sounds=sounds)


def _texts(done: int) -> tuple[Burst, ...]:
  texts = []
  if done == 0:
    texts.append(Burst(Control.SHOW, tuple(b"<b>shown"), True))
  if done < len(STROKES):
    last = done == len(STROKES) - 1
    texts.append(Burst(Control.DRAW, tuple(STROKES[done].encode()), last))
  if done == 3:
    texts.append(Burst(Control.CALL, tuple(b"calculator 3+4"), True))
  return tuple(texts)


def _tone(window: int, *, samples: int) -> np.ndarray:
  times = np.arange(window * samples, (window + 1) * samples) / RATE
  return (0.3 * np.sin(2 * np.pi * FREQUENCY * times)).astype(np.float32)
