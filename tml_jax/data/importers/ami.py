"""AMI: meetings of four or five, each with a headset.

For: M.Headset-0.wav and the others, at any depth, and the manual annotations
1.6.2 beside them or in the folder `annotations`, unpacked: meetings.xml,
words/M.A.words.xml and segments/M.A.segments.xml. Not for: the mixed headsets
or the microphones of the room. Start at `Ami`.

Roles: `user` and `agent` are letters of participants, A to E; the others are
the environment, one track, which is heard and has no words. meetings.xml says
who wears which headset.
"""

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

import numpy as np

from tml_jax import errors
from tml_jax.data import calls, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part, Reason
from tml_jax.streams.timeline import Role, Timeline

LETTERS = ("A", "B", "C", "D", "E")
_HEADSET = re.compile(r"^(\w+)\.Headset-(\d)\.wav$", re.IGNORECASE)
_MEETINGS = "meetings.xml"


class Ami(calls.Listed):
  """The meetings of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the files and reads who wears which headset.

    Raises:
      errors.UserError: there are none, or nothing says who is who.
    """
    self._place, self._options = stored.Place(src), options
    self._letters = {
      role: options.choice(str(role), among=LETTERS)
      for role in (Role.USER, Role.AGENT)
    }
    if len({*self._letters.values()}) < 2:
      raise options.error("agent", want="another letter than for the user")
    where = options["annotations"]
    self._texts = stored.Place(where) if where else self._place
    texts = {
      posixpath.basename(file.name): file
      for file in self._texts.files(ends=(".xml",))
    }
    if _MEETINGS not in texts:
      raise errors.UserError(
        f"{where or src} has no {_MEETINGS}, which says who wears which"
        " headset: give the annotations with --option=annotations=FOLDER"
      )
    channels = _channels(self._texts, texts[_MEETINGS])
    headsets: dict[str, dict[int, stored.File]] = {}
    for file in self._place.files(ends=(".wav",)):
      if match := _HEADSET.match(posixpath.basename(file.name)):
        headsets.setdefault(match[1], {})[int(match[2])] = file
    if not headsets:
      raise errors.UserError(f"{src} has no file M.Headset-0.wav")
    self._parts = [
      self._part(name, found, who=channels.get(name, {}), texts=texts)
      for name, found in sorted(headsets.items())
    ]

  def _part(
    self,
    name: str,
    headsets: Mapping[int, stored.File],
    *,
    who: Mapping[str, int],
    texts: Mapping[str, stored.File],
  ) -> calls.Call:
    wanted = [*self._letters.values()]
    missing = [each for each in wanted if who.get(each) not in headsets]
    if missing:
      return calls.bad_call(
        name,
        BadRecording(
          Reason.MISSING, f"{name}: no headset of {', '.join(missing)}"
        ),
      )
    others = sorted(
      letter
      for letter, channel in who.items()
      if letter not in wanted and channel in headsets
    )
    files: list[stored.File | None] = [
      headsets[who[letter]] for letter in (*wanted, *others)
    ]
    for letter in wanted:
      files += [
        texts.get(f"{name}.{letter}.{what}.xml")
        for what in ("words", "segments")
      ]
    return calls.call(name, files, record=json.dumps(len(wanted + others)))

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      part.check()
      count = json.loads(part.record)
      sounds, texts = part.paths[:count], part.paths[count:]
      notes = calls.Notes()
      sides: dict[str, calls.Side] = {}
      for number, (role, letter) in enumerate(self._letters.items()):
        words, segments = texts[2 * number : 2 * number + 2]
        sides[str(role)] = calls.Side(
          calls.sound(self._place, sounds[number], channels=1)[0],
          self._said(words, notes) if words else [],
          self._spans(segments) if segments else None,
          voice=f"{part.name} {letter}",
        )
        if not words:
          notes[Note.NO_WORDS] += 1
      who: dict[str, Role] = {str(role): role for role in self._letters}
      if count > len(self._letters):
        key = str(Role.ENVIRONMENT)
        who[key] = Role.ENVIRONMENT
        sides[key] = calls.Side(
          self._mixed(sounds[len(self._letters) :]), spans=(), voice=part.name
        )
      yield from calls.timelines(
        part.name,
        sides,
        among=[who],
        metadata=self._options.metadata(calls.KIND),
        notes=notes,
      )
    except BadRecording as error:
      yield error

  def _mixed(self, paths: tuple[str, ...]) -> np.ndarray:
    """[n], the sum of several headsets."""
    total = np.zeros(0, np.float32)
    for path in paths:
      sound = calls.sound(self._place, path, channels=1)[0]
      if len(sound) > len(total):
        total = np.pad(total, (0, len(sound) - len(total)))
      total[: len(sound)] += sound
    return np.clip(total, -1, 1, out=total)

  def _said(self, path: str, notes: calls.Notes) -> list[calls.Said]:
    """Words; signs of punctuation belong to the word before them."""
    said: list[calls.Said] = []
    for each in self._elements(path):
      if _local(each.tag) != "w":
        continue
      text = each.text or ""
      if each.get("punc") == "true":
        if said and isinstance(said[-1].text, str):
          last = said[-1]
          said[-1] = calls.Said(last.start, last.end, f"{last.text}{text}")
        continue
      said.append(calls.Said(each.get("starttime"), each.get("endtime"), text))
    return said

  def _spans(self, path: str) -> list[tuple[object, object]]:
    return [
      (each.get("transcriber_start"), each.get("transcriber_end"))
      for each in self._elements(path)
      if _local(each.tag) == "segment"
    ]

  def _elements(self, path: str) -> Iterator[ElementTree.Element]:
    return _parsed(self._texts, path).iter()


def _local(tag: str) -> str:
  """A name without its namespace."""
  return tag.rpartition("}")[2]


def _parsed(place: stored.Place, path: str) -> ElementTree.Element:
  """A file of XML.

  Raises:
    BadRecording: it is none.
  """
  data = place.read(path, limit=calls.MAX_TEXT)
  try:
    return ElementTree.fromstring(data)
  except (ElementTree.ParseError, ValueError, LookupError) as error:
    raise BadRecording(
      Reason.BROKEN_METADATA,
      source.as_text(f"{posixpath.basename(path)}: {error!r:.200}"),
    ) from error


def _channels(
  place: stored.Place, file: stored.File
) -> dict[str, dict[str, int]]:
  """Number of the headset by letter, of each meeting.

  Raises:
    errors.UserError: the file is broken.
  """
  try:
    found: dict[str, dict[str, int]] = {}
    for meeting in _parsed(place, file.path).iter():
      if _local(meeting.tag) == "meeting":
        found[meeting.get("observation", "")] = {
          speaker.get("nxt_agent", ""): int(speaker.get("channel", ""))
          for speaker in meeting.iter()
          if _local(speaker.tag) == "speaker"
        }
  except ValueError as error:
    raise errors.UserError(f"{file.name} is broken: {error}") from error
  return found


@source.register_importer("ami")
def open_meetings(src: str, *, options: Mapping[str, str]) -> Ami:
  """The folder at a path or URL."""
  known = options_lib.Options(
    options, known={"user": "", "agent": "", "annotations": ""}, importer="ami"
  )
  return Ami(src, options=known)
