"""From a timeline in seconds to frames, one per micro-turn.

For: the step between a source and the packer, in training and in evaluation
by teacher forcing. Not for: the token grammar (`frame`). Start at `frames`.
"""

import collections
import dataclasses

import numpy as np
from absl import logging

from tml_jax.config import SayText, StreamsConfig
from tml_jax.streams import clock, dmel, microphone, patches
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.timeline import EventKind, Role, Timeline
from tml_jax.streams.tokenizer import Tokenizer

TYPED = {  # channels of what is perceived
  EventKind.USER_TEXT: Control.USER_TEXT,
  EventKind.RESULT: Control.RESULT,
}
WRITTEN = {  # channels of what the agent writes
  EventKind.SHOW: Control.SHOW,
  EventKind.DRAW: Control.DRAW,
  EventKind.CALL: Control.CALL,
}

# Seconds by which a recording is continued for its text. 32 tokens a window of
# 200 ms are some 15,000 letters: more is a fault of the data.
MAX_SILENCE = 30.0

# text_in, say and text_out of a frame.
_Text = tuple[
  tuple[frame_lib.Burst, ...], tuple[int, ...], tuple[frame_lib.Burst, ...]
]


@dataclasses.dataclass(frozen=True)
class Stretch:
  """Windows of a recording that is too long to be taken at once.

  Attributes:
    first: the first window that is trained on.
    stop: the window behind the last; None for all that is left.
    past: windows before `first` that are there again, without a loss.
  """

  first: int
  stop: int | None
  past: int

  def lasts(self, duration: float, *, grid: clock.Grid) -> float:
    """Seconds of it with its past, in a recording of so many."""
    stop = duration if self.stop is None else self.stop * grid.ms / 1000
    first = max(0, self.first - self.past) * grid.ms / 1000
    return min(stop, duration) - first

  def seconds(self, grid: clock.Grid) -> tuple[float, float]:
    """From where to where the frames need sound and pictures.

    A window's sound depends on a little before it; the last frame has the sound
    of the window after it.
    """
    stop = np.inf if self.stop is None else self.stop + 1
    first = max(0, self.first - self.past - 1)
    return first * grid.ms / 1000, stop * grid.ms / 1000


WHOLE = Stretch(0, None, 0)


@dataclasses.dataclass(frozen=True)
class Excerpt:
  """A stretch of a recording.

  Attributes:
    timeline: with the words, events and duration of the whole, and the sound
      and pictures that the frames of the stretch need (`Stretch.seconds`).
    stretch: which windows.
  """

  timeline: Timeline
  stretch: Stretch


def frames(
  timeline: Timeline,
  *,
  config: StreamsConfig,
  tokenizer: Tokenizer,
  stretch: Stretch = WHOLE,
) -> list[Frame]:
  """Lays a recording on the grid.

  The microphone hears the user's and the environment's tracks together,
  unless it is muted.
  Speech that sounds in window w was decided in frame w - 1, its text
  `config.say_lead` frames before that at the latest, or left out as
  `config.say_text` has it. Text that overflows
  goes on in later frames; the recording is continued in silence until all
  of it has been placed, for `MAX_SILENCE` at most: the rest of the text is
  left out, with a warning.

  Args:
    timeline: the recording; of a stretch the sound and the pictures of
      `Stretch.seconds` are enough, with the words and events of the whole.
    config: sizes and rates.
    tokenizer: of the text.
    stretch: which windows; the frames of stretches that join are those of the
      whole.

  Returns:
    One frame per window.

  Raises:
    ValueError: from `timeline.validate` or `patches.cut`.
  """
  if stretch is WHOLE:  # a corpus has checked what it gives in stretches
    timeline_lib.validate(timeline)
  grid = clock.of(config)
  text = _place_text(timeline, config=config, tokenizer=tokenizer)
  windows = _reach(stretch, count=len(text))
  user_dmel = _microphone(timeline, windows, grid=grid)
  muted = set(_windows(timeline.muted, grid=grid))
  own_mel = _own_mel(timeline, windows, count=len(text), grid=grid)
  video = collections.defaultdict(list)
  for image in timeline.video:
    video[grid.window_of(image.time)].append(image.image)
  result = []
  for k in windows:
    own, after = own_mel.get(k), own_mel.get(k + 1)
    text_in, say, text_out = text[k]
    result.append(
      Frame(
        window=k,
        own_dmel=None if own is None else dmel.pool_fine(own),
        user_dmel=None
        if user_dmel is None or k in muted
        else user_dmel[k - windows.start],
        patches=patches.cut(
          video[k], height=config.video_height, width=config.video_width
        ),
        text_in=text_in,
        say=say,
        text_out=text_out,
        speak=after is not None,
        target_mel=after,
        is_past=k < stretch.first,
      )
    )
  return result


