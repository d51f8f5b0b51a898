"""Pictures that move, as files of video and alone.

For: forms of calls that a camera saw. Not for: what anybody looks like. Start
at `clip`.
"""

import functools
import io
import pathlib

import av
import numpy as np
import PIL.Image

from benchmarks.layouts import forms

WIDTH, HEIGHT, FPS = 640, 360, 25
_LOOP = 2  # seconds after which pictures come again


def picture(second: float) -> PIL.Image.Image:
  """A disc that moves before a still ground with grain."""
  image = _ground().copy()
  y, x = np.ogrid[:HEIGHT, :WIDTH]
  angle = 2 * np.pi * second / _LOOP
  far = np.hypot(
    y - HEIGHT * (0.5 + 0.2 * np.sin(angle)),
    x - WIDTH * (0.5 + 0.2 * np.cos(angle)),
  )
  image[far < HEIGHT / 4] = (220, 170, 140)
  return PIL.Image.fromarray(image)


@functools.cache
def _ground() -> np.ndarray:
  """[height, width, 3] uint8."""
  grain = np.random.default_rng(0).normal(0, 12, (HEIGHT, WIDTH, 1))
  shade = np.linspace(60, 180, WIDTH)[None, :, None]
  return np.clip(grain + shade + (0, 20, 40), 0, 255).astype(np.uint8)


@functools.cache
def _loop() -> bytes:
  """Two seconds of pictures, H.264 in MP4, each in its turn."""
  buffer = io.BytesIO()
  with av.open(buffer, "w", format="mp4") as file:
    stream = file.add_stream(
      "libx264", rate=FPS, options={"preset": "ultrafast", "bf": "0"}
    )
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    for number in range(_LOOP * FPS):
      frame = av.VideoFrame.from_image(picture(number / FPS))
      file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
  return buffer.getvalue()


def clip(
  path: pathlib.Path, *, seconds: float, sound: np.ndarray | None = None
) -> None:
  """An .mp4 of those pictures again and again, with AAC where there is sound.

  Args:
    path: of the file.
    seconds: of pictures.
    sound: [n] at 16 kHz.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with (
    av.open(io.BytesIO(_loop())) as loop,
    av.open(str(path), "w") as file,
  ):
    pictures = loop.streams.video[0]
    stream = file.add_stream_from_template(pictures)
    if sound is not None:
      audio = file.add_stream("aac", rate=48_000, layout="mono")
    packets = [p for p in loop.demux(pictures) if p.dts is not None]
    step = packets[1].dts - packets[0].dts
    data = [(bytes(p), p.is_keyframe) for p in packets]
    for number in range(round(seconds * FPS)):
      content, is_key = data[number % len(data)]
      packet = av.Packet(content)
      packet.stream, packet.time_base = stream, pictures.time_base
      packet.pts = packet.dts = number * step
      packet.duration, packet.is_keyframe = step, is_key
      file.mux(packet)
    if sound is not None:
      frame = av.AudioFrame.from_ndarray(
        forms.at_rate(48_000, sound)[None], "fltp", "mono"
      )
      frame.sample_rate, frame.pts = 48_000, 0
      file.mux([*audio.encode(frame), *audio.encode(None)])
