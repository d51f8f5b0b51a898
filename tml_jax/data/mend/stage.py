"""A recording as it was read becomes one that is measured, mended, annotated.

For: `convert`, which calls it between reading and checking. Not for: what is
measured (`measures`). Start reading at `apply`. A fault is mended where --mend
names it; then all is measured again, so that a recording of which a fault is
left is skipped, as is one whose fault nobody asked to mend.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from tml_jax.data import audio as audio_lib
from tml_jax.data import source
from tml_jax.data.mend import (
  activity,
  annotate,
  cancel,
  measures,
  resample,
  words,
)
from tml_jax.data.mend.measures import Fault, Measured
from tml_jax.data.mend.options import Check, Mending
from tml_jax.data.source import BadRecording, Note, Reason
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Span, Timeline, Track, Word

_MOST_TIMES = 2  # that one fault is mended in a recording


@dataclasses.dataclass(frozen=True)
class Result:
  """A recording as it goes on.

  Attributes:
    item: the recording.
    values: of what was measured as it was read, by name.
    done: what was mended or written, in the order of doing.
  """

  item: Timeline
  values: dict[str, float]
  done: tuple[str, ...]


class Faulty(BadRecording):
  """A recording with a fault, and what was measured of it."""

  def __init__(self, reason: Reason, detail: str, *, values: dict[str, float]):
    super().__init__(reason, detail)
    self.values = values


def apply(
  item: Timeline | BadRecording, *, mending: Mending
) -> Iterator[Result | BadRecording]:
  """What becomes of a recording, or why it is skipped."""
  items: tuple[Timeline, ...]
  unit: str | None = None
  if isinstance(item, source.Beyond) and mending.check:
    items = item.items
  elif isinstance(item, BadRecording):
    yield item
    return
  else:
    items = (item,)
  for each in items:
    try:
      done: list[str] = []
      if isinstance(item, source.Beyond):
        unit = _unit(each, mending=mending)
        each = _in_seconds(each, unit=unit, error=item, mending=mending)
        done += [str(Check.UNITS)] if unit else []
      yield _mended(each, mending=mending, done=done)
    except BadRecording as error:
      yield error


def _unit(item: Timeline, *, mending: Mending) -> str | None:
  """What the times of words are in, if that can be told."""
  if Check.UNITS not in mending.check:
    return None
  tracks = measures.sides(item)
  return words.unit(
    tracks,
    sounds=[activity.of(track) for track in tracks],
    duration=item.duration,
  )


def _in_seconds(
  item: Timeline,
  *,
  unit: str | None,
  error: source.Beyond,
  mending: Mending,
) -> Timeline:
  """The recording with times that may be used.

  Raises:
    BadRecording: they may not.
  """
  if unit is not None:
    if Check.UNITS not in mending.mend:
      raise BadRecording(
        Reason.BROKEN_METADATA,
        f"{item.id}: its words fit its sound in {unit}: write seconds, or add"
        f" --mend={Check.UNITS}",
      )
    return _words_moved(item, factor=words.UNITS[unit], shift=0.0)
  if Check.RATE not in mending.check:
    raise error
  found = measures.of(item, mending=mending)
  rate = found.values.get(measures.RATE, 1.0)
  if rate > 0.98:  # the sound is not too short for its words
    raise error
  return item


def _mended(item: Timeline, *, mending: Mending, done: list[str]) -> Result:
  """See `apply`.

  Raises:
    BadRecording: a fault that is not mended, or not for good.
  """
  measured = measures.of(item, mending=mending)
  values = dict(measured.values)
  while True:
    found = measures.faults(measured, mending=mending, duration=item.duration)
    if not found:
      break
    fault = found[0]
    name = str(fault.check)
    if fault.check not in mending.mend or done.count(name) == _MOST_TIMES:
      raise Faulty(
        fault.reason,
        f"{item.id}: {fault.detail}{_hint(fault, done)}",
        values=values,
      )
    before = measured.values
    item = _MENDS[fault.check](item, measured)
    done.append(name)
    measured = measures.of(item, mending=mending)
    if fault.check is Check.ECHO:
      values[measures.ERLE] = (
        before[measures.ECHO] - measured.values[measures.ECHO]
      )
  item, written = annotate.annotated(item, mending=mending)
  return Result(item, values, (*dict.fromkeys(done), *written))


def _hint(fault: Fault, done: list[str]) -> str:
  if str(fault.check) in done:
    return "; so much is left after mending"
  return f"; --mend={fault.check} mends that" if fault.check in _MENDS else ""


def _rate(item: Timeline, found: Measured) -> Timeline:
  """All sound at the rate that its words tell."""
  factor = found.values[measures.RATE]

  def at_rate(track: Track) -> Track:
    samples = round(len(track.audio) / factor)
    sound = resample.warped(
      track.audio, factor=factor, shift=0.0, samples=samples
    )
    return _with_sound(track, sound)

  tracks = tuple(map(at_rate, item.tracks))
  last = max(len(track.audio) for track in tracks) / clock.SAMPLE_RATE
  last = max([last, *(e.time for e in item.events)])
  last = max([last, *(frame.time for frame in item.video)])
  item = dataclasses.replace(item, tracks=tracks, duration=last)
  return _words_moved(item, factor=1.0, shift=0.0)


def _swap(item: Timeline, found: Measured) -> Timeline:
  """The sound of the sides exchanged; words, voices and video keep their role.

  Words say whose they are, one by one. The channels are told for a whole folder
  by an option, so that is what is believed less.
  """
  user, agent = measures.sides(item)
  swapped = {
    Role.USER: _with_sound(user, agent.audio),
    Role.AGENT: _with_sound(agent, user.audio),
  }
  return _with_tracks(item, lambda track: swapped.get(track.role, track))


def _drift(item: Timeline, found: Measured) -> Timeline:
  """The user's channel at the agent's rate; else words at that of the sound."""
  values = found.values
  channels = values.get(measures.CHANNEL_DRIFT, 0.0) * 1e-6
  if abs(channels) * item.duration > measures.MOST_SLIP:
    return _user_warped(item, factor=1 + channels, shift=0.0)
  drift = values[measures.WORDS_DRIFT] * 1e-6
  return _words_moved(item, factor=1 + drift, shift=0.0)


def _offset(item: Timeline, found: Measured) -> Timeline:
  """The user's channel moved to the agent's; else words to the sound."""
  name = measures.CHANNEL_OFFSET
  late = found.values.get(name, 0.0)
  if abs(late) > measures.most_offset(name, values=found.values):
    return _user_warped(item, factor=1.0, shift=late)
  return _words_moved(
    item, factor=1.0, shift=found.values[measures.WORDS_OFFSET]
  )


def _echo(item: Timeline, found: Measured) -> Timeline:
  """The user's channel without the agent."""
  agent = item.track(Role.AGENT)
  assert agent is not None and found.heard is not None
  assert found.heard.delay is not None  # or it were no fault
  sound, delay = agent.audio, found.heard.delay
  return _with_tracks(
    item,
    lambda track: (
      _with_sound(track, cancel.cancelled(track.audio, sound, delay=delay))
      if track.role is Role.USER
      else track
    ),
  )


