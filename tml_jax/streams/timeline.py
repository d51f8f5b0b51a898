"""One recording in seconds: who said, showed and typed what, and when.

For: the exchange format between sources, shards, scenarios and frames.
Not for: windows (`frame`). Start reading at `Timeline`.
"""

import dataclasses
import enum
from typing import Any

import numpy as np

from tml_jax.streams import clock


class Role(enum.StrEnum):
  """Who a track belongs to; always explicit, never a channel number."""

  USER = "user"
  AGENT = "agent"
  ENVIRONMENT = "environment"


class EventKind(enum.StrEnum):
  """Text with a time. `NOTE` annotates and never enters the model."""

  USER_TEXT = "user_text"
  RESULT = "result"
  SHOW = "show"
  DRAW = "draw"
  CALL = "call"
  NOTE = "note"


@dataclasses.dataclass(frozen=True)
class Word:
  start: float  # seconds
  end: float
  text: str


@dataclasses.dataclass(frozen=True)
class Span:
  """Speech activity, in seconds."""

  start: float
  end: float


@dataclasses.dataclass(frozen=True)
class Track:
  """One voice or microphone.

  Attributes:
    role: whose track it is.
    audio: [samples] float32 in [-1, 1] at 16 kHz mono, from time 0.
    words: in order of start.
    spans: when somebody speaks, in order, not overlapping.
    voice: name of the voice, for splits and reports.
  """

  role: Role
  audio: np.ndarray
  words: tuple[Word, ...]
  spans: tuple[Span, ...]
  voice: str


@dataclasses.dataclass(frozen=True)
class VideoFrame:
  time: float  # capture time in seconds
  image: np.ndarray  # [height, width, 3] uint8


@dataclasses.dataclass(frozen=True)
class Event:
  time: float
  kind: EventKind
  text: str


@dataclasses.dataclass(frozen=True)
class Timeline:
  """One recording. `metadata` holds JSON values only.

  The microphone is off in `muted`: the model then hears nothing at all, which
  is not the same as silence.
  """

  id: str
  duration: float  # seconds
  tracks: tuple[Track, ...]
  video: tuple[VideoFrame, ...] = ()
  events: tuple[Event, ...] = ()
  metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
  muted: tuple[Span, ...] = ()

  def track(self, role: Role) -> Track | None:
    """The track of `role`, or None where the recording has none.

    Raises:
      ValueError: several tracks have this role; mix them down first.
    """
    found = [track for track in self.tracks if track.role == role]
    if len(found) > 1:
      raise ValueError(
        f"timeline {self.id!r} has {len(found)} tracks with role {role}; "
        "mix them into one"
      )
    return found[0] if found else None


def validate(timeline: Timeline) -> None:
  """Checks what frames rely on.

  Raises:
    ValueError: naming the timeline, the field and the value.
  """
  where = f"timeline {timeline.id!r}"
  _validate_text(timeline, where=where)
  if not 0 < timeline.duration < float("inf"):
    raise ValueError(f"{where}: duration {timeline.duration} s must be > 0")
  _validate_times(timeline, where=where)
  limit = round(timeline.duration * clock.SAMPLE_RATE)
  for track in timeline.tracks:
    audio = track.audio
    if audio.ndim != 1:
      raise ValueError(
        f"{where}: {track.role} audio has shape {audio.shape}; mix it down "
        "to one channel"
      )
    if len(audio) > limit:
      raise ValueError(
        f"{where}: {track.role} audio lasts {len(audio)} samples, more than "
        f"the duration's {limit}"
      )
    if not np.isfinite(audio).all():
      raise ValueError(f"{where}: {track.role} audio is not finite")
  for frame in timeline.video:
    if frame.image.ndim != 3 or frame.image.shape[-1] != 3:
      raise ValueError(
        f"{where}: video frame at {frame.time} s has shape "
        f"{frame.image.shape}; want [height, width, 3]"
      )


def _validate_text(timeline: Timeline, *, where: str) -> None:
  """Every text is one, and can be written."""
  texts: list[tuple[str, object]] = [("id", timeline.id)]
  for track in timeline.tracks:
    texts.append((f"{track.role} voice", track.voice))
    texts += [
      (f"{track.role} word at {w.start} s", w.text) for w in track.words
    ]
  texts += [(f"{e.kind} at {e.time} s", e.text) for e in timeline.events]
  for what, text in texts:
    if not isinstance(text, str):
      raise ValueError(f"{where}: {what} is {text!r} and no text")
    try:
      text.encode()
    except UnicodeEncodeError as error:
      raise ValueError(
        f"{where}: {what} has half of a character, {text[error.start]!r}: it"
        " was cut, or is not in UTF-8"
      ) from error


def _validate_times(timeline: Timeline, *, where: str) -> None:
  """Every time lies in the recording, give or take a tick."""
  ends = [("event", event.time, event.time) for event in timeline.events]
  ends += [("video frame", frame.time, frame.time) for frame in timeline.video]
  ends += [("muted time", s.start, s.end) for s in timeline.muted]
  for track in timeline.tracks:
    ends += [(f"{track.role} word", w.start, w.end) for w in track.words]
    ends += [(f"{track.role} span", s.start, s.end) for s in track.spans]
  limit = timeline.duration + clock.TICKS.seconds
  for what, start, end in ends:
    if not 0 <= start <= end <= limit:  # NaN is in no order
      raise ValueError(
        f"{where}: {what} from {start} to {end} s; the recording lasts"
        f" {timeline.duration} s"
      )
