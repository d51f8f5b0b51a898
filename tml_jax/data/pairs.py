"""Pairs of text and something else as timelines on the clock.

For: importers of speech with transcripts and of pictures with captions. Not
for: reading them. Start at `heard`. What comes in is perceived first, what goes
out follows after a stated delay, so that nothing but time tells them apart from
conversations.
"""

import dataclasses

import numpy as np

from tml_jax.data import source, utterance
from tml_jax.data.source import Reason
from tml_jax.streams import clock
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Timeline,
  Track,
  VideoFrame,
)

MAX_SECONDS = 120.0  # of speech in a pair


@dataclasses.dataclass(frozen=True)
class About:
  """What every pair has.

  Attributes:
    id: of the timeline.
    text: the transcript or the caption.
    delay: seconds from the end of what is perceived to what follows.
    metadata: of the timeline.
    voice: who speaks, for splits and reports.
  """

  id: str
  text: str
  delay: float
  metadata: dict[str, str]
  voice: str = ""


def heard(samples: np.ndarray, *, about: About) -> Timeline:
  """Speech [n] that the user says; then its transcript is shown.

  Raises:
    source.BadRecording: no speech, or too much.
  """
  track = _speech(samples, role=Role.USER, about=about)
  return _shown(len(track.audio) / clock.SAMPLE_RATE, about, tracks=(track,))


def spoken(samples: np.ndarray, *, about: About) -> Timeline:
  """Text that the user types; then the agent says it as in speech [n].

  Raises:
    source.BadRecording: no speech, or too much.
  """
  return _said(
    0.0,
    about,
    samples=samples,
    events=(Event(0.0, EventKind.USER_TEXT, about.text),),
  )


def seen(
  video: tuple[VideoFrame, ...],
  *,
  about: About,
  seconds: float = 0.0,
  sound: np.ndarray | None = None,
  speech: np.ndarray | None = None,
) -> Timeline:
  """Pictures; then their caption is shown, or said where there is speech.

  Args:
    video: in order of time.
    about: the pair; its text is the caption.
    seconds: until nothing more is seen.
    sound: [n] of the clip, which the microphone hears.
    speech: [n] of the caption, read aloud.

  Raises:
    source.BadRecording: no speech, or too much.
  """
  tracks: tuple[Track, ...] = ()
  end = max([seconds, *(frame.time for frame in video)])
  if sound is not None and sound.size:
    tracks = (Track(Role.ENVIRONMENT, sound, (), (), about.voice),)
    end = max(end, len(sound) / clock.SAMPLE_RATE)
  if speech is None:
    return _shown(end, about, tracks=tracks, video=video)
  return _said(end, about, samples=speech, tracks=tracks, video=video)


def _shown(
  end: float,
  about: About,
  *,
  tracks: tuple[Track, ...],
  video: tuple[VideoFrame, ...] = (),
) -> Timeline:
  at = end + about.delay
  return Timeline(
    id=about.id,
    duration=at + clock.TICKS.seconds,
    tracks=tracks,
    video=video,
    events=(Event(at, EventKind.SHOW, about.text),),
    metadata=dict(about.metadata),
  )


def _said(
  end: float,
  about: About,
  *,
  samples: np.ndarray,
  tracks: tuple[Track, ...] = (),
  video: tuple[VideoFrame, ...] = (),
  events: tuple[Event, ...] = (),
) -> Timeline:
  at = end + about.delay
  track = _speech(samples, role=Role.AGENT, about=about, at=at)
  return Timeline(
    id=about.id,
    # Ends in a window of silence, in which the agent stops.
    duration=len(track.audio) / clock.SAMPLE_RATE + clock.TICKS.seconds,
    tracks=(*tracks, track),
    video=video,
    events=events,
    metadata=dict(about.metadata),
  )


def _speech(
  samples: np.ndarray, *, role: Role, about: About, at: float = 0.0
) -> Track:
  """Speech that begins at a time, its words spread over it."""
  utterance.check_samples(samples[None], max_seconds=MAX_SECONDS, name=about.id)
  audio, spans = utterance.trimmed(samples, name=about.id)
  words = utterance.spread_words(about.text, spans=spans)
  if not words:
    raise source.BadRecording(Reason.NO_TEXT, about.id)
  start = round(at * clock.SAMPLE_RATE)
  shift = start / clock.SAMPLE_RATE
  return Track(
    role=role,
    audio=np.concatenate([np.zeros(start, np.float32), audio]),
    words=tuple(
      dataclasses.replace(w, start=w.start + shift, end=w.end + shift)
      for w in words
    ),
    spans=tuple(
      dataclasses.replace(s, start=s.start + shift, end=s.end + shift)
      for s in spans
    ),
    voice=about.voice,
  )


def mono(samples: np.ndarray) -> np.ndarray:
  """[n] of [channels, n]: what a microphone would hear of them."""
  return samples.mean(axis=0, dtype=np.float32)
