"""Documents in parquet: a column of text, a document a row.

For: *.parquet, as most published text is. Not for: sound or pictures there
(`hf_dataset`). Options: `text`, the column that holds the text; `id`, a column
that names the document, else its file and row do. A part is a row group, of
which a few rows are in memory at a time.
"""

from collections.abc import Iterator, Mapping

from tml_jax.data import options as options_lib
from tml_jax.data import records, rows, source, stored
from tml_jax.data.source import BadRecording, Part
from tml_jax.streams.document import Document

_KNOWN = {"text": "text", "id": ""}
_TOGETHER = 16


class Parquet:
  """The documents of a file, or of all files of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    place, self._options = stored.Place(src), options
    self._rows = rows.Rows(
      place,
      place.files(ends=(".parquet",)),
      columns=[c for c in (options["text"], options["id"]) if c],
      together=_TOGETHER,
    )

  def parts(self) -> list[Part]:
    return self._rows.parts()

  def read(self, part: Part) -> Iterator[Document | BadRecording]:
    for found in self._rows.read(part):
      try:
        if isinstance(found, BadRecording):
          raise found
        name, row = found
        # A text that was written as bytes is one.
        record = {
          key: stored.text(value, name=name)
          if isinstance(value, bytes)
          else value
          for key, value in row.items()
        }
      except BadRecording as error:
        yield error
        continue
      yield from records.documents_of(record, name=name, options=self._options)


@source.register_importer("parquet")
def open_parquet(src: str, *, options: Mapping[str, str]) -> Parquet:
  """The file or folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="parquet")
  return Parquet(src, options=known)
