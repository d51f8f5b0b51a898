"""What a transform of a recording is, and what it may look at.

For: the transforms beside this file, and those of plugins. Not for: which
recordings are changed (`chain`). Start reading at `Transform`.

A long recording is read in stretches that hold only a part of its sound. A
transform must make of a stretch what it makes of the whole: it draws from the
words, spans and duration, which a stretch has, reaches for sound no further
than its `reach`, and counts samples from the recording's beginning. What
depends on a level asks `Around.measured`.
"""

import abc
import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

import numpy as np

from tml_jax.data import calls, corpus
from tml_jax.data import options as options_lib
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Span, Timeline, Track, Word

# Of every transform: the entry of the mixture it is for; all if not given.
COMMON = {"entry": ""}
Timed = TypeVar("Timed", Word, Span)
_CHUNKS = 4  # two minutes of a recording say how loud it is


class Takes(enum.Enum):
  """What a transform can change."""

  ANY = "recordings, and stretches of long ones"
  WHOLE = "recordings that are read whole"


class NotFor(Exception):
  """A recording that a transform leaves as it is, and why."""


@dataclasses.dataclass(frozen=True)
class Measured:
  """Where levels of a recording are measured.

  Attributes:
    timeline: the recording as it is before the transform.
    places: where its sound is looked at; a stretch and the whole have the same.
  """

  timeline: Timeline
  places: tuple[Span, ...]


@dataclasses.dataclass(frozen=True)
class Around:
  """What is known of a recording besides the timeline.

  Attributes:
    sound: [first, stop) samples at 16 kHz whose sound is there, in order.
    grid: the windows that a model hears.
    measured: gives the sound that levels are taken of.
  """

  sound: tuple[tuple[int, int], ...]
  grid: clock.Grid
  measured: Callable[[], Measured]


class Transform(abc.ABC):
  """A change of a recording, with numbers drawn for each.

  Attributes:
    OPTIONS: defaults by name.
    takes: which recordings.
    reach: seconds around a moment on whose sound its sound may depend.
  """

  OPTIONS: ClassVar[Mapping[str, str]] = {}
  takes: ClassVar[Takes] = Takes.ANY
  reach: float = 0.0

  @abc.abstractmethod
  def __init__(self, options: options_lib.Options):
    """Reads the options; looks at files, if it needs some.

    Raises:
      errors.UserError: a value that cannot be, or a file that is no sound.
    """

  @abc.abstractmethod
  def apply(
    self, timeline: Timeline, *, random: np.random.Generator, around: Around
  ) -> Timeline:
    """The changed recording; the given one stays what it is.

    Raises:
      NotFor: it cannot be changed so.
    """


class Side(enum.StrEnum):
  """Whose sound is changed; the environment's is heard with the user's."""

  USER = "user"
  AGENT = "agent"
  ALL = "all"

  def has(self, track: Track) -> bool:
    is_agent = track.role == Role.AGENT
    return self is Side.ALL or is_agent == (self is Side.AGENT)


def side(options: options_lib.Options) -> Side:
  """The option `of`."""
  return Side(options.choice("of", among=tuple(Side)))


def samples(timeline: Timeline) -> int:
  """At 16 kHz, of the whole recording."""
  return round(timeline.duration * clock.SAMPLE_RATE)


def microphone(timeline: Timeline) -> int:
  """Number of the track that the user's microphone made.

  Raises:
    NotFor: nobody but the agent is in the recording.
  """
  for role in (Role.USER, Role.ENVIRONMENT):
    for number, track in enumerate(timeline.tracks):
      if track.role == role:
        return number
  raise NotFor("without a microphone")


def with_sound(
  track: Track,
  *,
  around: Around,
  make: Callable[[np.ndarray, int], np.ndarray],
  length: int | None = None,
) -> Track:
  """A track with other sound, where it is there; silent elsewhere.

  What is beyond full scale is cut off, as in a converter.

  Args:
    track: the track.
    around: where its sound is.
    make: of [n] float32 and the number of the first sample: [n] samples.
    length: samples that it has afterwards; as many as before if not given.
  """
  length = len(track.audio) if length is None else length
  audio = np.zeros(length, np.float32)
  for first, stop in around.sound:
    stop = min(stop, length)
    if first >= stop:
      continue
    part = np.zeros(stop - first, np.float32)
    found = track.audio[first:stop]
    part[: len(found)] = found
    np.clip(make(part, first), -1, 1, out=audio[first:stop])
  return dataclasses.replace(track, audio=audio)


def filtered(
  timeline: Timeline,
  *,
  of: Side,
  around: Around,
  make: Callable[[np.ndarray, int], np.ndarray],
  length: int | None = None,
) -> Timeline:
  """The timeline with other sound of one side: see `with_sound`."""
  return dataclasses.replace(
    timeline,
    tracks=tuple(
      with_sound(track, around=around, make=make, length=length)
      if of.has(track)
      else track
      for track in timeline.tracks
    ),
  )


def replaced(timeline: Timeline, number: int, *, track: Track) -> Timeline:
  """The timeline with another track at `number`."""
  tracks = (*timeline.tracks[:number], track, *timeline.tracks[number + 1 :])
  return dataclasses.replace(timeline, tracks=tracks)


def is_conversation(timeline: Timeline) -> bool:
  """Whether it is a recording of two who talk, by its importer."""
  return timeline.metadata.get("kind") == calls.KIND


def places(timeline: Timeline) -> tuple[Span, ...]:
  """Where levels of a recording are measured: all of a short one.

  Of a longer one four of the chunks in which it is stored: those in which the
  one who says least says most, so that changed roles change nothing.
  """
  length = corpus.CHUNK_SECONDS
  count = max(1, int(np.ceil(timeline.duration / length)))
  if count <= _CHUNKS:
    return (Span(0.0, timeline.duration),)
  tracks = [track for track in timeline.tracks if track.spans]
  said = np.zeros((max(1, len(tracks)), count))
  for row, track in zip(said, tracks, strict=False):
    for span in track.spans:
      last = min(count - 1, int(span.end / length))
      for chunk in range(int(span.start / length), last + 1):
        start, end = chunk * length, (chunk + 1) * length
        row[chunk] += max(0.0, min(span.end, end) - max(span.start, start))
  best = np.argsort(-said.min(axis=0), kind="stable")[:_CHUNKS]
  return tuple(
    Span(chunk * length, min((chunk + 1) * length, timeline.duration))
    for chunk in sorted(best.tolist())
  )
