"""The user's part of a session: a timeline played window by window.

For: whoever lets a model hear files or the user of a scenario. Not for: live
devices, or for a user who reacts (`reacting_part`). Start reading at
`UserPart`, then `Recorded`, the transport that plays it; `from_files` makes the
timeline of what is given to `sample`.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Protocol

import numpy as np
from absl import logging

from tml_jax import errors
from tml_jax.config import StreamsConfig
from tml_jax.data import audio as audio_lib
from tml_jax.data import media, source
from tml_jax.live import session
from tml_jax.live.transport import Answer, Arrived
from tml_jax.streams import clock, framing, microphone
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.endpoint import Brings
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Timeline,
  Track,
  VideoFrame,
)
from tml_jax.streams.tokenizer import Tokenizer


class Tool(Protocol):
  """What answers the calls that a model makes in a conversation."""

  def take(
    self, window: int, frame: Frame, *, reached: int
  ) -> list[tuple[int, list[int]]]:
    """Hears a frame; gives results and the windows in which they arrive.

    Args:
      window: of the conversation.
      frame: of it.
      reached: the window of the script that the user has come to.
    """


class Part(Protocol):
  """One side of a conversation: `UserPart` or `ReactingPart`.

  Attributes:
    grid: of the windows.
    timeline: what has happened so far.
  """

  grid: clock.Grid

  @property
  def timeline(self) -> Timeline: ...

  def has(self, window: int) -> bool:
    """Whether the conversation goes on, all windows before being taken."""

  def window(self, k: int) -> Arrived:
    """All that window `k` brings."""

  def samples(self, window: int) -> np.ndarray:
    """[grid.samples] of the microphone."""

  def brings(self, window: int) -> Brings:
    """What a window holds besides sound."""

  def take(self, frame: Frame) -> None:
    """What the model decided in the next window."""


class UserPart:
  """What the user of a timeline says, shows and types, in order.

  Attributes:
    grid: of the windows.
    timeline: of the user.
  """

  def __init__(
    self,
    timeline: Timeline,
    *,
    tokenizer: Tokenizer,
    grid: clock.Grid,
    tool: Tool | None = None,
  ):
    """Starts at the first window.

    Args:
      timeline: of the user.
      tokenizer: of the run.
      grid: of the windows.
      tool: whose results are typed beside what the timeline types.
    """
    self.grid, self.timeline = grid, timeline
    self._tool, self._taken = tool, 0
    self._samples = microphone.hear(timeline, grid=grid)
    self._images: dict[int, list[np.ndarray]] = {}
    for image in timeline.video:
      self._images.setdefault(grid.window_of(image.time), []).append(
        image.image
      )
    self._typed: dict[int, list[tuple[Control, list[int]]]] = {}
    for event in sorted(timeline.events, key=lambda event: event.time):
      if event.kind in framing.TYPED:
        self._typed.setdefault(grid.window_of(event.time), []).append(
          (framing.TYPED[event.kind], tokenizer.encode(event.text))
        )

  def __len__(self) -> int:
    """Windows."""
    return len(self._samples)

  def has(self, window: int) -> bool:
    """Whether the conversation goes on."""
    return window < len(self)

  @property
  def senses(self) -> set[session.Senses]:
    """The kinds of window that the user brings."""
    found = {session.Senses.SOUND}
    if self._images or self._typed or self._tool:
      found.add(session.Senses.ALL)
    return found

  def take(self, frame: Frame) -> None:
    """What the model decided in the next window, for the tool."""
    window, self._taken = self._taken, self._taken + 1
    if self._tool is None:
      return
    for at, tokens in self._tool.take(window, frame, reached=window):
      typed = self._typed.setdefault(max(at, window + 1), [])
      typed.append((Control.RESULT, tokens))

  def check_room(self, config: StreamsConfig) -> None:
    """Refuses typed text that is not read to its end in the session.

    Raises:
      errors.UserError: how much is left over.
    """
    queue = frame_lib.TextQueue()
    for k in range(len(self)):
      for channel, tokens in self._typed.get(k, ()):
        queue.push(channel, tokens)
      queue.take(config.max_text_in)
    if queue:
      more = 0
      while queue:
        queue.take(config.max_text_in)
        more += 1
      raise errors.UserError(
        f"the typed text needs {more * self.grid.seconds:.1f} s more than the"
        f" session's {len(self) * self.grid.seconds:.1f} s: the model reads"
        f" streams.max_text_in = {config.max_text_in} tokens a window; raise"
        " --tail, type earlier or type less"
      )

  def window(self, k: int) -> Arrived:
    """All that window `k` brings."""
    return Arrived(
      samples=self._samples[k],
      images=self._images.get(k, ()),
      typed=self._typed.get(k, ()),
    )

  def samples(self, window: int) -> np.ndarray:
    """[grid.samples] of the microphone."""
    return self._samples[window]

  def brings(self, window: int) -> Brings:
    """What a window holds besides sound."""
    if window in self._typed:
      return Brings.TEXT
    return Brings.PICTURES if window in self._images else Brings.NOTHING


def _unheard(sound: np.ndarray) -> None:
  """Nobody listens."""


class Recorded:
  """A transport: the user of a part, as fast as the model answers.

  Attributes:
    frames: of the conversation so far, one per window.
    seconds: that each took, see `Answer`.
    play: given the sound of every window, where there is a voice.
  """

  def __init__(self, part: Part, *, lost: frozenset[int] = frozenset()):
    """Starts at the first window; sound and video of `lost` do not arrive."""
    self._part, self._lost = part, lost
    self.play: Callable[[np.ndarray], None] = _unheard
    self.frames: list[Frame] = []
    self.seconds: list[float] = []

  def bring(self) -> Arrived | None:
    k = len(self.frames)
    if not self._part.has(k):
      return None
    arrived = self._part.window(k)
    if k in self._lost:
      return dataclasses.replace(arrived, samples=None, images=())
    return arrived

  def take(self, answer: Answer) -> None:
    """Keeps the frame.

    Raises:
      errors.UserError: the user is not one that the model can hear.
    """
    if answer.refused:
      raise answer.refused
    if answer.sound is not None:
      self.play(answer.sound)
    self.frames.append(answer.frame)
    self.seconds.append(answer.seconds)
    self._part.take(answer.frame)


def losses(windows: int, *, share: float, seed: int) -> frozenset[int]:
  """Windows that a connection loses, at random."""
  draws = np.random.default_rng(seed).random(windows)
  return frozenset(np.flatnonzero(draws < share).tolist())


@dataclasses.dataclass(frozen=True)
class Line:
  """Typed text with its time in seconds."""

  time: float
  text: str


def parse_line(argument: str) -> Line:
  """Reads "SECONDS:TEXT".

  Raises:
    errors.UserError: anything else.
  """
  seconds, colon, text = argument.partition(":")
  try:
    time = float(seconds)
  except ValueError:
    time = float("nan")
  try:
    text.encode()
  except UnicodeEncodeError:  # bytes of the command line that are no UTF-8
    text = ""
  if not colon or not text.strip() or not 0 <= time < float("inf"):
    raise errors.UserError(
      f"--text={argument!r}: write SECONDS:TEXT in UTF-8, for instance "
      "--text='2.5:hello'"
    )
  return Line(time, text)


def from_files(
  audio_path: str,
  *,
  video_path: str,
  video_fps: float,
  lines: list[Line],
  tail: float,
  config: StreamsConfig,
) -> Timeline:
  """The timeline of a recorded user.

  Args:
    audio_path: any rate, channels and format that `media` reads.
    video_path: a clip that starts with the audio, perhaps the same file; ""
      without one.
    video_fps: frames a second that are kept of it.
    lines: typed text.
    tail: seconds of silence behind the audio.
    config: for the size of video frames.

  Raises:
    errors.UserError: a file or a time that cannot be used.
  """
  samples = read_audio(audio_path)
  duration = len(samples) / clock.SAMPLE_RATE + tail
  for line in lines:
    if line.time >= duration:
      raise errors.UserError(
        f"--text='{line.time:g}:{line.text}' comes after the session's end at "
        f"{duration:.1f} s; raise --tail or type earlier"
      )
  video: tuple[VideoFrame, ...] = ()
  if video_path:
    video = read_video(
      video_path,
      fps=video_fps,
      seconds=duration,
      height=config.video_height,
      width=config.video_width,
    )
  return Timeline(
    id=os.path.basename(audio_path),
    duration=duration,
    tracks=(
      Track(
        role=Role.USER,
        audio=samples,
        words=(),
        spans=tuple(
          audio_lib.speech_spans(samples, name=f"--input={audio_path}")
        ),
        voice=os.path.basename(audio_path),
      ),
    ),
    video=video,
    events=tuple(
      Event(line.time, EventKind.USER_TEXT, line.text) for line in lines
    ),
  )


def read_audio(path: str) -> np.ndarray:
  """[n] float32 at 16 kHz of a file of sound; channels are averaged.

  Raises:
    errors.UserError: missing, broken or not sound.
  """
  try:
    samples = media.sound(path)
  except source.BadRecording as error:
    raise errors.UserError(f"--input={path}: {error}") from error
  if len(samples) > 1:
    logging.warning(
      "--input=%s: its %d channels are averaged", path, len(samples)
    )
  return samples.mean(axis=0)


def read_video(
  path: str, *, fps: float, seconds: float, height: int, width: int
) -> tuple[VideoFrame, ...]:
  """Frames of a clip by capture time, at most `fps` a second.

  Raises:
    errors.UserError: missing, broken, or without a picture.
  """
  try:
    return media.pictures(
      path, fps=fps, seconds=seconds, height=height, width=width
    )
  except source.BadRecording as error:
    raise errors.UserError(
      f"--video={path}: {error}; try to play it, or convert it: ffmpeg -i"
      f" {path} converted.mp4"
    ) from error
