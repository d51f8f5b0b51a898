"""What happened between a user who reacts and an agent.

For: the sound of a script that is played with waits and repetitions, and the
timeline that comes of it: what was said when, and what was due. Not for:
deciding (`reacting`). Start at `timeline_of`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from tml_jax.streams import annotation, clock
from tml_jax.streams.annotation import Annotation, Kind
from tml_jax.streams.timeline import Role, Span, Timeline, Track, Word

_TICK = clock.TICKS.seconds
_Spoken = TypeVar("_Spoken", Word, Span)


@dataclasses.dataclass(frozen=True)
class Step:
  """What is played in a tick.

  Attributes:
    position: window of the script; None while the user waits.
    sounds: whether the agent does.
    is_dropped: whether the user keeps silent where the script has sound.
  """

  position: int | None
  sounds: bool
  is_dropped: bool = False


@dataclasses.dataclass(frozen=True)
class _Play:
  """Windows [first, stop) of the script, played from tick `tick` on."""

  first: int
  stop: int
  tick: int

  @property
  def shift(self) -> float:
    """Seconds from the script's time to the time of the conversation."""
    return round((self.tick - self.first) * _TICK, 6)

  def holds(self, time: float) -> bool:
    """Whether a time of the script is played here."""
    return self.first <= clock.TICKS.window_of(time) < self.stop


class Sound:
  """The windows of a script's sound.

  While the user waits there is the noise of the script's longest silence,
  forwards and backwards, so that it never clicks.
  """

  def __init__(self, script: Timeline, *, quiet: np.ndarray):
    """Cuts the tracks.

    Args:
      script: the conversation.
      quiet: [windows] bool, where the user is silent.
    """
    self._nothing = np.zeros(clock.TICKS.samples, np.float32)
    self._tracks = {
      track.role: _windows(track.audio, count=len(quiet))
      for track in script.tracks
    }
    first, stop = _longest(quiet)
    part = self._nothing
    if Role.USER in self._tracks and first < stop:
      part = self._tracks[Role.USER][first:stop].reshape(-1)
    loop = np.concatenate([part, part[::-1]])
    self._silence = loop.reshape(-1, clock.TICKS.samples)

  def of(self, role: Role, step: Step, *, tick: int) -> np.ndarray:
    """[samples] of one track in a tick."""
    if role not in self._tracks:
      return self._nothing
    if role == Role.USER and (step.position is None or step.is_dropped):
      return self._silence[tick % len(self._silence)]
    if step.position is None:
      return self._nothing
    return self._tracks[role][step.position]

  def heard(self, step: Step, *, tick: int) -> np.ndarray:
    """[samples] that the agent hears."""
    user = self.of(Role.USER, step, tick=tick)
    return user + self.of(Role.ENVIRONMENT, step, tick=tick)


def with_sound(
  held: Timeline, *, script: Timeline, steps: Sequence[Step], sound: Sound
) -> Timeline:
  """What `timeline_of` leaves out: sound and pictures.

  Args:
    held: the conversation that was held.
    script: as composed.
    steps: what was played.
    sound: of the script.
  """
  samples = round(held.duration * clock.SAMPLE_RATE)  # a part of a tick, too

  def audio(role: Role) -> np.ndarray:
    played = [sound.of(role, step, tick=k) for k, step in enumerate(steps)]
    return np.concatenate([np.zeros(0, np.float32), *played])[:samples]

  return dataclasses.replace(
    held,
    tracks=tuple(
      dataclasses.replace(track, audio=audio(track.role))
      for track in held.tracks
    ),
    video=tuple(
      dataclasses.replace(frame, time=_later(frame.time, play))
      for play in _plays(steps)
      for frame in script.video
      if play.holds(frame.time)
    ),
  )


