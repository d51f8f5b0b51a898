"""How well words lie on the sound: swapped, late, drifting, at another rate.

For: the checks of words. Not for: writing words (`recognition`). Start reading
at `fit`. Words say when a side speaks, and so does the sound; the lag at which
the two patterns agree best is found by cross-correlation, first for ten minutes
as a whole, then for each third of a minute. A line through these lags (P. K.
Sen, J. Am. Stat. Assoc. 63, 1968) tells offset and drift.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from tml_jax.data.mend import activity
from tml_jax.data.mend.activity import STEP, Sounding
from tml_jax.streams.timeline import Track, Word

LEAST_WORDS = 20
_LEAST_SPEECH = 10.0  # seconds
# A correlation of patterns that fit. Words whose ends are wrong by 0.15 s reach
# 0.7; those of another conversation stay below 0.3.
GOOD = 0.4
_MOST_LAG = 10.0  # seconds of words against sound
_EXCERPT = 600.0  # seconds that are laid over each other as a whole
_WINDOW, _REACH = 20.0, 2.0  # seconds
_LEAST_IN_WINDOW = 2.0  # seconds of words
_CLEAR = 0.05  # by which a window's best lag is better than the next
_LEAST_WINDOWS, _LEAST_SPREAD = 5, 60.0
_FEW_WINDOWS, _ROUGH = 3, 0.5  # fewer windows are believed beyond 0.5 s
_MOST_SPREAD = 0.15  # seconds of lags around their line
RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000)
RATIOS = tuple(
  sorted(
    {
      round(a / b, 6)
      for a, b in itertools.permutations(RATES, 2)
      if 0.24 < a / b < 4.1
    }
  )
)
# Films that are played too fast, and clocks that are far off.
_NEAR = tuple(round(1 + 0.002 * k, 3) for k in range(-25, 26) if k)
# Of what is written as seconds: what one of it is.
UNITS = {
  "milliseconds": 1e-3,
  "microseconds": 1e-6,
  "nanoseconds": 1e-9,
  **{f"samples of {rate} Hz": 1 / rate for rate in RATES},
}


@dataclasses.dataclass(frozen=True)
class Line:
  """Where a track's sound is, against its words.

  Attributes:
    offset: seconds by which the sound is later than the words, at time 0 where
      it drifts for sure, else in the median.
    slope: seconds a second; None where the recording is too short.
    error: standard error of the slope.
    windows: in which the words found their sound.
  """

  offset: float
  slope: float | None
  error: float
  windows: int

  def tells(self, offset: float) -> bool:
    """Whether an offset of so many seconds is more than a few words' chance.

    Times of words that were spread over a segment are wrong by up to 0.2 s, all
    of a window together.
    """
    return self.windows >= _FEW_WINDOWS or abs(offset) > _ROUGH


@dataclasses.dataclass(frozen=True)
class Fit:
  """Words over sound: sound's time is scale times words' time and an offset.

  Attributes:
    own: correlation with the sound of the same track.
    crossed: with that of the other one; None for one track.
    scale: 1, or what fits far better.
    lines: of each track; None where its words are too few.
  """

  own: float
  crossed: float | None
  scale: float
  lines: tuple[Line | None, ...]


def fit(
  tracks: Sequence[Track], *, sounds: Sequence[Sounding], duration: float
) -> Fit | None:
  """Lays the words of one or two tracks over their sound.

  None where that tells nothing: words or speech are too few, or the words fit
  nowhere.
  """
  said = [track.words for track in tracks]
  if sum(map(len, said)) < LEAST_WORDS:
    return None
  if sum(each.seconds for each in sounds) < _LEAST_SPEECH:
    return None
  bins = int(np.ceil(duration / STEP))
  heard = activity.patterns(sounds, bins=bins)
  scale = 1.0
  own, crossed = _both(said, heard, scale=scale)
  if max(own.score, crossed.score) < GOOD:
    tried = [(*_both(said, heard, scale=s), s) for s in (*RATIOS, *_NEAR)]
    own, crossed, scale = max(
      tried, key=lambda each: max(each[0].score, each[1].score)
    )
    if max(own.score, crossed.score) < GOOD:
      return None
  is_own = own.score >= crossed.score
  first = own.seconds if is_own else crossed.seconds
  return Fit(
    own=own.score,
    crossed=crossed.score if len(tracks) > 1 else None,
    scale=scale,
    lines=tuple(
      _line(words, pattern, scale=scale, first=first)
      for words, pattern in zip(
        said, heard if is_own else heard[::-1], strict=True
      )
    ),
  )


def unit(
  tracks: Sequence[Track], *, sounds: Sequence[Sounding], duration: float
) -> str | None:
  """The name in `UNITS` of what words' times are in; None if none fits."""
  said = [track.words for track in tracks]
  if sum(map(len, said)) < LEAST_WORDS:
    return None
  last = max(word.end for words in said for word in words)
  heard = activity.patterns(sounds, bins=int(np.ceil(duration / STEP)))
  found = [
    (_both(said, heard, scale=scale)[0].score, name)
    for name, scale in UNITS.items()
    if 0.2 * duration < last * scale < 1.1 * duration
  ]
  score, name = max(found, default=(0.0, ""))
  return name if score >= GOOD else None


