"""The user's part of a session: a timeline played window by window.

For: whoever feeds a `session.Session` from files or from a scenario.
Not for: live devices. Start reading at `UserPart`; `from_files` makes the
timeline of what is given to `sample`.
"""

import dataclasses
import os

import numpy as np
from absl import logging

from tml_jax import errors
from tml_jax.config import StreamsConfig
from tml_jax.data import audio as audio_lib
from tml_jax.data import media, source
from tml_jax.live import session
from tml_jax.streams import clock
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

_CHANNELS = {
  EventKind.USER_TEXT: Control.USER_TEXT,
  EventKind.RESULT: Control.RESULT,
}


def microphone(timeline: Timeline, *, grid: clock.Grid) -> np.ndarray:
  """[windows, samples] float32: everything but the agent's own track."""
  count = grid.num_windows(timeline.duration)
  audio = np.zeros(count * grid.samples, np.float32)
  for track in timeline.tracks:
    if track.role != Role.AGENT:
      audio[: len(track.audio)] += track.audio
  return audio.reshape(count, grid.samples)


class UserPart:
  """What the user of a timeline says, shows and types, in order.

  Attributes:
    grid: of the windows.
  """

  def __init__(
    self, timeline: Timeline, *, tokenizer: Tokenizer, grid: clock.Grid
  ):
    self.grid = grid
    self._samples = microphone(timeline, grid=grid)
    self._images: dict[int, list[np.ndarray]] = {}
    for image in timeline.video:
      self._images.setdefault(grid.window_of(image.time), []).append(
        image.image
      )
    self._typed: dict[int, list[tuple[Control, list[int]]]] = {}
    for event in sorted(timeline.events, key=lambda event: event.time):
      if event.kind in _CHANNELS:
        self._typed.setdefault(grid.window_of(event.time), []).append(
          (_CHANNELS[event.kind], tokenizer.encode(event.text))
        )

  def __len__(self) -> int:
    """Windows."""
    return len(self._samples)

  @property
  def senses(self) -> set[session.Senses]:
    """The kinds of window that the user brings."""
    found = {session.Senses.SOUND}
    if self._images or self._typed:
      found.add(session.Senses.ALL)
    return found

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

  def perceive(self, live: session.Session, *, heard: bool = True) -> Frame:
    """The inputs of the session's next window; sound and video if `heard`."""
    return self.deliver(live, window=live.window, heard=heard)

  def deliver(
    self, live: session.Session, *, window: int, heard: bool = True
  ) -> Frame:
    """The same of any window, for a session that is not on the clock."""
    for channel, tokens in self._typed.get(window, ()):
      live.type(channel, tokens)
    if not heard:
      return live.perceive(None)
    return live.perceive(
      self._samples[window], images=self._images.get(window, [])
    )

  def samples(self, window: int) -> np.ndarray:
    """[grid.samples] of the microphone."""
    return self._samples[window]

  def brings(self, window: int) -> Brings:
    """What a window holds besides sound."""
    if window in self._typed:
      return Brings.TEXT
    return Brings.PICTURES if window in self._images else Brings.NOTHING


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
  video = ()
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
