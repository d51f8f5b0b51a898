"""Stills with captions: seen, then the caption is shown, or said.

For: pairs in folders, WebDataset tars and lines of JSON, in the layouts of
`captioned`; a caption is said where there is a file of it read aloud. Not for:
clips (`video_text`). Options: `layout`; `caption`, `image` and `speech`, fields
of JSON; `size`, HEIGHTxWIDTH of the config's video; `delay` in seconds.
"""

from collections.abc import Iterator, Mapping

from tml_jax.data import captioned, media, pairs, source
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Part
from tml_jax.streams.timeline import Timeline, VideoFrame

ENDS = ("jpg", "jpeg", "png", "webp", "bmp")
_KNOWN = captioned.KNOWN | {"image": "image"}


class ImageText:
  """The pairs of a file or folder, as timelines."""

  def __init__(self, src: str, *, options: options_lib.Options):
    self._options = options
    self._size = options.size("size")
    self._layout = captioned.open_layout(
      src, options=options, field=options["image"], ends=ENDS
    )
    options.number("delay", low=0, high=60)  # refused before any work

  def parts(self) -> list[Part]:
    return self._layout.parts()

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    return source.each(self._layout.read(part), self._timeline)

  def _timeline(self, found: captioned.Captioned) -> Timeline:
    height, width = self._size
    image = media.picture_of_bytes(
      found.data, name=found.file, height=height, width=width
    )
    return pairs.seen(
      (VideoFrame(0.0, image),),
      about=found.about(self._options, kind="image_text"),
      speech=found.speech,
    )


@source.register_importer("image_text")
def open_pairs(src: str, *, options: Mapping[str, str]) -> ImageText:
  """The file or folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="image_text")
  return ImageText(src, options=known)
