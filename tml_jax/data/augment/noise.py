"""Noise in the user's microphone.

For: `data.augment=noise:...`, sounds of a folder or coloured noise. Not for:
somebody else who talks (`scenarios.side_talk`). Start at `Noise`.
"""

import functools
from collections.abc import Callable

import numpy as np

from tml_jax.data import noise as noise_lib
from tml_jax.data import options as options_lib
from tml_jax.data.augment import TRANSFORMS, transform
from tml_jax.data.augment import folder as folder_lib
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline, Track

_FADE = clock.SAMPLE_RATE // 20  # 50 ms, from the end of a loop into its start
# Noise that comes and goes may be silent while somebody speaks. It is then not
# taken for softer than so many dB below its mean.
_LEAST_DB = -10.0
_LOOP = 1 << 19  # samples; an offset into coloured noise is below


@TRANSFORMS.register("noise")
class Noise(transform.Transform):
  """Noise at a ratio of powers to the user's speech, where it is speech.

  The ratio is of the mean power of the user's track and of the noise over the
  user's spans (of a long recording, those in four chunks of it). The noise is a
  file of the folder, from a drawn place on and in a loop, or without a folder
  white, pink or brown.
  """

  OPTIONS = {"folder": "", "snr": "5..20"}

  def __init__(self, options: options_lib.Options):
    self._snr = options.range("snr", low=-20, high=60)
    self._folder = None
    if options["folder"]:
      self._folder = folder_lib.Folder(
        options["folder"], what=options.where("folder")
      )

  def digest(self) -> str:
    """Of the files of the folder; "" where there is none."""
    return self._folder.digest() if self._folder else ""

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    transform.microphone(timeline)  # before anything is drawn
    snr, choice = self._snr.draw(random), random.random()
    offset = int(random.integers(1 << 40))
    take = self._noise(choice, offset=offset)
    return mixed(timeline, take=take, snr_db=snr, around=around)

  def _noise(
    self, choice: float, *, offset: int
  ) -> functools.partial[np.ndarray]:
    """Gives [count] float32 of unit power from a sample of the recording on.

    Args:
      choice: from 0 to 1, which of the noises.
      offset: into its loop.
    """
    if self._folder is None:
      colours = list(noise_lib.Colour)
      colour = colours[int(choice * len(colours))]
      return functools.partial(_coloured, colour, offset % _LOOP)
    loop = self._folder.sound(int(choice * len(self._folder)), make=_loop)
    return functools.partial(_looped, loop, offset)


def mixed(
  timeline: Timeline,
  *,
  take: Callable[[int, int], np.ndarray],
  snr_db: float,
  around: transform.Around,
) -> Timeline:
  """The timeline with noise in its microphone.

  Args:
    timeline: the recording.
    take: gives [count] float32 of unit power, mean over all of it, of (first
      sample of the recording, count).
    snr_db: decibels from the noise to the user's speech, see `Noise`.
    around: where its sound is.

  Raises:
    transform.NotFor: no microphone, or no speech of the user in it.
  """
  number = transform.microphone(timeline)
  measured = around.measured()
  heard = measured.timeline.tracks[number]
  spans = [
    (first, stop)
    for first, stop in _active(heard, measured=measured)
    if heard.audio[first:stop].any()
  ]
  if not spans:
    raise transform.NotFor("no speech of the user")
  wanted = _power([heard.audio[first:stop] for first, stop in spans])
  wanted /= 10 ** (snr_db / 10)
  found = _power([take(first, stop - first) for first, stop in spans])
  found = max(found, 10 ** (_LEAST_DB / 10))  # its mean is 1
  factor = np.float32(np.sqrt(wanted / found))

  def add(samples: np.ndarray, first: int) -> np.ndarray:
    return samples + factor * take(first, len(samples))

  track = transform.with_sound(
    timeline.tracks[number],
    around=around,
    make=add,
    length=transform.samples(timeline),
  )
  return transform.replaced(timeline, number, track=track)


def _coloured(
  colour: noise_lib.Colour, offset: int, first: int, count: int
) -> np.ndarray:
  return noise_lib.take(colour, count=count, offset=(first + offset) % _LOOP)


def _looped(
  loop: np.ndarray, offset: int, first: int, count: int
) -> np.ndarray:
  at = (first + offset) % len(loop)
  return np.resize(np.concatenate([loop[at:], loop[:at]]), count)


def _loop(channels: np.ndarray) -> np.ndarray:
  """[n] of unit power, whose end runs into its beginning; silence stays so."""
  mono = channels.mean(axis=0, dtype=np.float32)
  fade = min(_FADE, len(mono) // 4)
  if fade:
    angle = (np.arange(fade, dtype=np.float32) + 0.5) / fade * (np.pi / 2)
    mono, end = mono[:-fade].copy(), mono[-fade:]
    mono[:fade] = mono[:fade] * np.sin(angle) + end * np.cos(angle)
  mono -= mono.mean()
  power = _power([mono])
  return mono / np.float32(np.sqrt(power)) if power else mono


def _power(parts: list[np.ndarray]) -> float:
  """Mean square of all samples."""
  total = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)
  return total / max(1, sum(map(len, parts)))


def _active(
  track: Track, *, measured: transform.Measured
) -> list[tuple[int, int]]:
  """Samples of speech in the places where it is measured."""
  found = []
  for span in track.spans:
    for place in measured.places:
      first = round(max(span.start, place.start) * clock.SAMPLE_RATE)
      stop = round(min(span.end, place.end) * clock.SAMPLE_RATE)
      stop = min(stop, len(track.audio))
      if first < stop:
        found.append((first, stop))
  return found
