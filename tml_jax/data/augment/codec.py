"""Sound that went through a coder, in its place.

For: `data.augment=g711:...` and `opus:...`. Not for: bands alone (`band`).
Start at `G711` and `Opus`. The delay of a coder is taken off.
"""

import io

import av
import numpy as np
import soundfile

from tml_jax.data import media
from tml_jax.data import options as options_lib
from tml_jax.data.augment import TRANSFORMS, filters, transform
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

_LAWS = {"mu": "ULAW", "a": "ALAW"}
_TAPS = 191  # at 16 kHz: passes to 3.47 kHz, stops from 3.93 kHz
_EDGE = 3700.0  # Hz
# Opus remembers. So the recording is coded in blocks that a stretch has whole,
# each with a beginning in front of it that is thrown away.
_BLOCK = 10 * clock.SAMPLE_RATE
_BEFORE = clock.SAMPLE_RATE // 2


@TRANSFORMS.register("g711")
class G711(transform.Transform):
  """A telephone: 8 kHz, 8 bits a sample (ITU-T G.711), without delay.

  The law is `mu`, `a`, or either.
  """

  OPTIONS = {"law": "either", "of": "user"}

  def __init__(self, options: options_lib.Options):
    law = options.choice("law", among=(*_LAWS, "either"))
    self._laws = [*_LAWS.values()] if law == "either" else [_LAWS[law]]
    self._side = transform.side(options)
    self.reach = 2 * filters.reach(_TAPS)

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    law = self._laws[int(random.integers(len(self._laws)))]
    taps = filters.band(0, _EDGE, taps=_TAPS, rate=clock.SAMPLE_RATE)

    def passed(samples: np.ndarray, first: int) -> np.ndarray:
      return filters.convolve(
        samples, taps=taps, first=first, centre=_TAPS // 2
      )

    def make(samples: np.ndarray, first: int) -> np.ndarray:
      low = passed(samples, first)
      even = slice(first % 2, None, 2)  # the same samples of every stretch
      held = np.zeros_like(low)
      held[even] = 2 * _companded(low[even], law=law)
      return passed(held, first)

    return transform.filtered(timeline, of=self._side, around=around, make=make)


def _companded(samples: np.ndarray, *, law: str) -> np.ndarray:
  """[n] float32 at 8 kHz, after 8 bits by libsndfile."""
  file = io.BytesIO()
  form = {"format": "RAW", "subtype": law, "samplerate": 8000, "channels": 1}
  with soundfile.SoundFile(file, "w", **form) as writer:
    writer.write(np.clip(samples, -1, 1))
  file.seek(0)
  with soundfile.SoundFile(file, **form) as reader:
    return reader.read(dtype="float32")


@TRANSFORMS.register("opus")
class Opus(transform.Transform):
  """A call over the internet: Opus (RFC 6716) at `kbps` kbit/s, for speech.

  Coded by libopus at 16 kHz in frames of 20 ms, with a variable rate whose mean
  this is, in blocks of 10 s of the recording. Its delay is taken off, to a
  sample or two.
  """

  OPTIONS = {"kbps": "8..32", "of": "user"}
  reach = (_BLOCK + _BEFORE) / clock.SAMPLE_RATE

  def __init__(self, options: options_lib.Options):
    self._kbps = options.range("kbps", low=6, high=256)
    self._side = transform.side(options)

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    rate = round(1000 * self._kbps.draw(random))

    def make(samples: np.ndarray, first: int) -> np.ndarray:
      result = np.zeros_like(samples)
      for at in range(first // _BLOCK * _BLOCK, first + len(samples), _BLOCK):
        start = max(0, at - first)
        stop = min(len(samples), at - first + _BLOCK)
        if samples[start:stop].any():
          before = min(start, _BEFORE)
          coded = _through_opus(samples[start - before : stop], rate=rate)
          result[start:stop] = coded[before:]
      return result

    return transform.filtered(timeline, of=self._side, around=around, make=make)


def _through_opus(samples: np.ndarray, *, rate: int) -> np.ndarray:
  """[n] float32 at 16 kHz, after coding and decoding, n as before."""
  file = io.BytesIO()
  with av.open(file, "w", format="ogg") as container:
    stream = container.add_stream(
      "libopus", rate=clock.SAMPLE_RATE, layout="mono"
    )
    stream.bit_rate = rate
    stream.codec_context.options = {"application": "voip"}
    pcm = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = clock.SAMPLE_RATE, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  decoded = media.sound_of_bytes(file.getvalue(), name="Opus")[0]
  result = np.zeros_like(samples)
  count = min(len(decoded), len(result))
  result[:count] = decoded[:count]
  return result