def count_positions(
  timeline: Timeline,
  *,
  config: StreamsConfig,
  tokenizer: Tokenizer,
  stretch: Stretch = WHOLE,
) -> int:
  """Tokens of the `frames` of a recording, without making its sound."""
  silent = outline(
    timeline, config=config, tokenizer=tokenizer, stretch=stretch
  )
  return length(silent, config=config)


def outline(
  timeline: Timeline,
  *,
  config: StreamsConfig,
  tokenizer: Tokenizer,
  stretch: Stretch = WHOLE,
) -> list[Frame]:
  """The `frames` of a recording without its sound and pictures.

  All tokens and decisions are those of `frames`; levels and pixels are zero,
  and there is no target mel.
  """
  grid = clock.of(config)
  text = _place_text(timeline, config=config, tokenizer=tokenizer)
  agent = timeline.track(Role.AGENT)
  spoken = {w for w in speech_windows(agent, grid=grid) if w < len(text)}
  seen = {grid.window_of(image.time) for image in timeline.video}
  heard = {*range(len(text))} - {*_windows(timeline.muted, grid=grid)}
  if not _has_microphone(timeline):
    heard = set()
  levels = np.zeros((grid.audio_tokens, clock.MEL_CHANNELS), np.uint8)
  shape = (patches.PAIR, patches.PATCH, patches.PATCH, 3)
  picture = np.zeros((config.patches_per_frame, *shape), np.uint8)
  placed = []
  for k in _reach(stretch, count=len(text)):
    text_in, say, text_out = text[k]
    frame = Frame(
      window=k,
      own_dmel=levels if k in spoken else None,
      user_dmel=levels if k in heard else None,
      patches=picture if k in seen else picture[:0],
      text_in=text_in,
      say=say,
      text_out=text_out,
      speak=k + 1 in spoken,
      target_mel=None,
      is_past=k < stretch.first,
    )
    placed.append(frame)
  return placed


def _reach(stretch: Stretch, *, count: int) -> range:
  """Windows of a stretch with its past, of `count` in the recording."""
  stop = count if stretch.stop is None else min(stretch.stop, count)
  return range(max(0, stretch.first - stretch.past), stop)


def length(frames: list[Frame], *, config: StreamsConfig) -> int:
  """Tokens of all `frames`."""
  return sum(
    len(frame_lib.layout(each, config=config).tokens) for each in frames
  )


def _has_microphone(timeline: Timeline) -> bool:
  return any(track.role != Role.AGENT for track in timeline.tracks)


def speech_windows(
  track: timeline_lib.Track | None, *, grid: clock.Grid
) -> list[int]:
  """Windows in which `track` has speech activity, in order."""
  return _windows(track.spans, grid=grid) if track else []


def _windows(
  spans: tuple[timeline_lib.Span, ...], *, grid: clock.Grid
) -> list[int]:
  """Windows that any of `spans` touches, in order."""
  active: set[int] = set()
  for span in spans:
    first = grid.window_of(span.start)
    active.update(range(first, max(first + 1, grid.num_windows(span.end))))
  return sorted(active)


