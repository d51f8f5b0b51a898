"""Calls of two with a fault that is planted, of any size.

For: benchmarks.data_faults, and the tests of `data.mend`. Not for: training.
Start reading at `call`; the other functions make a faulty call of a good one.
"""

import dataclasses
import fractions
from collections.abc import Mapping

import numpy as np
import scipy.signal

from benchmarks import made_calls
from tml_jax.data import audio as audio_lib
from tml_jax.data import source
from tml_jax.data.mend import resample
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline, Track, Word

_RATE = clock.SAMPLE_RATE
_TAIL = 0.04  # seconds in which an echo falls by 8.7 dB
_DIRECT = 15.0  # its first sample, over the deviation of the tail's first


def call(
  number: int,
  voices: Mapping[Role, list[Track]],
  *,
  seconds: float,
  noise: float = -60.0,
  jitter: float = 0.05,
) -> Timeline:
  """A call without a fault, the same every time.

  Args:
    number: of the call.
    voices: prompts of each side.
    seconds: of the call.
    noise: dBFS RMS of white noise in each channel.
    jitter: seconds, standard deviation of the ends of words.
  """
  random = np.random.default_rng(number)
  samples = round(seconds * _RATE)
  sound = {role: np.zeros(samples, np.float32) for role in voices}
  said: dict[Role, list[Word]] = {role: [] for role in voices}
  for at, role, prompt in made_calls.turns(random, voices, seconds=seconds):
    first = round(at * _RATE)
    sound[role][first : first + len(prompt.audio)] += prompt.audio
    for word in prompt.words:
      start, end = np.array([word.start, word.end]) + random.normal(
        at, jitter, 2
      )
      start = float(np.clip(start, 0, seconds - 0.01))
      end = float(np.clip(end, start + 0.01, seconds))
      said[role].append(Word(start, end, word.text))
  tracks = []
  for role, audio in sound.items():
    audio += random.normal(0, 10 ** (noise / 20), samples).astype(np.float32)
    words = tuple(sorted(said[role], key=lambda w: (w.start, w.end)))
    tracks.append(track_of(role, audio, words=words))
  return Timeline(
    id=f"made/{number}",
    duration=seconds,
    tracks=tuple(tracks),
    metadata={"kind": "conversation", "language": "en", "licence": ""},
  )


def track_of(role: Role, audio: np.ndarray, *, words: tuple) -> Track:
  """A track whose spans are those of its sound, as importers make them."""
  spans = tuple(audio_lib.speech_spans(audio, name=str(role)))
  return Track(role, audio.astype(np.float32), words, spans, str(role))


def with_sound(item: Timeline, sounds: Mapping[Role, np.ndarray]) -> Timeline:
  """The call with another sound of some sides."""
  return dataclasses.replace(
    item,
    tracks=tuple(
      track_of(track.role, sounds[track.role], words=track.words)
      if track.role in sounds
      else track
      for track in item.tracks
    ),
  )


def sound(item: Timeline, role: Role) -> np.ndarray:
  return item.track(role).audio


def swapped(item: Timeline) -> Timeline:
  """Each side has the sound of the other."""
  user, agent = sound(item, Role.USER), sound(item, Role.AGENT)
  return with_sound(item, {Role.USER: agent, Role.AGENT: user})


def words_moved(item: Timeline, *, late: float = 0.0, ppm: float = 0.0):
  """Sound is late against words, and drifts."""

  def moved(word: Word) -> Word:
    start, end = (
      float(np.clip((at - late) / (1 + ppm * 1e-6), 0, item.duration))
      for at in (word.start, word.end)
    )
    return Word(start, end, word.text)

  return dataclasses.replace(
    item,
    tracks=tuple(
      dataclasses.replace(t, words=tuple(map(moved, t.words)))
      for t in item.tracks
    ),
  )


def user_moved(item: Timeline, *, late: float = 0.0, ppm: float = 0.0):
  """The user's channel is late against the agent's, and drifts."""
  audio = sound(item, Role.USER)
  if not ppm:
    moved = np.roll(audio, round(late * _RATE))
    return with_sound(item, {Role.USER: moved})
  factor = 1 / (1 + ppm * 1e-6)
  moved = resample.warped(
    audio, factor=factor, shift=-late * factor, samples=len(audio)
  )
  return with_sound(item, {Role.USER: moved})


def bled(
  item: Timeline,
  *,
  level: float,
  delay: float,
  source_role: Role = Role.AGENT,
  seed: int = 0,
) -> Timeline:
  """One side is heard in the other's channel, over a room."""
  random = np.random.default_rng(seed)
  taps = random.normal(size=round(5 * _TAIL * _RATE))
  taps *= np.exp(-np.arange(len(taps)) / (_TAIL * _RATE))
  taps[0] = _DIRECT
  taps *= 10 ** (level / 20) / np.sqrt(np.square(taps).sum())
  said = sound(item, source_role)
  other = Role.USER if source_role is Role.AGENT else Role.AGENT
  echo = scipy.signal.fftconvolve(said, taps.astype(np.float32))[: len(said)]
  shift = round(delay * _RATE)
  late = np.zeros(len(said), np.float32)
  late[shift:] = echo[: len(echo) - shift]
  return with_sound(item, {other: sound(item, other) + late})


def silent(item: Timeline, role: Role, *, level: float = -75.0) -> Timeline:
  """Nothing but faint noise of one side."""
  random = np.random.default_rng(0)
  count = len(sound(item, role))
  audio = random.normal(0, 10 ** (level / 20), count).astype(np.float32)
  return with_sound(item, {role: audio})


def at_rate(item: Timeline, *, factor: float) -> Timeline:
  """Its sound lasts so many times as long as it should, as of a wrong header.

  A call whose words then lie beyond its end is what an importer gives as
  `source.Beyond`: `as_read` makes that of it.
  """
  ratio = fractions.Fraction(factor).limit_denominator(1000)
  sounds = {
    track.role: scipy.signal.resample_poly(
      track.audio, ratio.numerator, ratio.denominator
    ).astype(np.float32)
    for track in item.tracks
  }
  samples = max(map(len, sounds.values()))
  item = dataclasses.replace(item, duration=samples / _RATE)
  return with_sound(item, sounds)


def in_units(item: Timeline, *, second: float) -> Timeline:
  """Times of words as numbers of which so many are a second."""
  return dataclasses.replace(
    item,
    tracks=tuple(
      dataclasses.replace(
        track,
        words=tuple(
          Word(w.start * second, w.end * second, w.text) for w in track.words
        ),
      )
      for track in item.tracks
    ),
  )


def as_read(item: Timeline) -> Timeline | source.Beyond:
  """What an importer gives: a timeline, or one whose words lie beyond it."""
  starts = [word.start for track in item.tracks for word in track.words]
  if 2 * sum(start >= item.duration for start in starts) > len(starts):
    return source.Beyond(f"{item.id}: words lie outside", items=(item,))
  if max(starts, default=0.0) < item.duration:
    return item
  words = {
    track.role: tuple(
      Word(w.start, min(w.end, item.duration), w.text)
      for w in track.words
      if w.start < item.duration
    )
    for track in item.tracks
  }
  return dataclasses.replace(
    item,
    tracks=tuple(
      dataclasses.replace(t, words=words[t.role]) for t in item.tracks
    ),
  )
