"""A call by formula: the left side says two tones, then the right one.

For: tests of importers of conversations. Start at `write`.
"""

import numpy as np
import soundfile

from tests.helpers import sound

SECONDS = 3.0
LEFT, RIGHT = (0.2, 1.2), (1.6, 2.6)  # when each side sounds
SPANS = {"left": LEFT, "right": RIGHT}
FREQUENCY = {"left": 300.0, "right": 700.0}


def samples(*, rate=sound.RATE, seconds=SECONDS):
  """[2, n] float32."""
  found = np.zeros((2, round(seconds * rate)), np.float32)
  for channel, side in zip(found, SPANS, strict=True):
    start, end = SPANS[side]
    tone = sound.tone(end - start, frequency=FREQUENCY[side], rate=rate)
    at = round(start * rate)
    channel[at : at + len(tone)] = tone[: len(channel) - at]
  return found


def write(path, *, rate=sound.RATE, channels=slice(None), **how):
  """A file of both channels, or of one, by the end of its name."""
  path.parent.mkdir(parents=True, exist_ok=True)
  soundfile.write(path, samples(rate=rate)[channels].T, rate, **how)


def side_of(track):
  """Which side a track has, by its frequency."""
  spectrum = np.abs(np.fft.rfft(track.audio))
  frequency = spectrum.argmax() * sound.RATE / len(track.audio)
  return min(FREQUENCY, key=lambda side: abs(FREQUENCY[side] - frequency))


def check_spans(track, *, within=0.03):
  """Its spans are those of its side."""
  (span,) = track.spans
  start, end = SPANS[side_of(track)]
  assert abs(span.start - start) < within and abs(span.end - end) < within
