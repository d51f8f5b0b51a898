"""Other levels.

For: `data.augment=gain:...`. Start at `Gain`.
"""

import dataclasses
from typing import Any

import numpy as np

from tml_jax.data import options as options_lib
from tml_jax.data.augment import TRANSFORMS, transform
from tml_jax.streams.timeline import Timeline


@TRANSFORMS.register("gain")
class Gain(transform.Transform):
  """Each track louder or softer by decibels of its own."""

  OPTIONS = {"db": "-6..6", "of": "all"}

  def __init__(self, options: options_lib.Options):
    self._db = options.range("db", low=-60, high=40)
    self._side = transform.side(options)

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    tracks = []
    for track in timeline.tracks:
      factor = np.float32(10 ** (self._db.draw(random) / 20))

      def make(samples: np.ndarray, _: int, by: Any = factor) -> np.ndarray:
        return by * samples

      if self._side.has(track):
        track = transform.with_sound(track, around=around, make=make)
      tracks.append(track)
    return dataclasses.replace(timeline, tracks=tuple(tracks))
