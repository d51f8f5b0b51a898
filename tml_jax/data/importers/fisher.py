"""Calls in English as the LDC sells them: Fisher, and Switchboard.

For: `fisher`, fe_03_00001.sph with fe_03_00001.txt, at any depth below one
folder (LDC2004S13, LDC2004T19 and their second parts), and *_calldata.tbl, if
there, which names the speakers; `switchboard`, sw02001.sph (LDC97S62) with
sw2001A-ms98-a-trans.text and sw2001B-ms98-a-trans.text, and -word.text, if
there, with a time for each word. Sounds are SPHERE of two channels, whatever
the file's name ends in. Not for: SPHERE that is packed by shorten: unpack it
with sph2pipe. Start at `LdcCalls`.

Roles: A is on the left and B on the right, and either can be the user: `user`
is A, B or each. Left out are noises ([laughter], [silence], <b_aside>) and the
marks of what is not certain; the words in them stay.
"""

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping

from tml_jax import errors
from tml_jax.data import calls, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part, Reason
from tml_jax.streams.timeline import Timeline

SIDES = ("A", "B")  # left, right
_SOUNDS = (".sph", ".wav", ".flac")
_FISHER = re.compile(r"^fe_03_(\d+)$")
_SWITCHBOARD = re.compile(r"^sw0?(\d{4})$")
_TEXT = re.compile(r"^sw(\d{4})([AB])-ms98-a-(trans|word)$")
_NOISE = re.compile(r"\[laughter-([^\]]*)\]|\[[^\]]*\]|<[^>]*>|\(\(|\)\)|_1\b")


class LdcCalls(calls.Listed):
  """The calls of a folder, each with the lines of what is said in it."""

  def __init__(
    self, place: stored.Place, *, options: options_lib.Options, kind: str
  ):
    """Lists the files.

    Raises:
      errors.UserError: there are none, or nothing says who is the user.
    """
    self._place, self._options, self._kind = place, options, kind
    self._roles = calls.roles(options, sides=SIDES)
    files = place.files(ends=(*_SOUNDS, ".txt", ".text", "_calldata.tbl"))
    pattern = _FISHER if kind == "fisher" else _SWITCHBOARD
    sounds, texts, tables = {}, {}, []
    for file in files:
      stem, end = posixpath.splitext(posixpath.basename(file.name))
      if end.lower() in _SOUNDS and (match := pattern.match(stem)):
        sounds[match[1]] = file
      elif end == ".txt" and (match := _FISHER.match(stem)):
        texts[match[1]] = file
      elif end == ".text" and (match := _TEXT.match(stem)):
        texts["".join(match.groups())] = file
      elif end == ".tbl":
        tables.append(file)
    if not sounds:
      raise errors.UserError(f"{place.src} has no sound of {kind}")
    voices = _speakers(place, tables)
    self._parts = [
      calls.call(
        posixpath.splitext(posixpath.basename(file.name))[0],
        [file, *(texts.get(key) for key in self._keys(number))],
        record=json.dumps(voices.get(number, SIDES)),
      )
      for number, file in sorted(sounds.items())
    ]

  def _keys(self, number: str) -> list[str]:
    """Of the texts of a call."""
    if self._kind == "fisher":
      return [number]
    return [
      f"{number}{side}{what}" for side in SIDES for what in ("trans", "word")
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      sound = calls.sound(self._place, part.paths[0], channels=2)
      notes = calls.Notes()
      read = self._fisher if self._kind == "fisher" else self._switchboard
      with calls.reading(part.name):
        sides = read(part, notes)
      yield from calls.timelines(
        part.name,
        {
          side: calls.Side(
            *(heard, *sides[side]),
            voice=f"{part.name} {side}" if voice in SIDES else voice,
          )
          for side, heard, voice in zip(
            SIDES, sound, json.loads(part.record), strict=True
          )
        },
        among=self._roles,
        metadata=self._options.metadata(calls.KIND),
        notes=notes,
      )
    except BadRecording as error:
      yield error

  def _fisher(
    self, part: calls.Call, notes: calls.Notes
  ) -> dict[str, tuple[list[calls.Said], list[tuple[object, object]]]]:
    """Segments of each side, of lines `START END A: TEXT`."""
    if not part.paths[1]:
      raise BadRecording(Reason.NO_TRANSCRIPT, part.name)
    sides: dict[str, tuple[list[calls.Said], list[tuple[object, object]]]] = {
      side: ([], []) for side in SIDES
    }
    for line in self._lines(part.paths[1]):
      if line.startswith("#"):
        continue
      start, end, speaker, *words = line.split()
      if part.name.endswith("11487") and (start, end) == ("31.09", "234.06"):
        start = "231.09"  # a slip that every copy has
      said, spans = sides[speaker.removesuffix(":")]
      spans.append((start, end))
      said += _said(start, end, words)
    return sides

  def _switchboard(
    self, part: calls.Call, notes: calls.Notes
  ) -> dict[str, tuple[list[calls.Said], list[tuple[object, object]]]]:
    """Words and segments of each side, of lines `ID START END WORDS`."""
    sides = {}
    for side, trans, word in zip(
      SIDES, part.paths[1::2], part.paths[2::2], strict=True
    ):
      if not trans:
        raise BadRecording(Reason.NO_TRANSCRIPT, f"{part.name} {side}")
      spans: list[tuple[object, object]] = []
      said: list[calls.Said] = []
      for line in self._lines(trans):
        _, start, end, *words = line.split()
        found = _said(start, end, words)
        if found:
          spans.append((start, end))
          if not word:
            said += found
      for line in self._lines(word) if word else ():
        _, start, end, *words = line.split()
        said += _said(start, end, words)
      if not said:
        notes[Note.NO_WORDS] += 1
      sides[side] = said, spans
    return sides

  def _lines(self, path: str) -> Iterable[str]:
    """Lines that are not empty."""
    data = self._place.read(path, limit=calls.MAX_TEXT)
    name = source.as_text(posixpath.basename(path))
    text = stored.text(data, name=name).removeprefix("\ufeff")
    return [line for line in text.splitlines() if line.strip()]


def _said(start: str, end: str, words: list[str]) -> list[calls.Said]:
  """A segment without noises and marks; nothing if it has no word."""
  text = _NOISE.sub(lambda match: match[1] or " ", " ".join(words)).strip()
  return [calls.Said(start, end, text)] if text else []


def _speakers(
  place: stored.Place, tables: list[stored.File]
) -> dict[str, tuple[str, str]]:
  """Names of A and B by the number of the call."""
  found = {}
  for file in tables:
    try:
      data = place.read(file.path, limit=calls.MAX_TEXT)
    except BadRecording as error:
      raise errors.UserError(f"{file.name}: {error}") from error
    for line in data.decode(errors="replace").splitlines()[1:]:
      cells = line.split(",")
      if len(cells) > 10:
        found[cells[0]] = cells[5], cells[10]
  return found


@source.register_importer("fisher")
def open_fisher(src: str, *, options: Mapping[str, str]) -> LdcCalls:
  """The folder at a path or URL."""
  known = options_lib.Options(options, known={"user": ""}, importer="fisher")
  return LdcCalls(stored.Place(src), options=known, kind="fisher")


@source.register_importer("switchboard")
def open_switchboard(src: str, *, options: Mapping[str, str]) -> LdcCalls:
  """The folder at a path or URL."""
  known = options_lib.Options(
    options, known={"user": ""}, importer="switchboard"
  )
  return LdcCalls(stored.Place(src), options=known, kind="switchboard")
