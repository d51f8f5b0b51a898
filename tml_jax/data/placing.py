"""Blocks of decoded sound with times become one array at 16 kHz.

For: `media`, as it decodes. Not for: files, or sound that is whole. Start
reading at `Placed`.

Sound is resampled as it comes, with FFmpeg's resampler: 20 minutes of 48 kHz
stereo take 160 MB, which are the result; whole they took 2.4 GB.
"""

import av
import numpy as np

from tml_jax.data import source
from tml_jax.streams import clock

# Hz. The resampler's filter grows with the ratio of rates.
_RATES = range(1_000, 768_001)
# Seconds by which a time may differ from the sum of the samples before it:
# containers round to 1 ms, browsers' recordings jitter by some ms more.
_JITTER = 0.04
_RUNS_BACK = 1.0  # seconds of overlap that are no longer a cut
_BLOCK = 1 << 16  # samples that are resampled at once


class Placed:
  """Samples that were resampled and put in their places as they came.

  Attributes:
    seconds: from the first sample to the last.
  """

  def __init__(self, declared: float, *, name: str, seconds: float, bytes: int):
    """Makes room.

    Args:
      declared: seconds that the file says it has; 0 if it does not.
      name: for messages.
      seconds, bytes: at most.

    Raises:
      source.BadRecording: more is declared.
    """
    self._name, self._most, self._bytes = name, seconds, bytes
    self._check_seconds(declared)
    self._size = int((declared + 1) * clock.SAMPLE_RATE)  # room at first
    self._samples = np.zeros((0, 0), np.float32)  # [channels, room]
    self._start: int | None = None
    self._end = 0
    self._run: _Run | None = None

  @property
  def seconds(self) -> float:
    return (self._end - (self._start or 0)) / clock.SAMPLE_RATE

  def add(self, samples: np.ndarray, *, rate: int, at: float | None) -> None:
    """Appends [channels, n] at `rate` Hz, or puts them at `at` seconds."""
    if self._run is None:
      self._begin(samples, rate=rate, at=at or 0.0)
    elif rate != self._run.rate or len(samples) != len(self._samples):
      raise ValueError(
        f"its sound changes from {len(self._samples)} channels at"
        f" {self._run.rate} Hz to {len(samples)} at {rate} Hz"
      )
    elif at is not None and abs(at - self._run.end) > _JITTER:
      if at < self._run.end - _RUNS_BACK:
        raise ValueError(
          f"its time goes back from {self._run.end:.2f} to {at:.2f} s"
        )
      self._check_seconds(at)
      self._put(self._run.finish())
      self._begin(samples, rate=rate, at=at)
    assert self._run is not None  # `_begin` has been called
    self._put(self._run.push(samples))

  def finish(self) -> np.ndarray:
    """[channels, n] of everything."""
    if self._run is not None:
      self._put(self._run.finish())
    samples = self._samples[:, : self._end]
    # What is declared may be far more than what came.
    return samples if 2 * self._end > self._size else samples.copy()

  def _begin(self, samples: np.ndarray, *, rate: int, at: float) -> None:
    if rate not in _RATES:
      raise ValueError(
        f"{rate} Hz is not between {_RATES[0]} and {_RATES[-1]} Hz"
      )
    if self._run is None:
      self._samples = np.zeros(
        (len(samples), self._room(len(samples))), np.float32
      )
    self._run = _Run(rate, channels=len(samples), at=at)

  def _put(self, samples: np.ndarray) -> None:
    """Writes the run's next [channels, n] at 16 kHz."""
    assert self._run is not None  # `_begin` has been called
    start = self._run.place
    end = start + samples.shape[1]
    self._run.place = end
    self._start = start if self._start is None else self._start
    self._check_seconds(end / clock.SAMPLE_RATE)
    if end > self._size:
      self._size = end + end // 2
      room = self._room(len(samples))
      if end > room:
        raise source.BadRecording(
          source.Reason.TOO_LARGE,
          f"{self._name}: {len(samples)} channels of"
          f" {end / clock.SAMPLE_RATE:.1f} s are over {self._bytes}"
          " bytes",
        )
      larger = np.zeros((len(samples), room), np.float32)
      larger[:, : self._end] = self._samples[:, : self._end]
      self._samples = larger
    self._samples[:, start:end] = samples
    self._end = max(self._end, end)

  def _check_seconds(self, seconds: float) -> None:
    if seconds > self._most:
      raise source.BadRecording(
        source.Reason.TOO_LONG,
        f"{self._name}: {seconds:.1f} s, over {self._most} s",
      )

  def _room(self, channels: int) -> int:
    """Samples a channel that are allocated, at most what limits allow."""
    self._size = min(
      self._size,
      int(self._most * clock.SAMPLE_RATE) + 1,
      self._bytes // (4 * channels),
    )
    return self._size


class _Run:
  """Sound without a gap, resampled block by block.

  Attributes:
    rate: Hz of what is pushed.
    place: sample at 16 kHz where what comes next is put.
  """

  def __init__(self, rate: int, *, channels: int, at: float):
    self.rate, self._at = rate, at
    self.place = self._first = max(0, round(at * clock.SAMPLE_RATE))
    self._pushed = 0
    self._waiting: list[np.ndarray] = []
    self._num_waiting = 0
    self._resamplers = [
      av.AudioResampler(format="fltp", layout="mono", rate=clock.SAMPLE_RATE)
      for _ in range(channels)
    ]

  @property
  def end(self) -> float:
    """Seconds, by the number of samples."""
    return self._at + self._pushed / self.rate

  def push(self, samples: np.ndarray) -> np.ndarray:
    """[channels, n] at `rate` in, what is ready of it at 16 kHz out."""
    self._pushed += samples.shape[1]
    if self.rate == clock.SAMPLE_RATE:
      return samples
    self._waiting.append(samples)
    self._num_waiting += samples.shape[1]
    if self._num_waiting < _BLOCK:
      return samples[:, :0]
    return self._resample(is_last=False)

  def finish(self) -> np.ndarray:
    """The rest; with it the run is as long as what was pushed, rounded."""
    channels = len(self._resamplers)
    count = round(self._pushed * clock.SAMPLE_RATE / self.rate)
    count = max(count, min(1, self._pushed)) + self._first - self.place
    rest = np.zeros((channels, count), np.float32)
    if self.rate != clock.SAMPLE_RATE:
      found = self._resample(is_last=True)[:, :count]
      rest[:, : found.shape[1]] = found
    return rest

  def _resample(self, *, is_last: bool) -> np.ndarray:
    both = np.concatenate(self._waiting, axis=1) if self._waiting else None
    self._waiting, self._num_waiting = [], 0
    return np.stack(
      [
        self._channel(i, None if both is None else both[i], is_last=is_last)
        for i in range(len(self._resamplers))
      ]
    )

  def _channel(
    self, i: int, samples: np.ndarray | None, *, is_last: bool
  ) -> np.ndarray:
    found = [np.zeros(0, np.float32)]
    if samples is not None:
      frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples[None]), format="fltp", layout="mono"
      )
      frame.sample_rate = self.rate
      found += [f.to_ndarray()[0] for f in self._resamplers[i].resample(frame)]
    if is_last:
      found += [f.to_ndarray()[0] for f in self._resamplers[i].resample(None)]
    return np.concatenate(found)
