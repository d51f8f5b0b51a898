"""Sessions of ours: what `sample --out=DIR` and `serve --record=DIR` leave.

For: folders with conversation.wav, the user on the left and the agent on the
right, and ticks.jsonl, at any depth below one folder. Not for: playing one
again (`sample --session`). Start at `Sessions`.

Roles are those of the folder. Words, calls, results, and what was typed and
shown come from the ticks, to 0.2 s; speech is measured in the sound. A live
session's inputs.jsonl has its pictures, the windows that did not arrive, which
the model did not hear, and the clock on the wall, kept as `wall_s`.
"""

import dataclasses
import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from tml_jax import errors
from tml_jax.data import calls, media, source, stored, tick_logs
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part
from tml_jax.streams.timeline import Role, Span, Timeline, VideoFrame

SOUND, TICKS, INPUTS = "conversation.wav", "ticks.jsonl", "inputs.jsonl"
_SCHEMA, _INPUTS_SCHEMA = "tml_jax.ticks", "tml_jax.inputs"
_MAX_STILL = 1 << 24  # bytes


@dataclasses.dataclass
class _Inputs:
  """What the model was given besides sound and text.

  Attributes:
    video: as it saw it.
    muted: when it heard nothing.
    wall: seconds since 1970 at the end of each window.
  """

  video: list[VideoFrame] = dataclasses.field(default_factory=list)
  muted: list[Span] = dataclasses.field(default_factory=list)
  wall: list[float] = dataclasses.field(default_factory=list)


class Sessions(calls.Listed):
  """The sessions of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the folders.

    Raises:
      errors.UserError: there are none.
    """
    self._place, self._options = stored.Place(src), options
    self._sees = options.choice("video", among=("yes", "no")) == "yes"
    self._size = options.size("size")
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
        [
          file,
          folders.find(posixpath.join(file.folder, TICKS)),
          folders.find(posixpath.join(file.folder, INPUTS)),
        ],
      )
      for file in sounds
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      path, ticks, inputs = part.paths
      sound = calls.sound(self._place, path, channels=2)
      notes = calls.Notes()
      found = tick_logs.read([], notes=notes)
      if not ticks:
        notes[Note.NO_WORDS] += 1
      else:
        header, records = self._lines(ticks, name=f"{part.name}/{TICKS}")
        with calls.reading(f"{part.name}/{TICKS}"):
          if header.get("schema") != _SCHEMA:
            raise ValueError(f"schema {header.get('schema')!r:.80}")
          if header["ticks"] != len(records):
            raise ValueError(f"{len(records)} ticks, not {header['ticks']}")
          found = tick_logs.read(records, notes=notes)
      given = _Inputs()
      metadata: dict[str, Any] = {**self._options.metadata(calls.KIND)}
      if inputs:
        given = self._inputs(inputs, name=f"{part.name}/{INPUTS}", notes=notes)
        metadata |= {"wall_s": given.wall}
      for timeline in calls.timelines(
        part.name,
        {
          side: calls.Side(heard, found.said[side], voice=f"{part.name} {side}")
          for side, heard in zip(tick_logs.SIDES, sound, strict=True)
        },
        among=[{side: Role(side) for side in tick_logs.SIDES}],
        metadata=metadata,
        notes=notes,
        video={"user": tuple(given.video)},
        events=tuple(found.events),
        lasts=found.seconds,
      ):
        yield dataclasses.replace(timeline, muted=tuple(given.muted))
    except BadRecording as error:
      yield error

  def _lines(
    self, path: str, *, name: str
  ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header of a file, and a record for each other line."""
    data = self._place.read(path, limit=calls.MAX_TEXT)
    with calls.reading(name):
      lines = stored.text(data, name=name).splitlines()
      header, *records = (json.loads(line) for line in lines)
      return header, records

  def _inputs(self, path: str, *, name: str, notes: calls.Notes) -> _Inputs:
    """What inputs.jsonl and the pictures beside it say."""
    header, records = self._lines(path, name=name)
    found, folder = _Inputs(), posixpath.dirname(path)
    height, width = self._size
    with calls.reading(name):
      if header.get("schema") != _INPUTS_SCHEMA:
        raise ValueError(f"schema {header.get('schema')!r:.80}")
      seconds = int(header["window_ms"]) / 1000
      for k, record in enumerate(records):
        start = k * seconds
        found.wall.append(float(record["wall_s"]))
        if record["is_absent"]:
          if found.muted and found.muted[-1].end == start:
            start = found.muted.pop().start
          found.muted.append(Span(start, (k + 1) * seconds))
        for image in record["images"] if self._sees else ():
          try:
            data = self._place.read(
              self._place.below(folder, image), limit=_MAX_STILL
            )
            picture = media.picture_of_bytes(
              data, name=source.as_text(image), height=height, width=width
            )
          except BadRecording:
            notes[Note.NO_STILL] += 1
            continue
          found.video.append(VideoFrame(k * seconds, picture))
    return found


@source.register_importer("sessions")
def open_folder(src: str, *, options: Mapping[str, str]) -> Sessions:
  """The folder of a session, or of several, at a path or URL."""
  known = options_lib.Options(
    options, known={"video": "yes"}, importer="sessions"
  )
  return Sessions(src, options=known)
