"""Recorded conversations of two sides as timelines.

For: importers of calls: files of sound that are read as they are decoded, words
as other programs wrote them, and who is the user. Not for: layouts on disk. A
role is told by an option or by the format; nothing here guesses it. Start at
`timelines`.
"""

import collections
import contextlib
import dataclasses
import math
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tml_jax.data import audio as audio_lib
from tml_jax.data import media, records, source, stored, utterance
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part, Reason
from tml_jax.streams import clock
from tml_jax.streams.document import PART_OF
from tml_jax.streams.timeline import (
  Event,
  Role,
  Span,
  Timeline,
  Track,
  VideoFrame,
  Word,
)

KIND = "conversation"  # of Timeline.metadata
MAX_SECONDS = 4 * 3600.0
# Three hours in two channels are 1.4 GB of samples, and are read as slowly as
# the disk is.
LIMITS = media.Limits(seconds=MAX_SECONDS, bytes=4 << 30, patience=3600.0)
MAX_TEXT = 256 << 20  # bytes of a file of words
CHANNELS = ("left", "right")
EACH = "each"
# What reading JSON that somebody else wrote raises, besides `BadRecording`.
_BROKEN = (
  *(ValueError, KeyError, TypeError, AttributeError, IndexError),
  *(OverflowError, RecursionError),
)

Notes = collections.Counter[Note]
Roles = Mapping[str, Role]  # by the name of a side


@dataclasses.dataclass(frozen=True)
class Said:
  """A word, or a segment, as it was read: `timelines` looks what it is.

  Attributes:
    start, end: seconds; numbers, or numbers as text, or None.
    text: one word, or several that are spread over the time.
  """

  start: object
  end: object
  text: object


@dataclasses.dataclass(frozen=True)
class Side:
  """One of those who talk.

  Attributes:
    audio: [n] float32 at 16 kHz.
    said: words or segments, in any order.
    spans: when it speaks, as (start, end) in seconds in any order; None where
      nobody says, and the sound tells.
    voice: who it is, for splits and reports.
  """

  audio: np.ndarray
  said: Sequence[Said] = ()
  spans: Sequence[tuple[object, object]] | None = None
  voice: str = ""


@dataclasses.dataclass(frozen=True)
class Call(Part):
  """A recording that is read alone.

  Attributes:
    paths: of its files, in an order that the importer knows; "" for one that
      is not there.
    record: more that the importer has read of it, as JSON.
    bad: why it cannot be used, where that is known already.
  """

  paths: tuple[str, ...] = ()
  record: str = ""
  bad: tuple[Reason, str] | None = None

  def check(self) -> None:
    """Raises the `BadRecording` that it is, if it is one."""
    if self.bad is not None:
      raise BadRecording(*self.bad)


def bad_call(name: str, error: BadRecording) -> Call:
  """A part of which is known that it cannot be used."""
  return Call(name, str(error), 0, bad=(error.reason, error.detail))


class Listed:
  """An importer whose parts are found when it is opened.

  They do not go to other processes, which are given those that they read.
  """

  _parts: Sequence[Part] = ()

  def parts(self) -> list[Part]:
    return [*self._parts]

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, "_parts": ()}


def call(
  name: str, found: Sequence[stored.File | None], *, record: str = ""
) -> Call:
  """A part of some files; None is one that is not there."""
  there = [file for file in found if file is not None]
  return Call(
    name=name,
    stamp="; ".join([*(file.stamp for file in there), record]),
    bytes=sum(file.size for file in there),
    paths=tuple(file.path if file else "" for file in found),
    record=record,
  )


def value(place: stored.Place, path: str) -> Any:
  """What a small file of JSON holds.

  Raises:
    BadRecording: it cannot be read, or is none.
  """
  name = place.named(path)
  return records.value_of(place.read(path, limit=MAX_TEXT), name=name)


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
  """What goes wrong in metadata of a format becomes a `BadRecording`."""
  try:
    yield
  except BadRecording:
    raise
  except _BROKEN as error:
    raise BadRecording(
      Reason.BROKEN_METADATA, source.as_text(f"{name}: {error!r:.200}")
    ) from error


def roles(
  options: options_lib.Options, *, sides: tuple[str, ...]
) -> list[Roles]:
  """Who is the user, by the option `user`: one of two sides, or each of them.

  Raises:
    errors.UserError: it does not say.
  """
  chosen = options.choice("user", among=(*sides, EACH))
  users = sides if chosen == EACH else (chosen,)
  return [roles_of(user, sides=sides) for user in users]


def roles_of(user: str, *, sides: tuple[str, ...]) -> Roles:
  """One side is the user, the other the agent."""
  return {side: Role.USER if side == user else Role.AGENT for side in sides}


