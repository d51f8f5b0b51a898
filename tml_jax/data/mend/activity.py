"""When each side sounds, and when its words say so, on one grid.

For: the checks that lay words over sound. Not for: speech spans (`audio`).
Start reading at `of`; `lag` lays one pattern over another.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.fft
import scipy.ndimage

from tml_jax.data import audio as audio_lib
from tml_jax.streams.timeline import Span, Track, Word

STEP = 0.02  # seconds of a bin; two frames of `audio.levels`
_BELOW = 25.0  # dB below a channel's loud frames that still are its speech
_LOUDER = 10.0  # dB by which the other side covers this one: it is its bleed


@dataclasses.dataclass(frozen=True)
class Sounding:
  """One track as the checks see it.

  Attributes:
    level: [frames] dBFS of 10 ms.
    loud: dBFS of its speech: the 95th percentile of the frames in its spans.
    spans: of the sound, by level, whatever the track says.
  """

  level: np.ndarray
  loud: float
  spans: tuple[Span, ...]

  @property
  def seconds(self) -> float:
    """Of speech."""
    return sum(span.end - span.start for span in self.spans)


def of(track: Track) -> Sounding:
  """Measures a track."""
  level = audio_lib.levels(track.audio)
  spans = tuple(
    audio_lib.spans_of_levels(level, samples=len(track.audio), min_gap=0.2)
  )
  inside = covered(spans, count=len(level), step=0.01) > 0.5
  loud = float(np.percentile(level[inside], 95)) if inside.any() else -120.0
  return Sounding(level=level, loud=loud, spans=spans)


def is_measured(track: Track) -> bool:
  """Its spans are those that `audio.speech_spans` finds: nobody gave others."""
  found = audio_lib.spans_of_levels(
    audio_lib.levels(track.audio), samples=len(track.audio), min_gap=0.2
  )
  return tuple(found) == track.spans


def patterns(sounds: Sequence[Sounding], *, bins: int) -> list[np.ndarray]:
  """[bins] float32 of each: 1 where it speaks and is not the other's bleed."""
  loud = [
    scipy.ndimage.maximum_filter1d(each.level - each.loud, 5) for each in sounds
  ]
  found = []
  for number, each in enumerate(sounds):
    own = loud[number] > -_BELOW
    own &= covered(each.spans, count=len(own), step=0.01) > 0.5
    for other in loud[:number] + loud[number + 1 :]:
      count = min(len(own), len(other))
      own[:count] &= loud[number][:count] > other[:count] - _LOUDER
    half = np.zeros(2 * bins, np.float32)
    half[: len(own)] = own[: 2 * bins]
    found.append(half.reshape(-1, 2).mean(axis=1))
  return found


def covered(
  stretches: Sequence[Span | Word], *, count: int, step: float
) -> np.ndarray:
  """[count] float32: the share of each bin that some stretch covers."""
  if not stretches:
    return np.zeros(count, np.float32)
  times = np.array([(each.start, each.end) for each in stretches]) / step
  edges = np.zeros(count + 2)
  for at, sign in ((times[:, 0], 1.0), (times[:, 1], -1.0)):
    at = np.clip(at, 0, count)
    whole = np.floor(at).astype(int)
    # A ramp from nothing to one over the bin in which it begins or ends.
    np.add.at(edges, whole, sign * (1 - (at - whole)))
    np.add.at(edges, whole + 1, sign * (at - whole))
  return np.minimum(np.cumsum(edges)[:count], 1.0).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Lag:
  """How one pattern lies over another.

  Attributes:
    seconds: by which the second is later.
    score: correlation there, at most 1.
    next: the best correlation that is over `APART` seconds away.
  """

  seconds: float
  score: float
  next: float


APART = 1.0


def lag(pairs: Sequence[tuple[np.ndarray, np.ndarray]], *, most: float) -> Lag:
  """The common lag of patterns [bins] of the same length, up to `most` seconds.

  The normalised cross-correlations of all pairs are summed, weighted by how
  much each pattern varies; a parabola through the peak gives parts of bins.
  """
  reach = max(1, round(most / STEP))
  total, power = np.zeros(2 * reach + 1), 1e-12
  for first, second in pairs:
    count = len(first)
    size = scipy.fft.next_fast_len(count + reach + 1, real=True)
    a = scipy.fft.rfft(first - first.mean(), size)
    b = scipy.fft.rfft(second - second.mean(), size)
    found = scipy.fft.irfft(np.conj(a) * b, size)
    total += np.concatenate([found[-reach:], found[: reach + 1]])
    power += float(np.sqrt(first.var() * second.var())) * count
  score = total / power
  best = int(score.argmax())
  away = np.abs(np.arange(len(score)) - best) * STEP > APART
  at = float(best)
  if 0 < best < len(score) - 1:
    left, mid, right = score[best - 1 : best + 2]
    bend = left - 2 * mid + right
    if bend < 0:
      at += 0.5 * (left - right) / bend
  return Lag(
    seconds=(at - reach) * STEP,
    score=float(score[best]),
    next=float(score[away].max(initial=-1.0)),
  )
