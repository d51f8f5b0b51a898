"""The beginning of a long recording, to be held live.

For: recorded corpora in evaluations: a call of an hour would be held for an
hour. Not for: training, which reads all of it. Start at `beginning`.
"""

import dataclasses

from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

SECONDS = 120.0


def beginning(timeline: Timeline, *, seconds: float = SECONDS) -> Timeline:
  """The first `seconds`; the timeline itself where it is no longer.

  Words and speech that go on behind the end are cut there.
  """
  if timeline.duration <= seconds:
    return timeline
  tracks = tuple(
    dataclasses.replace(
      track,
      audio=track.audio[: round(seconds * clock.SAMPLE_RATE)],
      words=_until(track.words, seconds),
      spans=_until(track.spans, seconds),
    )
    for track in timeline.tracks
  )
  return dataclasses.replace(
    timeline,
    duration=seconds,
    tracks=tracks,
    video=tuple(frame for frame in timeline.video if frame.time < seconds),
    events=tuple(event for event in timeline.events if event.time < seconds),
    muted=_until(timeline.muted, seconds),
  )


def _until(parts: tuple, seconds: float) -> tuple:
  """Words or spans that have begun by then."""
  return tuple(
    dataclasses.replace(part, end=min(part.end, seconds))
    for part in parts
    if part.start < seconds
  )
