"""Documents in JSON lines: `{"text": "..."}`, one a line.

For: *.jsonl and *.ndjson, also compressed (.gz, .bz2, .xz). Not for: parquet
(`parquet`) or plain text (`text`). Options: `text`, the field that holds the
text; `id`, a field that names the document, else its file and byte do. Files
are read in parts of 64 MiB.
"""

from collections.abc import Iterator, Mapping

from tml_jax.data import options as options_lib
from tml_jax.data import records, source, stored
from tml_jax.data.source import BadRecording, Part
from tml_jax.streams.document import Document

ENDS = (".jsonl", ".ndjson")
_KNOWN = {"text": "text", "id": ""}


class JsonLines:
  """The documents of a file, or of all files of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    self._place, self._options = stored.Place(src), options
    self._ranges = stored.ranges(
      self._place.files(ends=with_packed(ENDS)), size=stored.RANGE
    )

  def parts(self) -> list[Part]:
    return [found.part for found in self._ranges.values()]

  def read(self, part: Part) -> Iterator[Document | BadRecording]:
    for found in records.json_lines(self._place, self._ranges[part.name]):
      if isinstance(found, BadRecording):
        yield found
        continue
      name, record = found
      yield from records.documents_of(record, name=name, options=self._options)


def with_packed(ends: tuple[str, ...]) -> tuple[str, ...]:
  """Ends of files, and of the same compressed."""
  return tuple(e + p for e in ends for p in ("", *stored.COMPRESSED))


@source.register_importer("jsonl")
def open_jsonl(src: str, *, options: Mapping[str, str]) -> JsonLines:
  """The file or folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="jsonl")
  return JsonLines(src, options=known)
