"""Conversations by formula, and one transform of `data.augment` on them.

For: tests of `data.augment`. Start at `apply`.
"""

import dataclasses

import numpy as np

from tests.helpers import sound
from tml_jax.data import options
from tml_jax.data.augment import TRANSFORMS, transform
from tml_jax.streams import clock
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  VideoFrame,
  Word,
)

CONVERSATION = {"kind": "conversation"}


def track(role, *, spans, seconds, seed=0, level=0.1):
  """Bursts of noise below 2 kHz over silence, in words of about 0.3 s."""
  random = np.random.default_rng([seed, list(Role).index(role)])
  audio, words = np.zeros(round(seconds * sound.RATE), np.float32), []
  for start, end in spans:
    first, stop = round(start * sound.RATE), round(end * sound.RATE)
    burst = np.convolve(random.standard_normal(stop - first), np.ones(4) / 4)
    audio[first:stop] = (level * 1.5 * burst[: stop - first]).clip(-1, 1)
    edges = np.linspace(start, end, max(2, round((end - start) / 0.3)))
    words += [
      Word(float(a), float(b), "yes")
      for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
  return Track(
    role, audio, tuple(words), tuple(Span(*s) for s in spans), str(role)
  )


def call(*, seconds=12.0, name="c", seed=0, **fields):
  """Turns of 3.7 s; every third the user begins 0.9 s before the agent ends.

  The user is speaking at 30 and at 60 s, where a corpus cuts its chunks.
  """
  user, agent = [], []
  for number, start in enumerate(np.arange(0.3, seconds - 3.7, 3.7)):
    begin = float(start) - (1.0 if number % 3 == 1 else 0.0)
    user.append((begin, float(start) + 1.5))
    agent.append((float(start) + 1.7, float(start) + 3.6))
  tracks = tuple(
    track(role, spans=spans, seconds=seconds, seed=seed)
    for role, spans in ((Role.USER, user), (Role.AGENT, agent))
  )
  return Timeline(
    id=name,
    duration=seconds,
    tracks=tracks,
    metadata=dict(CONVERSATION),
    **fields,
  )


def rich(*, seconds=12.0):
  """A call with typed text, pictures and a microphone that is off a while."""
  image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  return call(
    seconds=seconds,
    video=tuple(VideoFrame(float(t), image) for t in range(4)),
    events=(
      Event(1.0, EventKind.USER_TEXT, "typed"),
      Event(2.5, EventKind.SHOW, "shown"),
    ),
    muted=(Span(5.0, 5.4),),
  )


def made(name, **given):
  """A transform with these options, as text."""
  kind = TRANSFORMS[name]
  return kind(
    options.Options(
      {key: str(value) for key, value in given.items()},
      known=kind.OPTIONS,
      importer=name,
      common=transform.COMMON,
    )
  )


def apply(name, timeline, *, seed=0, grid=clock.TICKS, **given):
  """What a transform makes of a whole recording."""
  return made(name, **given).apply(
    timeline,
    random=np.random.default_rng(seed),
    around=transform.Around(
      ((0, transform.samples(timeline)),),
      grid,
      lambda: transform.Measured(timeline, transform.places(timeline)),
    ),
  )


def clicks(timeline):
  """The same with a click at the start of each word, and no other sound."""
  tracks = []
  for each in timeline.tracks:
    audio = np.zeros_like(each.audio)
    for word in each.words:
      audio[round(word.start * sound.RATE)] = 0.9
    tracks.append(dataclasses.replace(each, audio=audio))
  return dataclasses.replace(timeline, tracks=tuple(tracks))


def same(a, b):
  """Everything of two timelines, bit for bit."""
  bare = [
    dataclasses.replace(
      t,
      tracks=tuple(dataclasses.replace(x, audio=None) for x in t.tracks),
      video=tuple((f.time, f.image.tobytes()) for f in t.video),
    )
    for t in (a, b)
  ]
  return bare[0] == bare[1] and all(
    np.array_equal(x.audio, y.audio)
    for x, y in zip(a.tracks, b.tracks, strict=True)
  )
