"""The host side of one session: clock, microphone, own sound, typed text.

For: what has to be remembered of a conversation besides the model's cache.
Not for: running sessions (`pool`) or keeping what was said: whoever holds a
session takes the finished frames. A window goes: `Session.receive` ->
`SessionPool.tick` -> `Session.play`.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.config import Config, StreamsConfig
from tml_jax.live.transport import Arrived
from tml_jax.streams import clock, dmel
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import patches as patches_lib
from tml_jax.streams.frame import Control, Frame

_MOST_SEED = 2**31 - 1
_MOST_WINDOW = 2**30  # years; windows are int32 on the device
_MOST_CLIPPED = _MOST_WINDOW * clock.SAMPLE_RATE


class Senses(enum.Enum):
  """What a window may bring; each compiles a tick of its own size."""

  SOUND = "sound"
  ALL = "sound, typed text and video"


class Session:
  """One conversation. Input that cannot be used changes nothing in it.

  Attributes:
    seed: of every draw.
    window: index of the window that comes next.
    clipped: samples so far that were beyond -1..1 and were cut off there.
  """

  def __init__(self, config: Config, *, seed: int):
    self._config = config
    self._grid = clock.of(config.streams)
    self._microphone = dmel.DmelStream(self._grid)
    self._typed = frame_lib.TextQueue()
    self._own_mel: np.ndarray | None = None
    self.seed = seed
    self.window = 0
    self.clipped = 0

  def type(self, channel: Control, tokens: Sequence[int]) -> None:
    """Queues typed text or a result for the coming windows.

    Raises:
      errors.UserError: tokens that are no text.
    """
    rows = self._config.streams.text_vocab_size
    wrong = [int(token) for token in tokens if not 0 <= token < rows]
    if wrong or channel not in frame_lib.CHANNELS_IN:
      raise errors.UserError(
        f"{channel.name} with tokens {wrong[:4]}: typed text and results are"
        f" made of text tokens, 0 to {rows - 1}"
      )
    self._typed.push(channel, [int(token) for token in tokens])

  @property
  def has_text(self) -> bool:
    """Whether typed text waits to be read."""
    return bool(self._typed)

  def receive(self, arrived: Arrived) -> Frame:
    """The inputs of the next window, as `type` and `perceive` take them."""
    for channel, tokens in arrived.typed:
      self.type(channel, tokens)
    return self.perceive(arrived.samples, images=arrived.images)

  def perceive(
    self, samples: np.ndarray | None, *, images: Sequence[np.ndarray] = ()
  ) -> Frame:
    """The inputs of the next window.

    Args:
      samples: [grid.samples] from the microphone, floats in -1..1; None where
        the window was lost, which the model sees as such.
      images: video frames of the window, sized as the config says.

    Raises:
      errors.UserError: what is wrong with samples or images. The session may
        go on with None in their place.
    """
    streams = self._config.streams
    for image in images:
      _check_image(image, streams)
    silence = np.zeros(self._grid.samples, np.float32)
    heard = silence if samples is None else self._clean(samples)
    levels = self._microphone.push(heard)
    own = self._own_mel
    return Frame(
      window=self.window,
      own_dmel=None if own is None else dmel.pool_fine(own),
      user_dmel=None if samples is None else levels,
      patches=patches_lib.cut(
        list(images), height=streams.video_height, width=streams.video_width
      ),
      text_in=self._typed.take(streams.max_text_in),
    )

  def _clean(self, samples: np.ndarray) -> np.ndarray:
    """Samples of one window, cut off at full scale."""
    samples = np.asarray(samples)
    if samples.dtype.kind != "f":
      raise errors.UserError(
        f"window {self.window}: samples are {samples.dtype}; give floats"
        " between -1 and 1"
      )
    want, ms = self._grid.samples, self._grid.ms
    if samples.shape != (want,):
      rate = samples.size * 1000 / ms
      raise errors.UserError(
        f"window {self.window}: samples of shape {samples.shape}, which would"
        f" be {ms} ms at {rate:g} Hz; give ({want},), {ms} ms at"
        f" {clock.SAMPLE_RATE} Hz mono"
      )
    if not np.isfinite(samples).all():
      raise errors.UserError(
        f"window {self.window}: {int((~np.isfinite(samples)).sum())} samples"
        " are NaN or infinite; give None for a window that was lost"
      )
    self.clipped += int((np.abs(samples) > 1).sum())
    return np.clip(samples, -1, 1).astype(np.float32)

  def play(self, frame: Frame, *, tokens: list[int], mel: np.ndarray) -> Frame:
    """Takes the decision on `frame`; its sound is own audio from now on.

    Args:
      frame: what `perceive` gave.
      tokens: output tokens, the decision last.
      mel: [grid.fine_frames, 80] log10 fine mel, used if the decision is
        `<speak>`.
    """
    outputs = frame_lib.parse_outputs(tokens, config=self._config.streams)
    self._own_mel = mel if outputs.speak else None
    self.window += 1
    return dataclasses.replace(
      frame,
      say=outputs.say,
      text_out=outputs.text_out,
      speak=outputs.speak,
      target_mel=self._own_mel,
    )

  def state(self) -> dict[str, Any]:
    """All of it, as numbers, strings and lists of them."""
    own = self._own_mel
    return {
      "seed": self.seed,
      "window": self.window,
      "clipped": self.clipped,
      "microphone": self._microphone.past.tolist(),
      "own_mel": None if own is None else own.tolist(),
      "typed": [[int(c), each] for c, each in self._typed.waiting.items()],
    }

  @classmethod
  def of_state(cls, config: Config, *, state: dict[str, Any]) -> "Session":
    """The inverse of `state`, with the checks of live input.

    Raises:
      errors.UserError: what of it no session of this config has.
    """
    session = cls(config, seed=_whole(state, "seed", most=_MOST_SEED))
    session.window = _whole(state, "window", most=_MOST_WINDOW)
    session.clipped = _whole(state, "clipped", most=_MOST_CLIPPED)
    past = session._microphone.past
    session._microphone.past = _floats(
      state, "microphone", shape=past.shape, bounds=(-1, 1)
    )
    if state.get("own_mel", ()) is not None:
      session._own_mel = _floats(
        state,
        "own_mel",
        shape=(session._grid.fine_frames, clock.MEL_CHANNELS),
        bounds=(dmel.LOG_MIN, dmel.LOG_MAX),
      )
    try:
      for channel, messages in state["typed"]:
        for tokens in messages:
          if not all(type(token) is int for token in tokens):
            raise TypeError("tokens are whole numbers")
          session.type(Control(channel), tokens)
    except (KeyError, TypeError, ValueError) as error:
      raise _no_state("typed", f"{error!r}") from error
    return session


def _no_state(name: str, what: str) -> errors.UserError:
  return errors.UserError(
    f"no state of a session: {name}: {what}; save the session again"
  )


def _whole(state: dict[str, Any], name: str, *, most: int) -> int:
  """A whole number from 0 to `most`."""
  value = state.get(name)
  if type(value) is not int or not 0 <= value <= most:
    raise _no_state(name, f"{value!r:.40} is no number from 0 to {most}")
  return value


def _floats(
  state: dict[str, Any],
  name: str,
  *,
  shape: tuple[int, ...],
  bounds: tuple[float, float],
) -> np.ndarray:
  """Numbers of a shape, all within bounds."""
  try:
    found = np.array(state.get(name), np.float32)
  except (TypeError, ValueError, OverflowError) as error:
    raise _no_state(name, "no numbers of one shape") from error
  low, high = (np.float32(bound) for bound in bounds)
  if found.shape != shape:
    raise _no_state(name, f"of shape {found.shape}, not {shape}")
  if not ((found >= low) & (found <= high)).all():  # NaN is not either
    raise _no_state(name, f"numbers beyond {low:g} to {high:g}")
  return found


def _check_image(image: np.ndarray, streams: StreamsConfig) -> None:
  want = (streams.video_height, streams.video_width, 3)
  if image.shape != want or image.dtype != np.uint8:
    raise errors.UserError(
      f"a video frame is {image.dtype} of shape {image.shape}; resize it to"
      f" uint8 {want}, the config's streams.video_height and video_width"
    )
