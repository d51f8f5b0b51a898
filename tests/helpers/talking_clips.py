"""Clips of three seconds of somebody who talks, with subtitles inside.

For: tests of importers of video. Start at `write`.
"""

import fractions

import av
import numpy as np

from tests.helpers import two_sides

KINDS = {
  "mp4": ("mpeg4", "aac", "mov_text"),
  "mkv": ("mpeg4", "flac", "subrip"),
  "webm": ("libvpx", "libopus", "webvtt"),
}
HEADER = (
  b"[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name, Fontname\n"
  b"Style: Default,Arial\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
)


def write(path, *, said=(), sounds=True, pictures_to=3.0):
  """A clip of three seconds at 25 frames a second."""
  video_codec, audio_codec, text_codec = KINDS[path.suffix[1:]]
  with av.open(str(path), "w") as file:
    video = file.add_stream(video_codec, rate=25)
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    streams = [video]
    if sounds:
      audio = file.add_stream(audio_codec, rate=48_000, layout="mono")
      streams.append(audio)
    if said:
      text = file.add_stream(text_codec)
      text.codec_context.subtitle_header = HEADER
      text.time_base = fractions.Fraction(1, 1000)
    for i in range(round(25 * pictures_to)):
      frame = av.VideoFrame.from_ndarray(
        np.full((48, 64, 3), 3 * i % 256, np.uint8), format="rgb24"
      )
      frame.pts, frame.time_base = i, fractions.Fraction(1, 25)
      file.mux(video.encode(frame))
    for start, end, words in said:
      data = words.encode()
      if text_codec == "mov_text":
        data = len(data).to_bytes(2, "big") + data
      packet = av.Packet(data)
      packet.stream, packet.time_base = text, fractions.Fraction(1, 1000)
      packet.pts = packet.dts = round(1000 * start)
      packet.duration = round(1000 * (end - start))
      file.mux(packet)
    if sounds:
      samples = two_sides.samples(rate=48_000).sum(axis=0)[None]
      frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
      frame.sample_rate, frame.pts = 48_000, 0
      file.mux(audio.encode(frame))
    for stream in streams:
      file.mux(stream.encode(None))