_MENDS: dict[Check, Callable[[Timeline, Measured], Timeline]] = {
  Check.RATE: _rate,
  Check.SWAP: _swap,
  Check.DRIFT: _drift,
  Check.OFFSET: _offset,
  Check.ECHO: _echo,
}


def _user_warped(item: Timeline, *, factor: float, shift: float) -> Timeline:
  return _with_tracks(
    item,
    lambda track: (
      _with_sound(
        track,
        resample.warped(
          track.audio, factor=factor, shift=shift, samples=len(track.audio)
        ),
      )
      if track.role is Role.USER
      else track
    ),
  )


def _with_tracks(item: Timeline, change: Callable[[Track], Track]) -> Timeline:
  return dataclasses.replace(item, tracks=tuple(map(change, item.tracks)))


def _with_sound(track: Track, sound: np.ndarray) -> Track:
  """Another sound; spans that were measured in it are measured again."""
  spans = track.spans
  if activity.is_measured(track):
    spans = tuple(audio_lib.speech_spans(sound, name=track.voice))
  peak = float(np.abs(sound).max(initial=0.0))
  if peak > 1:  # of a sample between two at full scale
    sound = sound / np.float32(peak)
  return dataclasses.replace(track, audio=sound, spans=spans)


def _words_moved(item: Timeline, *, factor: float, shift: float) -> Timeline:
  """Words, and spans that came with them, at other times.

  Those that come to lie outside of the recording are left out and counted.
  """
  left_out = 0

  def moved(track: Track) -> Track:
    nonlocal left_out
    found = []
    for word in track.words:
      start, end = _inside(word, factor, shift, most=item.duration)
      if end > start or start < item.duration and word.end == word.start:
        found.append(Word(start, end, word.text))
      else:
        left_out += 1
    spans = track.spans
    if not activity.is_measured(track):
      pairs = [_inside(s, factor, shift, most=item.duration) for s in spans]
      spans = tuple(Span(start, end) for start, end in pairs if end > start)
    return dataclasses.replace(track, words=tuple(found), spans=spans)

  item = _with_tracks(item, moved)
  if not left_out:
    return item
  notes = dict(item.metadata.get(source.NOTES, {}))
  notes[str(Note.OUTSIDE)] = notes.get(str(Note.OUTSIDE), 0) + left_out
  return dataclasses.replace(
    item, metadata={**item.metadata, source.NOTES: notes}
  )


def _inside(
  stretch: Word | Span, factor: float, shift: float, *, most: float
) -> tuple[float, float]:
  """Start and end at other times, cut to the recording."""
  start, end = stretch.start * factor + shift, stretch.end * factor + shift
  return min(max(0.0, start), most), min(max(0.0, end), most)
