"""A narrower band.

For: `data.augment=band:...`. Not for: codecs (`codec`). Start at `Band`.
"""

import numpy as np

from tml_jax import errors
from tml_jax.data import options as options_lib
from tml_jax.data.augment import TRANSFORMS, filters, transform
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

_TAPS = 511  # 32 ms: 170 Hz from passing to stopping


@TRANSFORMS.register("band")
class Band(transform.Transform):
  """Only `low` to `high` Hz pass: by default the band of a telephone.

  300 to 3400 Hz is that of ITU-T G.712. The filter has no delay.
  """

  OPTIONS = {"low": "300", "high": "3400", "of": "user"}

  def __init__(self, options: options_lib.Options):
    half = clock.SAMPLE_RATE / 2
    self._low = options.range("low", low=0, high=half)
    self._high = options.range("high", low=0, high=half)
    self._side = transform.side(options)
    if self._low.high >= self._high.low:
      raise errors.UserError(
        f"{options.where('low')}={options['low']} reaches"
        f" high={options['high']}: nothing would pass; leave room between them"
      )
    self.reach = filters.reach(_TAPS)

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    low, high = self._low.draw(random), self._high.draw(random)
    taps = filters.band(low, high, taps=_TAPS, rate=clock.SAMPLE_RATE)

    def make(samples: np.ndarray, first: int) -> np.ndarray:
      return filters.convolve(
        samples, taps=taps, first=first, centre=_TAPS // 2
      )

    return transform.filtered(timeline, of=self._side, around=around, make=make)
