"""Rooms and microphones, as impulse responses.

For: `data.augment=room:...` and `microphone:...`. Start at `Room`. The direct
sound stays where it was, to the sample: a response of a folder is taken from
its highest peak on, or around it, and has unit power, so that levels stay
about what they were.
"""

from collections.abc import Callable

import numpy as np

from tml_jax.data import options as options_lib
from tml_jax.data.augment import TRANSFORMS, filters, transform
from tml_jax.data.augment import folder as folder_lib
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

_SECONDS = 2.0  # of a response, at most
_BEFORE = clock.SAMPLE_RATE // 100  # 10 ms before the peak of a microphone's
_TAPS = 511  # of a drawn microphone: 32 ms
_OCTAVES = 62.5 * 2.0 ** np.arange(8)  # Hz, to 8 kHz
_FIRST = clock.SAMPLE_RATE // 400  # 2.5 ms, when the first reflections come


class _Response(transform.Transform):
  """The user's sound, and the environment's, through one filter.

  Attributes:
    cut: makes of a file's [channels, n] samples the taps that are used.
  """

  cut: Callable[[np.ndarray], np.ndarray]

  def __init__(self, options: options_lib.Options):
    self._folder = None
    self.reach = filters.reach(round(_SECONDS * clock.SAMPLE_RATE))
    if options["folder"]:
      self._folder = folder_lib.Folder(
        options["folder"], what=options.where("folder")
      )

  def _drawn(self, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """Taps and which of them is the direct sound, without a folder."""
    raise NotImplementedError

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    transform.microphone(timeline)  # or there is nothing to be filtered
    if self._folder is None:
      taps, centre = self._drawn(random)
    else:
      number = int(random.integers(len(self._folder)))
      taps = self._folder.sound(number, make=self.cut)
      centre = int(np.abs(taps).argmax())
    power = float(np.square(taps, dtype=np.float64).sum())
    if not power:
      raise transform.NotFor("an impulse response without sound")
    taps = taps / np.sqrt(power)

    def make(samples: np.ndarray, first: int) -> np.ndarray:
      return filters.convolve(samples, taps=taps, first=first, centre=centre)

    return transform.filtered(
      timeline,
      of=transform.Side.USER,
      around=around,
      make=make,
      length=transform.samples(timeline),
    )


def _from_peak(channels: np.ndarray) -> np.ndarray:
  """The first channel from its peak on."""
  peak = int(np.abs(channels[0]).argmax())
  return channels[0][peak : peak + round(_SECONDS * clock.SAMPLE_RATE)].copy()


def _around_peak(channels: np.ndarray) -> np.ndarray:
  """The first channel from 10 ms before its peak on."""
  peak = int(np.abs(channels[0]).argmax())
  first = max(0, peak - _BEFORE)
  stop = first + round(_SECONDS * clock.SAMPLE_RATE)
  return channels[0][first:stop].copy()


@TRANSFORMS.register("room")
class Room(_Response):
  """The user speaks in a room.

  Without a folder the tail is Gaussian noise that falls by 60 dB in `rt60`
  seconds (Polack's model, 1988), from 2.5 ms after the direct sound on, with
  the power of the direct sound less `drr` dB (direct-to-reverberant ratio).
  """

  cut = staticmethod(_from_peak)
  OPTIONS = {"folder": "", "rt60": "0.2..0.8", "drr": "0..15"}

  def __init__(self, options: options_lib.Options):
    super().__init__(options)
    self._rt60 = options.range("rt60", low=0.05, high=2.0)
    self._drr = options.range("drr", low=-10, high=40)
    if self._folder is None:
      self.reach = filters.reach(round(self._rt60.high * clock.SAMPLE_RATE))

  def _drawn(self, random: np.random.Generator) -> tuple[np.ndarray, int]:
    rt60, drr = self._rt60.draw(random), self._drr.draw(random)
    count = round(rt60 * clock.SAMPLE_RATE)
    times = np.arange(count) / clock.SAMPLE_RATE
    tail = random.standard_normal(count) * 10 ** (-3 * times / rt60)
    tail[:_FIRST] = 0
    tail *= np.sqrt(10 ** (-drr / 10) / np.square(tail).sum())
    tail[0] = 1
    return tail, 0


@TRANSFORMS.register("microphone")
class Microphone(_Response):
  """The user has another microphone.

  Without a folder its response differs in every octave by up to `ripple` dB,
  either way, without delay.
  """

  cut = staticmethod(_around_peak)
  OPTIONS = {"folder": "", "ripple": "2..6"}

  def __init__(self, options: options_lib.Options):
    super().__init__(options)
    self._ripple = options.range("ripple", low=0, high=30)
    if self._folder is None:
      self.reach = filters.reach(_TAPS)

  def _drawn(self, random: np.random.Generator) -> tuple[np.ndarray, int]:
    ripple = self._ripple.draw(random)
    gains = random.uniform(-ripple, ripple, len(_OCTAVES))
    taps = filters.shaped(_OCTAVES, decibels=gains, taps=_TAPS)
    return taps, _TAPS // 2