def _both(
  said: Sequence[Sequence[Word]], heard: Sequence[np.ndarray], *, scale: float
) -> tuple[activity.Lag, activity.Lag]:
  """Lag and score over the own sound, and over the other's."""
  bins = min(len(heard[0]), round(_EXCERPT / STEP))
  patterns = [_pattern(words, scale=scale, bins=bins) for words in said]
  own, crossed = [], []
  for number, pattern in enumerate(patterns):
    if said[number]:
      own.append((pattern, heard[number][:bins]))
      crossed.append((pattern, heard[-1 - number][:bins]))
  nothing = activity.Lag(0.0, -1.0, -1.0)
  return (
    activity.lag(own, most=_MOST_LAG) if own else nothing,
    activity.lag(crossed, most=_MOST_LAG) if len(heard) > 1 else nothing,
  )


def _pattern(words: Iterable[Word], *, scale: float, bins: int) -> np.ndarray:
  scaled = [Word(w.start * scale, w.end * scale, "") for w in words]
  return activity.covered(scaled, count=bins, step=STEP)


def _line(
  words: Sequence[Word], heard: np.ndarray, *, scale: float, first: float
) -> Line | None:
  """The line of one track; its lags are followed from window to window."""
  pattern = _pattern(words, scale=scale, bins=len(heard))
  width, reach = round(_WINDOW / STEP), round(_REACH / STEP)
  edge = round(_MOST_LAG * 3 / STEP)
  padded = np.pad(heard, edge)
  points: list[tuple[float, float]] = []
  for start in range(0, max(1, len(pattern) - width // 2), width):
    part = pattern[start : start + width]
    if part.sum() * STEP < _LEAST_IN_WINDOW:
      continue
    # A lag that is wrong leads nobody astray.
    at = float(np.median([lag for _, lag in points[-3:]])) if points else first
    moved = round(at / STEP)
    place = start + edge + moved
    if place < 0 or place + len(part) > len(padded):
      continue
    found = activity.lag(
      [(part, padded[place : place + len(part)])], most=reach * STEP
    )
    if found.score >= GOOD and found.score - found.next >= _CLEAR:
      points.append(
        ((start + len(part) / 2) * STEP, found.seconds + moved * STEP)
      )
  if not points:
    return None
  times, lags = np.array(points).T
  middle = float(np.median(lags))
  if len(points) < _LEAST_WINDOWS or np.ptp(times) < _LEAST_SPREAD:
    return Line(middle, None, 0.0, len(points))
  ahead, behind = np.triu_indices(len(times), 1)
  slope = float(
    np.median((lags[behind] - lags[ahead]) / (times[behind] - times[ahead]))
  )
  offset = float(np.median(lags - slope * times))
  left = lags - slope * times - offset
  spread = 1.48 * float(np.median(np.abs(left))) + 0.002
  if spread > _MOST_SPREAD:
    return Line(middle, None, 0.0, len(points))
  error = spread / float(np.sqrt(np.square(times - times.mean()).sum()))
  if abs(slope) < 4 * error:
    return Line(middle, slope, error, len(points))
  return Line(offset, slope, error, len(points))