def _microphone(
  timeline: Timeline, windows: range, *, grid: clock.Grid
) -> np.ndarray | None:
  """[windows, A, 80] dMel of what the session's microphone hears."""
  if not _has_microphone(timeline):
    return None
  # One more, for what the first looks back on.
  before = 1 if windows.start else 0
  wanted = range(windows.start - before, windows.stop)
  heard = microphone.hear(timeline, grid=grid, windows=wanted)
  levels = dmel.dmel(heard.reshape(-1), grid=grid)
  return levels.reshape(len(wanted), grid.audio_tokens, -1)[before:]


def _own_mel(
  timeline: Timeline, windows: range, *, count: int, grid: clock.Grid
) -> dict[int, np.ndarray]:
  """Fine mel [4 A, 80] of the windows in which the agent speaks.

  Of `windows` and the one after them, in a recording of `count`.
  """
  agent = timeline.track(Role.AGENT)
  reach = range(windows.start, min(windows.stop + 1, count))
  active = [w for w in speech_windows(agent, grid=grid) if w in reach]
  if agent is None or not active:
    return {}
  # One more, for what the first looks back on.
  offset = max(0, reach.start - 1) * grid.samples
  audio = np.zeros(reach.stop * grid.samples - offset, np.float32)
  part = agent.audio[offset : reach.stop * grid.samples]
  audio[: len(part)] = part
  result: dict[int, np.ndarray] = {}
  breaks = [i for i in range(1, len(active)) if active[i] > active[i - 1] + 1]
  for run in np.split(np.array(active), breaks):
    start = run[0] * grid.samples - offset
    stop = (run[-1] + 1) * grid.samples - offset
    mel = dmel.fine_mel(audio[start:stop], past=audio[:start], grid=grid)
    mel = mel.reshape(len(run), grid.fine_frames, -1)
    result.update(zip(run.tolist(), mel, strict=True))
  return result


def _place_text(
  timeline: Timeline, *, config: StreamsConfig, tokenizer: Tokenizer
) -> list[_Text]:
  """(text_in, say, text_out) of every frame."""
  grid = clock.of(config)
  say_at: dict[int, list[int]] = collections.defaultdict(list)
  agent = timeline.track(Role.AGENT)
  says = config.say_text is SayText.WORDS
  for word in agent.words if agent and says else ():
    window = grid.window_of(word.start) - 1 - config.say_lead
    say_at[max(0, window)] += tokenizer.encode(word.text)
  events = collections.defaultdict(list)
  for event in sorted(timeline.events, key=lambda event: event.time):
    events[grid.window_of(event.time)].append(event)
  last = max([grid.num_windows(timeline.duration) - 1, *say_at, *events])
  end = last + grid.num_windows(MAX_SILENCE)
  queue_in, queue_out = frame_lib.TextQueue(), frame_lib.TextQueue()
  say_waiting: list[int] = []
  result: list[_Text] = []
  while len(result) <= last or queue_in or queue_out or say_waiting:
    k = len(result)
    for event in events.get(k, ()):
      tokens = tokenizer.encode(event.text)
      if event.kind in TYPED:
        queue_in.push(TYPED[event.kind], tokens)
      elif event.kind in WRITTEN:
        queue_out.push(WRITTEN[event.kind], tokens)
    say_waiting += say_at.get(k, ())
    say = tuple(say_waiting[: config.max_text_out])
    say_waiting = say_waiting[config.max_text_out :]
    text_in = queue_in.take(config.max_text_in)
    text_out = queue_out.take(config.max_text_out - len(say))
    result.append((text_in, say, text_out))
    if k == end:
      logging.warning(
        "%s: left out text that is not placed %.0f s after its end: %d tokens"
        " of speech, %d messages; is a word or a message far too long?",
        *(timeline.id, MAX_SILENCE, len(say_waiting)),
        len(queue_in) + len(queue_out),
      )
      break
  return result
