"""Where one channel is heard in the other: delay, drift between them, level.

For: echo of the agent in the user's channel, and for channels that were
recorded apart and do not begin together or run at the same rate. Not for:
taking it out (`cancel`). Start reading at `find`.

Stretches in which the source alone speaks are compared by the generalised
cross-correlation with phase transform (C. H. Knapp and G. C. Carter, IEEE
Trans. ASSP 24, 1976). A straight line through the delays tells drift.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import scipy.fft

from tml_jax.streams import clock

RATE = clock.SAMPLE_RATE
NOT_FOUND_DB = -80.0  # the level of a bleed that is not there
REACH = RATE  # samples of delay to both sides
_BLOCK = 2 * RATE  # samples that are compared at once
_SIZE = 1 << 16  # of the transform: a block and both reaches
_TAPER = RATE // 4
_BAND = (200.0, 3400.0)  # Hz; below is hum of the mains in both channels
# Peak over RMS of the correlation. The highest of 32,000 normal values is
# about 4.3; four of 6 on one line
# do not come by chance.
_CLEAR = 6.0
_SPEAKS = 0.4  # of a block that is compared
_WITHIN = 0.001  # seconds from the line
# Of the blocks, on it. Recordings share faint tones of their coder or of the
# mains, so that a few blocks agree by chance.
_LEAST_ON_LINE, _SHARE_ON_LINE = 4, 0.4
_STEEPEST = 0.005  # of the line
_MOST_BLOCKS = 16
_SHORTEST = 20.0  # seconds over which a slope is told
_CELL = 16  # samples whose energy is summed
_MOST_ENERGY = 4.0  # of one cell of one block; the mean is 1
_LEAST_SUMMED = 5  # blocks
_CLEAR_SUM = 8.0  # standard deviations
_FRAME = 4096  # samples, of the level


@dataclasses.dataclass(frozen=True)
class Bleed:
  """What was found of a source in another channel.

  Attributes:
    blocks: stretches that were compared; 0 is "not measurable".
    delay: seconds by which the other channel is later, at time 0; None where
      nothing was found.
    slope: seconds a second; None where the stretches are too few.
    level_db: of what is heard, relative to the source.
  """

  blocks: int
  delay: float | None = None
  slope: float | None = None
  level_db: float = NOT_FOUND_DB

  def at(self, seconds: float) -> float:
    """Delay at a time."""
    return (self.delay or 0.0) + (self.slope or 0.0) * seconds


def find(
  source: np.ndarray,
  other: np.ndarray,
  *,
  speaks: np.ndarray,
  covered: np.ndarray,
  step: float,
) -> Bleed:
  """Looks for a source [n] in another channel [m].

  Args:
    source: float32 at 16 kHz.
    other: the same of the channel in which it may be heard.
    speaks: [bins] from 0 to 1 where the source speaks.
    covered: [bins] the same of whoever belongs to the other channel.
    step: seconds of a bin.
  """
  samples = min(len(source), len(other))
  starts = _blocks(speaks, covered, step=step, samples=samples)
  if not starts:
    return Bleed(0)
  found = [_correlation(source, other, start=start) for start in starts]
  times = [start / RATE for start in starts]
  line = _line(
    [
      (time, lag)
      for time, (lag, height) in zip(times, map(_peak, found), strict=True)
      if height > _CLEAR
    ],
    least=max(_LEAST_ON_LINE, _SHARE_ON_LINE * len(starts)),
  )
  if line is None:
    line = _summed(found)
  if line is None:
    return Bleed(len(starts))
  level = _level(source, other, starts=starts, line=line)
  has_slope = times[-1] - times[0] > _SHORTEST
  return Bleed(len(starts), line[0], line[1] if has_slope else None, level)


def _blocks(
  speaks: np.ndarray, covered: np.ndarray, *, step: float, samples: int
) -> list[int]:
  """First samples of stretches in which the source speaks most, and alone."""
  width = round(_BLOCK / RATE / step)
  if len(speaks) <= width:
    return []

  def shares(of: np.ndarray) -> np.ndarray:
    sums = np.concatenate([[0.0], np.cumsum(of)])
    return (sums[width:] - sums[:-width]) / width

  share = shares(speaks)
  alone = share - shares(covered)
  alone[share < _SPEAKS] = -2.0
  found: list[int] = []
  for slot in np.array_split(np.arange(len(share)), _MOST_BLOCKS):
    if not len(slot):
      continue
    best = int(slot[alone[slot].argmax()])
    start = round(best * step * RATE)
    apart = not found or start - found[-1] >= _BLOCK
    if share[best] >= _SPEAKS and apart and start + _BLOCK <= samples:
      found.append(start)
  return found


def _correlation(
  source: np.ndarray, other: np.ndarray, *, start: int
) -> np.ndarray:
  """[2 reach + 1] float32 of a block, of RMS 1."""
  first = start - REACH
  heard = np.zeros(_BLOCK + 2 * REACH, np.float32)
  part = other[max(0, first) : start + _BLOCK + REACH]
  at = max(0, -first)
  heard[at : at + len(part)] = part
  # Ends that are cut would correlate with each other.
  block = source[start : start + _BLOCK] * _tapered(_BLOCK)
  cross = np.conj(scipy.fft.rfft(block, _SIZE))
  cross *= scipy.fft.rfft(heard * _tapered(len(heard)), _SIZE)
  frequency = np.arange(len(cross)) * (RATE / _SIZE)
  cross[(frequency < _BAND[0]) | (frequency > _BAND[1])] = 0
  size = np.abs(cross)
  # What is nothing in both channels has no phase.
  cross /= np.maximum(size, 1e-12 * float(size.max()) + 1e-30)
  found = scipy.fft.irfft(cross, _SIZE)[: 2 * REACH + 1]
  rms = float(np.sqrt(np.mean(np.square(found))))
  return found / max(rms, 1e-30)


@functools.cache
def _tapered(samples: int) -> np.ndarray:
  """[samples] float32: 1 with soft ends."""
  found = np.ones(samples, np.float32)
  ramp = np.sin(np.linspace(0, np.pi / 2, _TAPER, dtype=np.float32)) ** 2
  found[:_TAPER], found[-_TAPER:] = ramp, ramp[::-1]
  return found


def _peak(found: np.ndarray) -> tuple[float, float]:
  """Delay in seconds of the highest peak, and its height."""
  size = np.abs(found)  # a channel may be turned over
  best = int(size.argmax())
  return (best - REACH) / RATE, float(size[best])


def _summed(found: Sequence[np.ndarray]) -> tuple[float, float] | None:
  """The delay at which the correlations of all blocks have most energy.

  This finds faint and reverberant bleed, of which no block alone has a clear
  peak, where nothing drifts.
  """
  if len(found) < _LEAST_SUMMED:
    return None
  cells = 2 * REACH // _CELL
  total = np.zeros(cells)
  for each in found:
    energy = np.square(each[: cells * _CELL]).reshape(-1, _CELL).mean(axis=1)
    # One loud block must not be a peak by itself.
    total += np.minimum(energy, _MOST_ENERGY)
  best = int(total.argmax())
  if total[best] - total.mean() < _CLEAR_SUM * total.std():
    return None
  return ((best + 0.5) * _CELL - REACH) / RATE, 0.0


def _line(
  points: Sequence[tuple[float, float]], *, least: float
) -> tuple[float, float] | None:
  """Delay at 0 and slope of the line that most points lie on; at least some.

  Every pair of points is tried (RANSAC with all samples), then least squares.
  """
  if len(points) < least:
    return None
  times, lags = np.array(points).T
  best = np.zeros(0, int)
  for first in range(len(times)):
    for second in range(first + 1, len(times)):
      slope = (lags[second] - lags[first]) / (times[second] - times[first])
      if abs(slope) > _STEEPEST:
        continue
      off = lags - lags[first] - slope * (times - times[first])
      on = np.flatnonzero(np.abs(off) < _WITHIN)
      if len(on) > len(best):
        best = on
  if len(best) < least:
    return None
  slope, delay = np.polyfit(times[best], lags[best], 1)
  return float(delay), float(slope)


def _level(
  source: np.ndarray,
  other: np.ndarray,
  *,
  starts: Sequence[int],
  line: tuple[float, float],
) -> float:
  """dB of what is coherent with the source, relative to the source.

  Welch's estimate of the coherence over frames of 128 ms, less its bias of one
  part in the number of frames.
  """
  window = np.hanning(_FRAME).astype(np.float32)
  auto = np.zeros(_FRAME // 2 + 1)
  heard = np.zeros_like(auto)
  cross = np.zeros_like(auto, dtype=complex)
  frames = 0
  for start in starts:
    shift = round((line[0] + line[1] * start / RATE) * RATE) - _FRAME // 8
    first = max(start, -shift)
    last = min(start + _BLOCK, len(source), len(other) - shift)
    for at in range(first, last - _FRAME, _FRAME // 2):
      x = scipy.fft.rfft(source[at : at + _FRAME] * window)
      y = scipy.fft.rfft(other[at + shift : at + shift + _FRAME] * window)
      auto += np.square(np.abs(x))
      heard += np.square(np.abs(y))
      cross += np.conj(x) * y
      frames += 1
  if frames < 2 or not auto.any():
    return NOT_FOUND_DB
  power = np.square(np.abs(cross)) / np.maximum(auto, 1e-20)
  power = np.maximum(power - heard / frames, 0) * frames / (frames - 1)
  ratio = float(power.sum() / auto.sum())
  return max(NOT_FOUND_DB, 10 * float(np.log10(max(ratio, 1e-12))))
