"""Stills or clips with captions, as they lie on disk.

For: the importers `image_text` and `video_text`, which make timelines of them.
Not for: decoding. Start at `open_layout`. `layout` is

  folder      NAME.jpg with NAME.txt, and NAME.wav where that is read aloud
  webdataset  the same in *.tar, or NAME.json with the caption in a field
  jsonl       *.jsonl, a line {"image": "a/1.jpg", "caption": "...",
              "speech": "a/1.wav"}, the last only where it is read aloud
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from tml_jax.data import media, pairs, records, samples, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Part, Reason

LAYOUTS = ("folder", "webdataset", "jsonl")
# Options of both importers.
KNOWN = {
  "layout": "folder",
  "caption": "caption",
  "speech": "speech",
  "delay": "0.4",
}
_TEXTS = ("txt", "caption")
_RANGE = 1 << 17


@dataclasses.dataclass(frozen=True)
class Captioned:
  """A still or a clip, and what is said of it.

  Attributes:
    name: of the pair.
    file: name of the still or clip.
    data: of the file.
    caption: text.
    language: if known.
    speech: [n] of the caption; None where it is not read aloud.
  """

  name: str
  file: str
  data: bytes
  caption: str
  language: str
  speech: np.ndarray | None

  def about(self, options: options_lib.Options, *, kind: str) -> pairs.About:
    return pairs.About(
      id=self.name,
      text=" ".join(self.caption.split()),
      delay=options.number("delay", low=0, high=60),
      metadata=options.metadata(kind, language=self.language),
    )


class Layout(Protocol):
  """How pairs lie on disk."""

  def parts(self) -> list[Part]: ...

  def read(self, part: Part) -> Iterator[Captioned | BadRecording]: ...


def open_layout(
  src: str, *, options: options_lib.Options, field: str, ends: tuple[str, ...]
) -> Layout:
  """The pairs of a file or folder.

  Args:
    src: path or URL.
    options: of the importer.
    field: of a line of jsonl that names the still or clip.
    ends: extensions of stills or clips.

  Raises:
    errors.UserError: there is nothing of the kind, or no such layout.
  """
  layout, place = options.choice("layout", among=LAYOUTS), stored.Place(src)
  if layout == "jsonl":
    return _Manifest(place, options=options, field=field)
  every = (*ends, *_TEXTS, "json", *samples.SOUNDS)
  make = samples.Folder if layout == "folder" else samples.Tars
  return _Samples(make(place, ends=every), options=options, ends=ends)


class _Samples:
  """Pairs by the names of files."""

  def __init__(
    self,
    found: samples.Folder | samples.Tars,
    *,
    options: options_lib.Options,
    ends: tuple[str, ...],
  ):
    self._samples, self._options, self._ends = found, options, ends

  def parts(self) -> list[Part]:
    return self._samples.parts()

  def read(self, part: Part) -> Iterator[Captioned | BadRecording]:
    return source.each(self._samples.read(part), self._pair)

  def _pair(self, sample: samples.Sample) -> Captioned:
    picture = sample.first(self._ends)
    if picture is None:
      there = ", ".join(sorted(sample.files))
      raise BadRecording(Reason.NO_PICTURE, f"{sample.name} has {there} alone")
    caption, language = sample.text(
      self._options["caption"], missing=Reason.NO_CAPTION, ends=_TEXTS
    )
    speech = sample.first(samples.SOUNDS)
    return Captioned(
      sample.name,
      *picture,
      caption,
      language,
      None if speech is None else _speech(speech[1], name=speech[0]),
    )


class _Manifest:
  """Pairs by lines of JSON."""

  def __init__(
    self, place: stored.Place, *, options: options_lib.Options, field: str
  ):
    self._place, self._options, self._field = place, options, field
    self._ranges = stored.ranges(place.files(ends=(".jsonl",)), size=_RANGE)

  def parts(self) -> list[Part]:
    return [found.part for found in self._ranges.values()]

  def read(self, part: Part) -> Iterator[Captioned | BadRecording]:
    found = self._ranges[part.name]
    return source.each(
      records.json_lines(self._place, found),
      lambda named: self._pair(*named, folder=found.file.folder),
    )

  def _pair(
    self, name: str, record: Mapping[str, Any], *, folder: str
  ) -> Captioned:
    file = records.text_of(
      record, self._field, name=name, missing=Reason.NO_PICTURE
    )
    caption = records.text_of(
      record, self._options["caption"], name=name, missing=Reason.NO_CAPTION
    )
    speech, language = None, record.get("language")
    if record.get(self._options["speech"]) is not None:
      sound = records.text_of(
        record, self._options["speech"], name=name, missing=Reason.MISSING
      )
      speech = _speech(self._bytes(folder, sound), name=sound)
    return Captioned(
      name,
      source.as_text(file),
      self._bytes(folder, file),
      caption,
      language if isinstance(language, str) else "",
      speech,
    )

  def _bytes(self, folder: str, name: str) -> bytes:
    path = self._place.below(folder, name)
    return self._place.read(path, limit=samples.MAX_FILE)


def _speech(data: bytes, *, name: str) -> np.ndarray:
  return pairs.mono(media.sound_of_bytes(data, name=source.as_text(name)))