def timelines(
  name: str,
  sides: Mapping[str, Side],
  *,
  among: Sequence[Roles],
  metadata: Mapping[str, Any],
  notes: Mapping[Note, int] | None = None,
  video: Mapping[str, tuple[VideoFrame, ...]] | None = None,
  events: tuple[Event, ...] = (),
  lasts: float = 0.0,
) -> Iterator[Timeline]:
  """One timeline for each way to tell roles.

  Args:
    name: of the recording; the user's side is added where there are several.
    sides: by name.
    among: roles by side.
    metadata: of `options.Options.metadata`, and more.
    notes: what was left out before this.
    video: what the agent sees where this side is the user.
    events: of the recording.
    lasts: seconds at least, where pictures or events go on after the sound.

  Raises:
    BadRecording: its sound or its words cannot be used; `source.Beyond` where
      the times of its words may be in another unit.
  """
  counts: Notes = collections.Counter(notes or {})
  samples = max((len(side.audio) for side in sides.values()), default=0)
  if not samples:
    raise BadRecording(Reason.EMPTY, f"{name}: 0 samples")
  duration = max(lasts, samples / clock.SAMPLE_RATE)
  beyond: source.Beyond | None = None
  words = {}
  for key, side in sides.items():
    try:
      words[key] = words_of(
        side.said, duration=duration, name=name, notes=counts
      )
    except source.Beyond as error:
      beyond = error
  if beyond is not None:  # all in the same unit, whatever it is
    counts = collections.Counter(notes or {})
    words = {
      key: words_of(side.said, duration=math.inf, name=name, notes=counts)
      for key, side in sides.items()
    }
  spans = {
    key: _spans(side, duration=duration, name=f"{name} {key}", notes=counts)
    for key, side in sides.items()
  }

  # Both ways are the same sound, so they are of the same split.
  whole = {PART_OF: name} if len(among) > 1 else {}

  def timeline_of(each: Roles) -> Timeline:
    user = next((key for key, role in each.items() if role is Role.USER), "")
    return Timeline(
      id=f"{name}#{user}" if len(among) > 1 else name,
      duration=duration,
      tracks=tuple(
        Track(
          role=each[key],
          audio=side.audio,
          words=words[key],
          spans=spans[key],
          voice=source.as_text(side.voice),
        )
        for key, side in sides.items()
      ),
      video=(video or {}).get(user, ()),
      events=events,
      metadata={**metadata, **whole, **source.notes(counts)},
    )

  if beyond is not None:
    raise source.Beyond(beyond.detail, items=tuple(map(timeline_of, among)))
  yield from map(timeline_of, among)


def speakers_of(
  said: Mapping[str, list[Said]], *, among: Sequence[Roles]
) -> dict[str, list[Said]]:
  """Lists of words by what their speakers may be called.

  These are sides, or roles where one way alone tells them.
  """
  speakers = dict(said)
  if len(among) == 1:
    speakers |= {str(role): said[side] for side, role in among[0].items()}
  return speakers


def collect(
  entries: Iterable[Any], *, into: Mapping[str, list[Said]], notes: Notes
) -> None:
  """Adds words of {"speaker" or "role", "word" or "text", "start", "end"}.

  May raise whatever `reading` makes a `BadRecording` of.
  """
  for each in entries:
    speaker = each["speaker"] if "speaker" in each else each["role"]
    text = each["word"] if "word" in each else each["text"]
    if speaker in into:
      into[speaker].append(Said(each.get("start"), each.get("end"), text))
    else:
      notes[Note.OTHER_SPEAKERS] += 1


def words_of(
  said: Iterable[Said], *, duration: float, name: str, notes: Notes
) -> tuple[Word, ...]:
  """Words in order of start; what is none is counted in `notes`.

  Raises:
    BadRecording: a time is no number.
    source.Beyond: more than half of the words lie beyond the end, so that they
      are of another recording, or not in seconds.
  """
  found: list[Word] = []
  beyond, last = 0, 0.0
  for each in said:
    start = seconds(each.start, name=name)
    end = seconds(each.end, name=name)
    text = _text(each.text)
    if not text:
      notes[Note.TEXTLESS] += 1
    elif start is None or end is None:
      notes[Note.UNTIMED] += len(text)
    elif end < start:
      notes[Note.BACKWARDS] += len(text)
    elif start < 0 or start >= duration:
      beyond, last = beyond + len(text), max(last, start)
    else:
      end = min(end, duration)
      if len(text) == 1:
        found.append(Word(start, end, text[0]))
      else:
        notes[Note.SPREAD] += len(text)
        found += utterance.spread_words(
          " ".join(text), spans=[Span(start, end)]
        )
  if beyond > len(found):
    raise source.Beyond(
      f"{name}: {beyond} of {beyond + len(found)} words lie outside of its"
      f" {duration:.2f} s, one at {last:g}: are they of another recording, or"
      " in milliseconds? write seconds"
    )
  notes[Note.OUTSIDE] += beyond
  return tuple(sorted(found, key=lambda word: (word.start, word.end)))


