"""Recordings that are faster or slower.

For: `data.augment=speed:...`. Not for: stretches of long recordings, whose
windows would be others. Start at `Speed`.
"""

import dataclasses

import numpy as np

from tml_jax.data import options as options_lib
from tml_jax.data import placing
from tml_jax.data.augment import TRANSFORMS, transform
from tml_jax.streams import annotation, clock
from tml_jax.streams.timeline import Timeline, Track

_STEP = 0.005  # of a factor: ratios of small numbers, which resample exactly
_MOST = 1e6  # seconds


@TRANSFORMS.register("speed")
class Speed(transform.Transform):
  """Everything runs `factor` times as fast, and sounds higher by as much.

  Speed perturbation (Ko et al., "Audio augmentation for speech recognition",
  2015): sound is resampled; words, spans, events, pictures and the time without
  microphone follow. Factors are multiples of 0.005.
  """

  OPTIONS = {"factor": "0.9..1.1"}
  takes = transform.Takes.WHOLE

  def __init__(self, options: options_lib.Options):
    self._factor = options.range("factor", low=0.5, high=2.0)

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    if timeline.metadata.get(annotation.KEY):
      raise transform.NotFor("annotations, whose times would be others")
    drawn = round(self._factor.draw(random) / _STEP)
    rate = round(drawn * _STEP * clock.SAMPLE_RATE)  # Hz, as if it were so
    factor = rate / clock.SAMPLE_RATE
    if rate == clock.SAMPLE_RATE:
      return timeline
    duration = timeline.duration / factor
    most = round(duration * clock.SAMPLE_RATE)
    return dataclasses.replace(
      timeline,
      duration=duration,
      tracks=tuple(
        dataclasses.replace(
          track,
          audio=_resampled(track, rate=rate)[:most],
          words=_faster(track.words, factor=factor),
          spans=_faster(track.spans, factor=factor),
        )
        for track in timeline.tracks
      ),
      video=tuple(
        dataclasses.replace(frame, time=frame.time / factor)
        for frame in timeline.video
      ),
      events=tuple(
        dataclasses.replace(event, time=event.time / factor)
        for event in timeline.events
      ),
      muted=_faster(timeline.muted, factor=factor),
    )


def _resampled(track: Track, *, rate: int) -> np.ndarray:
  """[n] float32 of sound that is taken to be of this rate."""
  audio = track.audio
  if not len(audio):
    return audio
  placed = placing.Placed(
    len(audio) / rate, name="speed", seconds=_MOST, bytes=1 << 62
  )
  placed.add(audio[None], rate=rate, at=None)
  return np.clip(placed.finish()[0], -1, 1)


def _faster(
  times: tuple[transform.Timed, ...], *, factor: float
) -> tuple[transform.Timed, ...]:
  """Words or spans, each as much earlier."""
  return tuple(
    dataclasses.replace(t, start=t.start / factor, end=t.end / factor)
    for t in times
  )
