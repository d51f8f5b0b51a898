"""The clock: every conversion between seconds, samples, windows and tokens.

For: the constants of sound, and `Grid`, on which a conversation is cut into
windows. Not for: anything that has data. A window `k` covers the samples
[k * grid.samples, (k + 1) * grid.samples).

Two grids meet: the micro-turns of a model (`of` a config), and `TICKS`
of 200 ms, on which scenarios are planned and sessions are logged whatever the
model's are.
"""

import dataclasses
import math

from tml_jax.config import StreamsConfig
from tml_jax.config import streams as streams_config

SAMPLE_RATE = 16_000  # Hz
TOKEN_MS = streams_config.TOKEN_MS
TOKEN_SAMPLES = SAMPLE_RATE * TOKEN_MS // 1000
FINE_PER_TOKEN = 4
FINE_SAMPLES = TOKEN_SAMPLES // FINE_PER_TOKEN  # one fine frame of 12.5 ms
MEL_CHANNELS = streams_config.MEL_CHANNELS


@dataclasses.dataclass(frozen=True)
class Grid:
  """Windows of one length.

  Attributes:
    ms: milliseconds of a window, a multiple of `TOKEN_MS`.
  """

  ms: int

  @property
  def seconds(self) -> float:
    return self.ms / 1000

  @property
  def samples(self) -> int:
    return SAMPLE_RATE * self.ms // 1000

  @property
  def audio_tokens(self) -> int:
    """dMel tokens of one stream in a window."""
    return self.ms // TOKEN_MS

  @property
  def fine_frames(self) -> int:
    """Frames of fine mel in a window."""
    return self.audio_tokens * FINE_PER_TOKEN

  def window_of(self, seconds: float) -> int:
    """Index of the window that contains the time `seconds`.

    A time within a microsecond of a boundary belongs to the window that starts
    there: sums of decimal times miss the boundary by rounding alone.
    """
    return math.floor(seconds / self.seconds + 1e-6)

  def num_windows(self, seconds: float) -> int:
    """Windows needed to cover `seconds`, the last one perhaps in part."""
    return math.ceil(seconds / self.seconds - 1e-6)


TICKS = Grid(streams_config.TICK_MS)


def of(config: StreamsConfig) -> Grid:
  """The windows of a model."""
  return Grid(config.turn_ms)