def _text(value: object) -> list[str]:
  """The words of a text; none if it is no text that can be written."""
  if not isinstance(value, str):
    return []
  try:
    value.encode()
  except UnicodeEncodeError:
    return []
  return value.split()


def seconds(value: object, *, name: str) -> float | None:
  """A time as a number or as text; None where there is none.

  Raises:
    BadRecording: it is something else.
  """
  if value is None or value == "":
    return None
  try:
    if isinstance(value, bool):
      raise TypeError
    found = float(value)  # type: ignore[arg-type]  # or it raises
  except (TypeError, ValueError, OverflowError) as error:
    raise BadRecording(
      Reason.BROKEN_METADATA,
      source.as_text(f"{name}: {value!r:.80} is no time in seconds"),
    ) from error
  return found if math.isfinite(found) else None


def _spans(
  side: Side, *, duration: float, name: str, notes: Notes
) -> tuple[Span, ...]:
  """When a side speaks, in order, not overlapping."""
  if side.spans is None:
    if not side.audio.size:
      return ()
    return tuple(audio_lib.speech_spans(side.audio, name=name))
  found = []
  for first, last in side.spans:
    start, end = seconds(first, name=name), seconds(last, name=name)
    if start is None or end is None or not 0 <= start < min(end, duration):
      notes[Note.SPANS] += 1
    else:
      found.append((start, min(end, duration)))
  merged: list[Span] = []
  for start, end in sorted(found):
    if merged and start <= merged[-1].end:
      merged[-1] = Span(merged[-1].start, max(merged[-1].end, end))
    else:
      merged.append(Span(start, end))
  return tuple(merged)


def sound(
  place: stored.Place, path: str, *, channels: int | None
) -> np.ndarray:
  """[channels, n] float32 at 16 kHz of a file; any number for None.

  Raises:
    BadRecording: it cannot be used, or has not the channels.
  """
  name = place.named(path)
  with place.opened(path) as file:
    samples = media.sound_of_file(file, name=name, limits=LIMITS)
  return checked(samples, channels=channels, name=name)


@dataclasses.dataclass(frozen=True)
class Camera:
  """How the video of a side is read: frames a second, and their size."""

  fps: float
  height: int
  width: int

  def video(
    self, place: stored.Place, path: str, *, seconds: float, notes: Notes
  ) -> tuple[VideoFrame, ...]:
    """Frames of a clip's first seconds; nothing where it cannot be read."""
    try:
      if not path:
        raise BadRecording(Reason.MISSING, "")
      with place.opened(path) as file:
        return media.pictures_of_file(
          file,
          name=source.as_text(posixpath.basename(path)),
          fps=self.fps,
          seconds=seconds,
          height=self.height,
          width=self.width,
          limits=LIMITS,
        )
    except BadRecording:
      notes[Note.NO_VIDEO] += 1
      return ()


def camera(options: options_lib.Options) -> Camera | None:
  """Of the options `video` (yes or no), `fps` and `size`; None for no video."""
  fps = options.number("fps", low=0.01, high=30)
  height, width = options.size("size")
  if options.choice("video", among=("yes", "no")) == "no":
    return None
  return Camera(fps, height, width)


def users(among: Sequence[Roles]) -> set[str]:
  """Sides that are the user in one way or another."""
  return {
    key for each in among for key, role in each.items() if role is Role.USER
  }


def sound_of_bytes(
  data: bytes, *, name: str, channels: int | None
) -> np.ndarray:
  """The same of a file in memory.

  Raises:
    BadRecording: as `sound`.
  """
  samples = media.sound_of_bytes(data, name=name, limits=LIMITS)
  return checked(samples, channels=channels, name=name)


def checked(
  samples: np.ndarray, *, channels: int | None, name: str
) -> np.ndarray:
  """The same [channels, n], which can be used.

  Raises:
    BadRecording: they cannot.
  """
  if channels is not None and len(samples) != channels:
    raise BadRecording(
      Reason.WRONG_CHANNELS, f"{name}: {len(samples)}, want {channels}"
    )
  utterance.check_samples(samples, max_seconds=MAX_SECONDS, name=name)
  return samples
