"""Clips with captions: seen and heard, then the caption is shown, or said.

For: pairs in folders, WebDataset tars and lines of JSON, in the layouts of
`captioned`; a caption is said where there is a file of it read aloud. Not for:
stills (`image_text`). Options: `layout`; `caption`, `video` and `speech`,
fields of JSON; `size`, HEIGHTxWIDTH of the config's video; `fps`, frames a
second that are kept; `seconds` of a clip that are kept; `delay` in seconds.
"""

from collections.abc import Iterator, Mapping

from tml_jax.data import captioned, media, pairs, source
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Part
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

ENDS = ("mp4", "webm", "mkv", "mov", "avi")
_KNOWN = captioned.KNOWN | {"video": "video", "fps": "1", "seconds": "60"}


class VideoText:
  """The pairs of a file or folder, as timelines."""

  def __init__(self, src: str, *, options: options_lib.Options):
    self._options = options
    self._size = options.size("size")
    self._fps = options.number("fps", low=0.01, high=30)
    self._seconds = options.number("seconds", low=0.2, high=3600)
    self._layout = captioned.open_layout(
      src, options=options, field=options["video"], ends=ENDS
    )
    options.number("delay", low=0, high=60)  # refused before any work

  def parts(self) -> list[Part]:
    return self._layout.parts()

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    return source.each(self._layout.read(part), self._timeline)

  def _timeline(self, found: captioned.Captioned) -> Timeline:
    height, width = self._size
    video, sound = media.clip_of_bytes(
      found.data,
      name=found.file,
      fps=self._fps,
      seconds=self._seconds,
      height=height,
      width=width,
    )
    kept = round(self._seconds * clock.SAMPLE_RATE)
    return pairs.seen(
      video,
      about=found.about(self._options, kind="video_text"),
      sound=None if sound is None else pairs.mono(sound)[:kept],
      speech=found.speech,
    )


@source.register_importer("video_text")
def open_pairs(src: str, *, options: Mapping[str, str]) -> VideoText:
  """The file or folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="video_text")
  return VideoText(src, options=known)
