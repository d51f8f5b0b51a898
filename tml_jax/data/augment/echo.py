"""The agent's voice from the loudspeaker, in the user's microphone.

For: `data.augment=echo:...`. Start at `Echo`.
"""

import numpy as np

from tml_jax.data import options as options_lib
from tml_jax.data.augment import TRANSFORMS, transform
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline


@TRANSFORMS.register("echo")
class Echo(transform.Transform):
  """What the agent says comes back softer and later.

  The echo is the agent's sound `loss` dB below its level, `delay` ms later
  (echo return loss and echo path delay, ITU-T G.131), to the sample.
  """

  OPTIONS = {"delay": "20..200", "loss": "15..40"}

  def __init__(self, options: options_lib.Options):
    self._delay = options.range("delay", low=0, high=2000)
    self._loss = options.range("loss", low=0, high=90)
    self.reach = self._delay.high / 1000

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    delay = round(self._delay.draw(random) / 1000 * clock.SAMPLE_RATE)
    factor = np.float32(10 ** (-self._loss.draw(random) / 20))
    number = transform.microphone(timeline)
    spoken = [t.audio for t in timeline.tracks if t.role == Role.AGENT]
    if not spoken:
      raise transform.NotFor("without an agent")

    def add(samples: np.ndarray, first: int) -> np.ndarray:
      result = samples.copy()
      for audio in spoken:
        begin = max(0, first - delay)
        back = audio[begin : max(begin, first - delay + len(samples))]
        at = begin + delay - first
        result[at : at + len(back)] += factor * back
      return result

    track = transform.with_sound(
      timeline.tracks[number],
      around=around,
      make=add,
      length=transform.samples(timeline),
    )
    return transform.replaced(timeline, number, track=track)
