"""The clock: every conversion between seconds, samples, windows and tokens.

For: the constants of the 200 ms grid. Not for: anything that has data.
A window `k` covers the samples [k * TURN_SAMPLES, (k + 1) * TURN_SAMPLES).
"""

import math

SAMPLE_RATE = 16_000  # Hz
TURN_MS = 200  # one micro-turn
TURN_SAMPLES = SAMPLE_RATE * TURN_MS // 1000
TOKEN_SAMPLES = SAMPLE_RATE * 50 // 1000  # one dMel token
FINE_SAMPLES = TOKEN_SAMPLES // 4  # one fine frame of 12.5 ms
AUDIO_TOKENS = TURN_SAMPLES // TOKEN_SAMPLES  # per window
FINE_FRAMES = TURN_SAMPLES // FINE_SAMPLES  # per window
MEL_CHANNELS = 80
TURN_SECONDS = TURN_MS / 1000


def window_of(seconds: float) -> int:
  """Index of the window that contains the time `seconds`.

  A time within a microsecond of a boundary belongs to the window that starts
  there: sums of decimal times miss the boundary by rounding alone.
  """
  return math.floor(seconds / TURN_SECONDS + 1e-6)


def num_windows(seconds: float) -> int:
  """Windows needed to cover `seconds`, the last one perhaps in part."""
  return math.ceil(seconds / TURN_SECONDS - 1e-6)
