"""Two-channel calls as the trainers of Moshi have them.

For: `moshi_finetune`, a manifest data.jsonl of lines {"path": "a/1.wav",
"duration": 24.5}, paths relative to it, and beside each sound a/1.json with
{"alignments": [["hello", [0.46, 0.92], "SPEAKER_MAIN"], ...]} in seconds; and
`nu_dialogue`, a folder of two-channel sounds with [{"speaker": "A", "word":
"hello", "start": 0.46, "end": 1.52}, ...] in NAME.json beside NAME.wav, or in
the folder `words`. Not for: the codes of a codec that either makes of them.
Start at `MoshiFinetune`.

Roles: Moshi is on the left and its user on the right, so `user=right` unless it
is given otherwise; SPEAKER_MAIN is whoever is on the left, and words of others
are left out, as there. nu-dialogue's A is left and B right, and either can be
the user: `user` is A, B or each.
"""

import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tml_jax.data import calls, records, samples, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.calls import Said
from tml_jax.data.source import BadRecording, Note, Part, Reason
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

MAIN = "SPEAKER_MAIN"
AB = ("A", "B")  # left, right
_CONDITIONS = "text_conditions"


class MoshiFinetune(calls.Listed):
  """The calls of a manifest."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Reads the manifest, and names and sizes of the files in it.

    Raises:
      errors.UserError: there is none.
    """
    self._place, self._options = stored.Place(src), options
    user = options.choice("user", among=calls.CHANNELS)
    self._roles = calls.roles_of(user, sides=calls.CHANNELS)
    manifests = self._place.files(ends=(".jsonl", ".jsonl.gz"))
    whole = stored.ranges(manifests, size=max(f.size for f in manifests) + 1)
    folders, known = stored.Folders(self._place), set[str]()
    self._parts = [
      self._part(each, folder=found.file.folder, folders=folders, known=known)
      for found in whole.values()
      for each in _numbered(found, place=self._place)
    ]

  def _part(
    self,
    named: records.Named | calls.Call,
    *,
    folder: str,
    folders: stored.Folders,
    known: set[str],
  ) -> calls.Call:
    if isinstance(named, calls.Call):
      return named
    name, record = named
    try:
      path = records.text_of(record, "path", name=name, missing=Reason.MISSING)
      found = self._place.below(folder, path)
      if found in known:
        raise BadRecording(
          Reason.BROKEN_METADATA, source.as_text(f"{name}: {path} again")
        )
      length = calls.seconds(record.get("duration"), name=name)
    except BadRecording as error:
      return calls.bad_call(name, error)
    known.add(found)
    words = folders.find(posixpath.splitext(found)[0] + ".json")
    file = folders.find(found)
    relative = posixpath.relpath(found, self._place.top)
    return calls.call(
      source.as_text(relative),
      [file, words],
      record=json.dumps({"duration": length, "path": found}),
    )

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      part.check()
      record = json.loads(part.record)
      # A file that is not there says so when it is read.
      sound = calls.sound(self._place, record["path"], channels=2)
      _check_length(sound, declared=record["duration"], name=part.name)
      notes = calls.Notes()
      said, conditions = self._words(part, notes)
      sides = {
        "left": calls.Side(sound[0], said=said, voice=f"{part.name} left"),
        "right": calls.Side(sound[1], voice=f"{part.name} right"),
      }
      yield from calls.timelines(
        part.name,
        sides,
        among=[self._roles],
        metadata=self._options.metadata(calls.KIND) | conditions,
        notes=notes,
      )
    except BadRecording as error:
      yield error

  def _words(
    self, part: calls.Call, notes: calls.Notes
  ) -> tuple[list[Said], dict[str, Any]]:
    """Words of the left channel, and what conditions the agent's text.

    Raises:
      BadRecording: they are no such words.
    """
    path = part.paths[1]
    if not path:
      notes[Note.NO_WORDS] += 1
      return [], {}
    said = []
    with calls.reading(source.as_text(posixpath.basename(path))):
      content = calls.value(self._place, path)
      for word, (start, end), speaker in content["alignments"]:
        if speaker == MAIN:
          said.append(Said(start, end, word))
        else:
          notes[Note.OTHER_SPEAKERS] += 1
      conditions = content.get(_CONDITIONS)
    return said, {_CONDITIONS: conditions} if conditions else {}


