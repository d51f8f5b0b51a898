"""Documents in plain text: a file each, or a line each.

For: *.txt and *.md, also compressed (.gz, .bz2, .xz). Not for: texts that are
about sound or pictures (`speech_text`, `image_text`). Options: `document`,
which is `file` or `line`; `ends`, the ends of the files' names. Files are read
in parts of 64 MiB. A file of over 1 MiB becomes several documents, which end at
lines; every end of line becomes a line feed.
"""

from collections.abc import Iterator, Mapping

from tml_jax.data import options as options_lib
from tml_jax.data import records, source, stored
from tml_jax.data.source import BadRecording, Part, Reason
from tml_jax.streams import document
from tml_jax.streams.document import Document

_KNOWN = {"document": "file", "ends": ".txt,.md,.txt.gz,.txt.bz2,.txt.xz"}


class Text:
  """The documents of a file, or of all files of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    self._place = stored.Place(src)
    self._is_line = options.choice("document", among=("file", "line")) == "line"
    self._metadata = options.metadata("document")
    self._ranges = stored.ranges(
      self._place.files(ends=options["ends"].split(",")), size=stored.RANGE
    )

  def parts(self) -> list[Part]:
    return [found.part for found in self._ranges.values()]

  def read(self, part: Part) -> Iterator[Document | BadRecording]:
    found = self._ranges[part.name]
    lines = stored.lines(self._place, found)
    pieces = _each(lines) if self._is_line else _together(lines)
    empty = True
    for piece in pieces:
      if isinstance(piece, BadRecording):
        empty = False
        yield piece
        continue
      if not piece.data.strip():
        continue
      empty = False
      name = f"{found.file.name}@{piece.at}"
      try:
        text = stored.text(piece.data, name=name)
      except BadRecording as error:
        yield error
        continue
      yield from records.documents(name, text, metadata=self._metadata)
    if empty and not found.start:
      yield BadRecording(Reason.EMPTY, found.file.name)


Lines = Iterator[stored.Line | BadRecording]


def _each(lines: Lines) -> Lines:
  """Each line as it is."""
  yield from lines


def _together(lines: Lines) -> Lines:
  """Lines that follow each other, up to the size of a document."""
  data, at = bytearray(), 0
  for line in lines:
    if isinstance(line, BadRecording):
      yield line
      continue
    if data and len(data) + len(line.data) + 1 > document.MAX_BYTES:
      yield stored.Line(at, bytes(data))
      data.clear()
    at = at if data else line.at
    data += line.data + b"\n"
  if data:
    yield stored.Line(at, bytes(data[:-1]))


@source.register_importer("text")
def open_text(src: str, *, options: Mapping[str, str]) -> Text:
  """The file or folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="text")
  return Text(src, options=known)