def timeline_of(script: Timeline, *, steps: Sequence[Step]) -> Timeline:
  """The conversation that was held, in the form of a script, without sound.

  Words, pictures, typed text and annotations stand where they were played, as
  often as they were. Times that follow what the user says (`end`, `due`) move
  with it; `until` is where the script has it, or where the user says the same
  again. A backchannel that was dropped asks for nothing, nor does an
  interruption that is repeated to a silent agent.

  Args:
    script: the conversation as composed.
    steps: what was played.
  """
  plays = _plays(steps)
  added = len(steps) - clock.TICKS.num_windows(script.duration)
  duration = round(script.duration + added * _TICK, 6)
  silent = {k for k, step in enumerate(steps) if step.is_dropped}
  asked = [
    annotation.to_json(a)
    for a in _annotations(
      script, plays=plays, steps=steps, silent=silent, duration=duration
    )
  ]
  metadata = script.metadata
  if annotation.KEY in metadata:
    metadata = metadata | {annotation.KEY: asked}
  return dataclasses.replace(
    script,
    duration=duration,
    tracks=tuple(
      _track(track, plays=plays, silent=silent) for track in script.tracks
    ),
    video=(),
    events=tuple(
      dataclasses.replace(event, time=_later(event.time, play))
      for play in plays
      for event in script.events
      if play.holds(event.time)
    ),
    metadata=metadata,
  )


def _annotations(
  script: Timeline,
  *,
  plays: list[_Play],
  steps: Sequence[Step],
  silent: set[int],
  duration: float,
) -> Iterator[Annotation]:
  """What was asked, in order of the script."""
  for a in annotation.of(script):
    own = [play for play in plays if play.holds(a.start)]
    for i, play in enumerate(own):
      tick = play.tick + clock.TICKS.window_of(a.start) - play.first
      if a.kind == Kind.BACKCHANNEL and tick in silent:
        continue
      if a.kind == Kind.BARGE_IN and i and not steps[tick].sounds:
        continue
      until = a.until
      if until is not None:
        until = _until(until, plays=plays, play=play, duration=duration)
        if i + 1 < len(own):
          until = min(until, _later(a.start, own[i + 1]))
      since = a.since
      if since is not None:
        since = _later(since, play)
      yield dataclasses.replace(
        a,
        start=_later(a.start, play),
        end=_later(a.end, play),
        due=None if a.due is None else _later(a.due, play),
        until=until,
        since=since,
      )


def _until(
  time: float, *, plays: list[_Play], play: _Play, duration: float
) -> float:
  """When a time of the script has come, after `play` began."""
  for later in plays:
    if later.tick >= play.tick and later.holds(time):
      return _later(time, later)
  return duration


def _track(track: Track, *, plays: list[_Play], silent: set[int]) -> Track:
  """Words and speech as played; the recorded agent's, too: nobody said them."""
  left_out = silent if track.role == Role.USER else set()
  return dataclasses.replace(
    track,
    audio=np.zeros(0, np.float32),
    words=tuple(_shifted(track.words, plays=plays, left_out=left_out)),
    spans=tuple(_shifted(track.spans, plays=plays, left_out=left_out)),
  )


def _shifted(
  items: Sequence[_Spoken], *, plays: list[_Play], left_out: set[int]
) -> Iterator[_Spoken]:
  """Words or spans, as often as they were played."""
  for play in plays:
    for item in items:
      tick = play.tick + clock.TICKS.window_of(item.start) - play.first
      if play.holds(item.start) and tick not in left_out:
        yield (
          dataclasses.replace(
            item, start=item.start + play.shift, end=item.end + play.shift
          )
          if play.shift
          else item
        )


def _later(time: float, play: _Play) -> float:
  """A time of the script in the conversation; the same where nothing moved."""
  return time + play.shift if play.shift else time


def _plays(steps: Sequence[Step]) -> list[_Play]:
  """Rows of windows that follow each other without a wait."""
  result: list[_Play] = []
  for tick, step in enumerate(steps):
    if step.position is None:
      continue
    last = result[-1] if result else None
    if last and step.position - tick == last.first - last.tick:
      result[-1] = dataclasses.replace(last, stop=step.position + 1)
    else:
      result.append(_Play(step.position, step.position + 1, tick))
  return result


def _windows(audio: np.ndarray, *, count: int) -> np.ndarray:
  """[count, samples], silent where the track has ended."""
  result = np.zeros(count * clock.TICKS.samples, np.float32)
  part = audio[: len(result)]
  result[: len(part)] = part
  return result.reshape(count, clock.TICKS.samples)


def _longest(active: np.ndarray) -> tuple[int, int]:
  """[first, stop) of the longest row of true values, without its edges.

  A window beside speech may have its first or last breath.
  """
  edges = np.flatnonzero(np.diff(np.concatenate([[0], active, [0]])))
  rows = [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
  first, stop = max(rows, key=lambda r: r[1] - r[0], default=(0, 0))
  return (first + 1, stop - 1) if stop - first > 2 else (first, stop)