class NuDialogue(calls.Listed):
  """The dialogues of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the files.

    Raises:
      errors.UserError: there is no sound, or nothing says who is the user.
    """
    self._place, self._options = stored.Place(src), options
    self._roles = calls.roles(options, sides=AB)
    sounds = self._place.files(ends=[f".{end}" for end in samples.SOUNDS])
    self._texts = stored.Place(options["words"]) if options["words"] else None
    folders = stored.Folders(self._texts or self._place)
    seen: set[str] = set()
    self._parts = []
    for file in sounds:
      stem = posixpath.splitext(file.name)[0]
      if stem in seen:
        error = BadRecording(
          Reason.BROKEN_METADATA, f"{file.name}: {stem} again"
        )
        self._parts.append(calls.bad_call(file.name, error))
        continue
      seen.add(stem)
      beside = posixpath.splitext(file.path)[0]
      if self._texts is not None:
        beside = posixpath.join(self._texts.top, stem)
      self._parts.append(
        calls.call(stem, [file, folders.find(f"{beside}.json")])
      )

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      part.check()
      sound = calls.sound(self._place, part.paths[0], channels=2)
      notes = calls.Notes()
      said = self._words(part, notes)
      yield from calls.timelines(
        part.name,
        {
          side: calls.Side(heard, said=said[side], voice=f"{part.name} {side}")
          for side, heard in zip(AB, sound, strict=True)
        },
        among=self._roles,
        metadata=self._options.metadata(calls.KIND),
        notes=notes,
      )
    except BadRecording as error:
      yield error

  def _words(
    self, part: calls.Call, notes: calls.Notes
  ) -> dict[str, list[Said]]:
    said: dict[str, list[Said]] = {side: [] for side in AB}
    path = part.paths[1]
    if not path:
      notes[Note.NO_WORDS] += 1
      return said
    with calls.reading(f"{part.name}.json"):
      words = calls.value(self._texts or self._place, path)
      calls.collect(words, into=said, notes=notes)
    return said


def _numbered(
  found: stored.Range, *, place: stored.Place
) -> Iterator[records.Named | calls.Call]:
  """Lines of a manifest; of those that are none, why."""
  for number, each in enumerate(records.json_lines(place, found)):
    if isinstance(each, BadRecording):
      yield calls.bad_call(f"{found.file.name} line {number}", each)
    else:
      yield each


def _check_length(
  sound: np.ndarray, *, declared: float | None, name: str
) -> None:
  """Refuses sound that is shorter than its manifest says.

  Raises:
    BadRecording: it is.
  """
  held = sound.shape[1] / clock.SAMPLE_RATE
  if declared is not None and held < 0.98 * declared - 0.5:
    raise BadRecording(
      Reason.TRUNCATED,
      f"{name}: its manifest says {declared:.2f} s, it has {held:.2f} s",
    )


@source.register_importer("moshi_finetune")
def open_manifest(src: str, *, options: Mapping[str, str]) -> MoshiFinetune:
  """The manifest, or the folder of manifests, at a path or URL."""
  known = options_lib.Options(
    options, known={"user": "right"}, importer="moshi_finetune"
  )
  return MoshiFinetune(src, options=known)


@source.register_importer("nu_dialogue")
def open_folder(src: str, *, options: Mapping[str, str]) -> NuDialogue:
  """The folder at a path or URL."""
  known = options_lib.Options(
    options, known={"user": "", "words": ""}, importer="nu_dialogue"
  )
  return NuDialogue(src, options=known)
