"""CANDOR: calls of two strangers over video.

For: UUID/processed/UUID.mp3 of two channels, with channel_map.json beside it,
{"L": "PERSON", "R": "PERSON"}, PERSON.mp4 where there is one, and
UUID/transcription/transcript_NAME.csv. Not for: the surveys or the features.
Start at `Candor`.

Roles: `user` is L, R or each. `transcript` names the table: audiophile,
cliffhanger or backbiter, whose backchannels are of whoever listens. With
`video=yes` the agent sees the user's .mp4, `fps` frames a second.
"""

import csv
import io
import posixpath
from collections.abc import Iterator, Mapping

from tml_jax import errors
from tml_jax.data import calls, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part, Reason
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

SIDES = ("L", "R")
TABLES = ("audiophile", "cliffhanger", "backbiter")
_KNOWN = {"user": "", "transcript": "audiophile", "video": "yes", "fps": "1"}


class Candor(calls.Listed):
  """The calls of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the files.

    Raises:
      errors.UserError: there are none, or nothing says who is the user.
    """
    self._place, self._options = stored.Place(src), options
    self._roles = calls.roles(options, sides=SIDES)
    table = options.choice("transcript", among=TABLES)
    self._camera = calls.camera(options)
    folders = stored.Folders(self._place)
    self._parts = []
    for file in self._place.files(ends=(".mp3",)):
      top = posixpath.dirname(file.folder)
      if posixpath.basename(file.folder) != "processed":
        continue
      others = (
        f"{file.folder}/channel_map.json",
        f"{top}/transcription/transcript_{table}.csv",
      )
      self._parts.append(
        calls.call(
          posixpath.splitext(posixpath.basename(file.name))[0],
          [file, *(folders.find(path) for path in others)],
        )
      )
    if not self._parts:
      raise errors.UserError(f"{src} has no UUID/processed/UUID.mp3")

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      path, channels, table = part.paths
      people = self._people(channels, name=part.name)
      sound = calls.sound(self._place, path, channels=2)
      notes = calls.Notes()
      said = self._said(table, people=people, name=part.name, notes=notes)
      seconds = sound.shape[1] / clock.SAMPLE_RATE
      video = {}
      for side, person in zip(SIDES, people, strict=True):
        if self._camera and side in calls.users(self._roles):
          video[side] = self._camera.video(
            self._place,
            posixpath.join(posixpath.dirname(path), f"{person}.mp4"),
            seconds=seconds,
            notes=notes,
          )
      yield from calls.timelines(
        part.name,
        {
          side: calls.Side(
            *(heard, said[side]),
            [(each.start, each.end) for each in said[side]] if table else None,
            voice=person,
          )
          for side, heard, person in zip(SIDES, sound, people, strict=True)
        },
        among=self._roles,
        metadata=self._options.metadata(calls.KIND),
        notes=notes,
        video=video,
      )
    except BadRecording as error:
      yield error

  def _people(self, path: str, *, name: str) -> tuple[str, str]:
    """Who is on the left and on the right."""
    if not path:
      raise BadRecording(Reason.MISSING, f"{name}: no channel_map.json")
    with calls.reading(f"{name} channel_map.json"):
      found = calls.value(self._place, path)
      left, right = (str(found[side]) for side in SIDES)
      if left == right or "/" in left + right:
        raise ValueError(f"L is {left!r:.80} and R is {right!r:.80}")
      return left, right

  def _said(
    self,
    path: str,
    *,
    people: tuple[str, str],
    name: str,
    notes: calls.Notes,
  ) -> dict[str, list[calls.Said]]:
    """Turns of each side; without a table none.

    Raises:
      BadRecording: the table is none.
    """
    said: dict[str, list[calls.Said]] = {side: [] for side in SIDES}
    if not path:
      notes[Note.NO_WORDS] += 1
      return said
    sides = dict(zip(people, SIDES, strict=True))
    data = self._place.read(path, limit=calls.MAX_TEXT)
    base = source.as_text(posixpath.basename(path))
    text = stored.text(data, name=f"{name} {base}").removeprefix("\ufeff")
    with calls.reading(f"{name} {base}"):
      try:
        for row in csv.DictReader(io.StringIO(text, newline="")):
          turns = [
            (row["speaker"], row["start"], row["stop"], row["utterance"])
          ]
          if row.get("backchannel"):
            turns.append(
              (
                row["backchannel_speaker"],
                _number(row["backchannel_start"]),
                _number(row["backchannel_stop"]),
                row["backchannel"],
              )
            )
          for speaker, start, end, words in turns:
            if speaker in sides:
              said[sides[speaker]].append(calls.Said(start, end, words))
            else:
              notes[Note.OTHER_SPEAKERS] += len(words.split())
      except csv.Error as error:
        raise ValueError(str(error)) from error
    return said


def _number(text: str) -> str:
  """A time; nothing where there are several."""
  try:
    float(text)
  except ValueError:
    return ""
  return text


@source.register_importer("candor")
def open_folder(src: str, *, options: Mapping[str, str]) -> Candor:
  """The folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="candor")
  return Candor(src, options=known)
