"""Data sets of Hugging Face with columns of sound and pictures.

For: *.parquet, and folders as AudioFolder and ImageFolder have them, with
metadata.jsonl, metadata.csv or metadata.parquet whose field `file_name` is the
column `audio` or `image`, and NAME_file_name the column NAME. Not for: text
alone (`parquet`), or data that only a script makes. Start at `HfDataset`.
`rows` says what a row is:

  conversation  `audio` has two channels, and `user` is left or right; or a
                column for each, `user_audio` and `agent_audio`. `words`, a
                column of lists of {"speaker", "word", "start", "end"}, whose
                speakers are left and right, or user and agent
  speech_text   `audio` and `text`; `direction` and `delay` as in `speech_text`
  image_text    `image` and `text`, its caption
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tml_jax.data import calls, media, pairs, records, rows, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part, Reason
from tml_jax.streams.timeline import Role, Timeline, VideoFrame

ROWS = (calls.KIND, "speech_text", "image_text")
_KNOWN = {
  "rows": "",
  "audio": "audio",
  "image": "image",
  "text": "text",
  "user": "",
  "user_audio": "",
  "agent_audio": "",
  "words": "",
  "id": "",
  "direction": "hear",
  "delay": "0.4",
}
_TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_MAX_FILE = 1 << 30
_RANGE = 1 << 14
_BYTES = 1000  # of sound or pictures for each of a line
_APART: calls.Roles = {"user": Role.USER, "agent": Role.AGENT}


class HfDataset:
  """The rows of a file, or of all files of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    self._place, self._options = stored.Place(src), options
    self._kind = options.choice("rows", among=ROWS)
    options.number("delay", low=0, high=60)  # refused before any work
    options.choice("direction", among=("hear", "speak"))
    self._sounds, self._roles = self._sides()
    columns = [*self._sounds]
    if self._kind != calls.KIND:
      columns = [options["audio" if "speech" in self._kind else "image"]]
      columns.append(options["text"])
    elif options["words"]:
      columns.append(options["words"])
    if options["id"]:
      columns.append(options["id"])
    files = self._place.files(ends=(".parquet", *_TABLES))
    tables = [f for f in files if f.name.endswith(_TABLES)]
    folder = {f.folder for f in tables}
    self._rows = rows.Rows(
      self._place,
      [f for f in files if f not in tables and f.folder not in folder],
      columns=columns,
      together=1,
    )
    self._named = rows.Rows(
      self._place,
      [f for f in tables if f.name.endswith(".parquet")],
      columns=[self._field(column) for column in columns],
      together=1,
    )
    self._ranges = stored.ranges(
      [f for f in tables if f.name.endswith(".jsonl")], size=_RANGE
    )
    self._csv = {f.name: f for f in tables if f.name.endswith(".csv")}

  def parts(self) -> list[Part]:
    lists = [
      *(Part(f.name, f.stamp, f.size) for f in self._csv.values()),
      *(found.part for found in self._ranges.values()),
      *self._named.parts(),
    ]
    return [
      *self._rows.parts(),
      *(Part(p.name, p.stamp, p.bytes * _BYTES) for p in lists),
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    folder, found = self._records(part)
    for each in found:
      try:
        if isinstance(each, BadRecording):
          raise each
        yield from self._timelines(*each, folder=folder)
      except BadRecording as error:
        yield error

  def _records(
    self, part: Part
  ) -> tuple[str, Iterator[rows.Row | BadRecording]]:
    """The folder from which a part names files, and its rows."""
    if part.name in self._csv:
      file = self._csv[part.name]
      return file.folder, _csv_rows(self._place, file)
    if part.name in self._ranges:
      found = self._ranges[part.name]
      return found.file.folder, records.json_lines(self._place, found)
    table = self._rows if part in self._rows else self._named
    return table.file(part).folder, table.read(part)

  def _sides(self) -> tuple[tuple[str, ...], list[calls.Roles]]:
    """Columns of the sound of a conversation, and who is who in them.

    Raises:
      errors.UserError: nothing says so.
    """
    options = self._options
    if self._kind != calls.KIND:
      return (), []
    if not options["user_audio"] and not options["agent_audio"]:
      return (options["audio"],), calls.roles(options, sides=calls.CHANNELS)
    for name in ("user_audio", "agent_audio"):
      if not options[name]:
        raise options.error(name, want="a column, as for the other side")
    if options["user"]:
      raise options.error("user", want="nothing: columns say who is who")
    return (options["user_audio"], options["agent_audio"]), [_APART]

  def _field(self, column: str) -> str:
    """What a column of files is named in the metadata of a folder."""
    if column in (self._options["text"], self._options["words"]):
      return column
    if column == self._options["id"]:
      return column
    if column in ("audio", "image"):
      return "file_name"
    return f"{column}_file_name"

  def _timelines(
    self, name: str, row: Mapping[str, Any], *, folder: str
  ) -> Iterator[Timeline]:
    if self._options["id"]:
      name = records.text_of(row, self._options["id"], name=name)
    if self._kind == calls.KIND:
      yield from self._calls(name, row, folder=folder)
      return
    is_speech = self._kind == "speech_text"
    file, data = self._data(
      row,
      self._options["audio" if is_speech else "image"],
      name=name,
      folder=folder,
    )
    text = records.text_of(row, self._options["text"], name=name)
    about = pairs.About(
      id=name,
      text=" ".join(text.split()),
      delay=self._options.number("delay", low=0, high=60),
      metadata=self._options.metadata(self._kind),
    )
    if is_speech:
      sound = pairs.mono(media.sound_of_bytes(data, name=file))
      is_heard = self._options["direction"] == "hear"
      yield (pairs.heard if is_heard else pairs.spoken)(sound, about=about)
      return
    height, width = self._options.size("size")
    image = media.picture_of_bytes(data, name=file, height=height, width=width)
    yield pairs.seen((VideoFrame(0.0, image),), about=about)

  def _calls(
    self, name: str, row: Mapping[str, Any], *, folder: str
  ) -> Iterator[Timeline]:
    heard = {}
    notes = calls.Notes()
    for side, column in zip(_APART, self._sounds, strict=False):
      file, data = self._data(row, column, name=name, folder=folder)
      if len(self._sounds) == 1:
        sound = calls.sound_of_bytes(data, name=file, channels=2)
        heard = dict(zip(calls.CHANNELS, sound, strict=True))
      else:
        heard[side] = calls.sound_of_bytes(data, name=file, channels=1)[0]
    said = self._said(name, row, sides=tuple(heard), notes=notes)
    yield from calls.timelines(
      name,
      {
        side: calls.Side(sound, said=said[side], voice=f"{name} {side}")
        for side, sound in heard.items()
      },
      among=self._roles,
      metadata=self._options.metadata(calls.KIND),
      notes=notes,
    )

  def _said(
    self,
    name: str,
    row: Mapping[str, Any],
    *,
    sides: tuple[str, ...],
    notes: calls.Notes,
  ) -> dict[str, list[calls.Said]]:
    """Words by side; their speakers are sides, or roles where these are told.

    Raises:
      BadRecording: they are no such words.
    """
    said: dict[str, list[calls.Said]] = {side: [] for side in sides}
    if not self._options["words"]:
      return said
    with calls.reading(name):
      words = row.get(self._options["words"])
      if not words:
        notes[Note.NO_WORDS] += 1
      calls.collect(
        json.loads(words) if isinstance(words, str) else words or (),
        into=calls.speakers_of(said, among=self._roles),
        notes=notes,
      )
    return said

  def _data(
    self, row: Mapping[str, Any], column: str, *, name: str, folder: str
  ) -> tuple[str, bytes]:
    """Name and bytes of what is in a cell, or in the file that it names.

    Raises:
      BadRecording: there is nothing.
    """
    value = row.get(column)
    path = row.get(self._field(column))
    if isinstance(value, Mapping):
      path, value = value.get("path"), value.get("bytes")
    if isinstance(value, bytes) and value:
      return source.as_text(f"{name} {path}" if path else name), value
    if not isinstance(path, str) or not path:
      raise BadRecording(Reason.MISSING, f"{name}: {column} is empty")
    found = self._place.below(folder, path)
    return source.as_text(path), self._place.read(found, limit=_MAX_FILE)


def _csv_rows(
  place: stored.Place, file: stored.File
) -> Iterator[rows.Row | BadRecording]:
  """Lines of a table with a header line, quoted as spreadsheets do."""
  with place.opened(file.path) as handle:
    text = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
    found = csv.DictReader(text)
    while True:
      name = f"{file.name}#{found.line_num}"
      try:
        row = next(found, None)
      except UnicodeDecodeError as error:
        yield BadRecording(Reason.NOT_UTF8, f"{name} on: {error!r:.200}")
        return
      except csv.Error as error:
        yield BadRecording(Reason.BROKEN_METADATA, f"{name}: {error!r:.200}")
        continue
      if row is None:
        return
      yield name, row


@source.register_importer("hf_dataset")
def open_rows(src: str, *, options: Mapping[str, str]) -> HfDataset:
  """The file or folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="hf_dataset")
  return HfDataset(src, options=known)
