"""Seamless Interaction: two people who see and hear each other.

For: unpacked archives at any depth, a set of files for each participant,
V00_S0809_I00000582_P0947.wav, .json and .mp4; two participants with the same V,
S and I are a conversation. The .json has words with times
(`metadata:transcript`) and when somebody speaks (`metadata:vad`). Not for: the
.npz files of movements, or archives that are packed. Start at `Seamless`.

Roles: `user`, first, second or each, by the numbers of the participants. With
`video=yes` the agent sees the user's .mp4, `fps` frames a second.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping

from tml_jax import errors
from tml_jax.data import calls, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part, Reason
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

SIDES = ("first", "second")
_KNOWN = {"user": "", "video": "yes", "fps": "1"}
_NAME = re.compile(r"^(V\d+_S\d+_I\d+)_(P\d+\w*)$")
_ENDS = (".wav", ".json", ".mp4")


class Seamless(calls.Listed):
  """The conversations of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the files.

    Raises:
      errors.UserError: there are none, or nothing says who is the user.
    """
    self._place, self._options = stored.Place(src), options
    self._roles = calls.roles(options, sides=SIDES)
    self._camera = calls.camera(options)
    found: dict[str, dict[str, dict[str, stored.File]]] = {}
    for file in self._place.files(ends=_ENDS):
      stem, end = posixpath.splitext(posixpath.basename(file.name))
      if match := _NAME.match(stem):
        people = found.setdefault(match[1], {})
        people.setdefault(match[2], {})[end.lower()] = file
    if not found:
      raise errors.UserError(
        f"{src} has no file that is named as V00_S0809_I00000582_P0947.wav"
      )
    self._parts = [
      _part(name, people) for name, people in sorted(found.items())
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      part.check()
      notes = calls.Notes()
      sides, video = {}, {}
      for number, side in enumerate(SIDES):
        wav, text, clip = part.paths[3 * number : 3 * number + 3]
        sides[side] = self._side(wav, text, name=part.name, notes=notes)
        if self._camera and side in calls.users(self._roles):
          video[side] = self._camera.video(
            self._place,
            clip,
            seconds=len(sides[side].audio) / clock.SAMPLE_RATE,
            notes=notes,
          )
      yield from calls.timelines(
        part.name,
        sides,
        among=self._roles,
        metadata=self._options.metadata(calls.KIND),
        notes=notes,
        video=video,
      )
    except BadRecording as error:
      yield error

  def _side(
    self, wav: str, text: str, *, name: str, notes: calls.Notes
  ) -> calls.Side:
    """A participant."""
    stem = posixpath.splitext(posixpath.basename(wav))[0]
    sound = calls.sound(self._place, wav, channels=1)[0]
    said: list[calls.Said] = []
    spans: list[tuple[object, object]] | None = None
    if not text:
      notes[Note.NO_WORDS] += 1
    else:
      with calls.reading(f"{stem}.json"):
        content = calls.value(self._place, text)
        for segment in content.get("metadata:transcript") or ():
          words = segment.get("words")
          said += [
            calls.Said(e.get("start"), e.get("end"), e["word"])
            for e in words or [{**segment, "word": segment.get("transcript")}]
          ]
        if not said:
          notes[Note.NO_WORDS] += 1
        if (vad := content.get("metadata:vad")) is not None:
          spans = [(e.get("start"), e.get("end")) for e in vad]
    return calls.Side(sound, said, spans, voice=stem.rpartition("_")[2])


def _part(
  name: str, people: Mapping[str, Mapping[str, stored.File]]
) -> calls.Call:
  heard = sorted(person for person in people if ".wav" in people[person])
  if len(heard) != 2:
    error = BadRecording(
      Reason.MISSING,
      f"{name}: two participants have a .wav in a conversation, not"
      f" {len(heard)}: {', '.join(heard)}",
    )
    return calls.bad_call(name, error)
  return calls.call(
    name, [people[person].get(end) for person in heard for end in _ENDS]
  )


@source.register_importer("seamless")
def open_folder(src: str, *, options: Mapping[str, str]) -> Seamless:
  """The folder at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="seamless")
  return Seamless(src, options=known)
