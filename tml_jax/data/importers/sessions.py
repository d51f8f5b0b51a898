"""Sessions of ours: what `python -m tml_jax.sample --out=DIR` leaves.

For: folders with conversation.wav, the user on the left and the agent on the
right, and ticks.jsonl, at any depth below one folder. Not for: what a session
saw, which is not kept there. Start at `Sessions`.

Roles are those of the folder. Words, calls, results, and what was typed and
shown come from the ticks, to 0.2 s; speech is measured in the sound.
"""

import json
import posixpath
from collections.abc import Iterator, Mapping

from tml_jax import errors
from tml_jax.data import calls, source, stored, tick_logs
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part
from tml_jax.streams.timeline import Role, Timeline

SOUND, TICKS = "conversation.wav", "ticks.jsonl"
_SCHEMA = "tml_jax.ticks"


class Sessions(calls.Listed):
  """The sessions of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the folders.

    Raises:
      errors.UserError: there are none.
    """
    self._place, self._options = stored.Place(src), options
    folders = stored.Folders(self._place)
    sounds = [
      file
      for file in self._place.files(ends=(SOUND,))
      if posixpath.basename(file.path) == SOUND
    ]
    if not sounds:
      raise errors.UserError(f"{src} has no {SOUND}")
    self._parts = [
      calls.call(
        posixpath.dirname(file.name) or SOUND,
        [file, folders.find(posixpath.join(file.folder, TICKS))],
      )
      for file in sounds
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      path, ticks = part.paths
      sound = calls.sound(self._place, path, channels=2)
      notes = calls.Notes()
      found = tick_logs.read([], notes=notes)
      if not ticks:
        notes[Note.NO_WORDS] += 1
      else:
        data = self._place.read(ticks, limit=calls.MAX_TEXT)
        name = f"{part.name}/{TICKS}"
        with calls.reading(name):
          lines = stored.text(data, name=name).splitlines()
          header, *records = (json.loads(line) for line in lines)
          if header.get("schema") != _SCHEMA:
            raise ValueError(f"schema {header.get('schema')!r:.80}")
          if header["ticks"] != len(records):
            raise ValueError(f"{len(records)} ticks, not {header['ticks']}")
          found = tick_logs.read(records, notes=notes)
      yield from calls.timelines(
        part.name,
        {
          side: calls.Side(heard, found.said[side], voice=f"{part.name} {side}")
          for side, heard in zip(tick_logs.SIDES, sound, strict=True)
        },
        among=[{side: Role(side) for side in tick_logs.SIDES}],
        metadata=self._options.metadata(calls.KIND),
        notes=notes,
        events=tuple(found.events),
        lasts=found.seconds,
      )
    except BadRecording as error:
      yield error


@source.register_importer("sessions")
def open_folder(src: str, *, options: Mapping[str, str]) -> Sessions:
  """The folder of a session, or of several, at a path or URL."""
  known = options_lib.Options(options, known={}, importer="sessions")
  return Sessions(src, options=known)
