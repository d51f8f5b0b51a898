"""Pictures and sound as addresses that hold them.

For: pages of one file. Not for: what is seen and heard. Start at `sound`.
"""

import base64
import io

import av
import numpy as np
from PIL import Image

from tml_jax.streams import clock, dmel

_BITS = 24_000  # a second and channel
_EFFORT = 5  # of 10, which takes four times as long for 3 % less
_HIGH = 64  # pixels of a thumbnail
_JPEG_QUALITY = 75


def sound(channels: list[np.ndarray]) -> str:
  """Ogg with Opus, which browsers play; the same bytes for the same sound.

  Args:
    channels: one or two, [samples] float32 at 16 kHz each, of one length.
  """
  layout = "stereo" if len(channels) == 2 else "mono"
  pcm = np.round(np.clip(np.stack(channels, axis=1), -1, 1) * 32767)
  frame = av.AudioFrame.from_ndarray(
    pcm.astype(np.int16).reshape(1, -1), format="s16", layout=layout
  )
  frame.sample_rate, frame.pts = clock.SAMPLE_RATE, 0
  file = io.BytesIO()
  with av.open(file, "w", format="ogg", options={"fflags": "+bitexact"}) as out:
    stream = out.add_stream("libopus", rate=clock.SAMPLE_RATE, layout=layout)
    stream.bit_rate = _BITS * len(channels)
    stream.options = {"compression_level": str(_EFFORT)}
    out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
  return _address(file.getvalue(), kind="audio/ogg")


def levels(steps: list[np.ndarray | None], *, each: int) -> str:
  """A picture of mel, a column a step, low channels below.

  Args:
    steps: [each, 80] uint8 levels of `dmel` a window; None, where there is no
      sound, is left transparent.
    each: columns of a window.
  """
  picture = np.full((clock.MEL_CHANNELS, len(steps) * each), dmel.LEVELS)
  for k, step in enumerate(steps):
    if step is not None:
      picture[:, k * each : (k + 1) * each] = step.T[::-1]
  return indexed(picture.astype(np.uint8), palette=_magma(), clear=dmel.LEVELS)


def indexed(picture: np.ndarray, *, palette: np.ndarray, clear: int) -> str:
  """A PNG of [height, width] uint8 rows of [colours, 3] `palette`.

  The colour number `clear` is transparent.
  """
  image = Image.fromarray(picture, mode="P")
  image.putpalette(palette.astype(np.uint8).tobytes())
  file = io.BytesIO()
  image.save(file, format="PNG", transparency=clear)
  return _address(file.getvalue(), kind="image/png")


def thumbnail(picture: np.ndarray) -> str:
  """A small JPEG of [height, width, 3] uint8."""
  image = Image.fromarray(picture)
  image.thumbnail((4 * _HIGH, _HIGH))
  file = io.BytesIO()
  image.save(file, format="JPEG", quality=_JPEG_QUALITY)
  return _address(file.getvalue(), kind="image/jpeg")


def _magma() -> np.ndarray:
  """[LEVELS + 1, 3] colours of the levels, dark to light; the last is spare."""
  import matplotlib

  map_ = matplotlib.colormaps["magma"]
  colours = [map_(i / (dmel.LEVELS - 1))[:3] for i in range(dmel.LEVELS)]
  return np.round(255 * np.array([*colours, (0, 0, 0)])).astype(np.uint8)


def _address(content: bytes, *, kind: str) -> str:
  return f"data:{kind};base64,{base64.b64encode(content).decode()}"
