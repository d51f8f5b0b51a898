"""Behavior-SD: synthetic dialogues with backchannels and interruptions.

For: ID.flac (or another sound) of two channels beside ID.json, {"utterances":
[{"speaker_idx": 0, "start_time", "end_time", "tts_text", "uttr_type",
"backchannels": [{"start_time", "end_time", "tts_text"}, ...]}, ...]}. Not for:
text alone. Start at `BehaviorSd`.

Roles: speaker 0 is on the left and 1 on the right, and either can be the user:
`user` is 0, 1 or each. A backchannel is of whoever listens. Texts are spread
over their utterances; `words` there are not read, as nothing says whether their
times are of the utterance or of the dialogue.
"""

import posixpath
from collections.abc import Iterator, Mapping

from tml_jax import errors
from tml_jax.data import calls, samples, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Part, Reason
from tml_jax.streams.timeline import Timeline

SIDES = ("0", "1")  # left, right


class BehaviorSd(calls.Listed):
  """The dialogues of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the files.

    Raises:
      errors.UserError: there are none, or nothing says who is the user.
    """
    self._place, self._options = stored.Place(src), options
    self._roles = calls.roles(options, sides=SIDES)
    sounds: dict[str, stored.File] = {}
    texts: dict[str, stored.File] = {}
    for file in self._place.beside(ends=(*samples.SOUNDS, "json")):
      stem, end = posixpath.splitext(file.name)
      (texts if end.lower() == ".json" else sounds)[stem] = file
    if not sounds:
      raise errors.UserError(f"{src} has no sound")
    self._parts = [
      calls.call(stem, [file, texts.get(stem)])
      for stem, file in sorted(sounds.items())
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      path, text = part.paths
      if not text:
        raise BadRecording(Reason.NO_TRANSCRIPT, f"{part.name}.json")
      sound = calls.sound(self._place, path, channels=2)
      said: tuple[list[calls.Said], ...] = ([], [])
      with calls.reading(f"{part.name}.json"):
        content = calls.value(self._place, text)
        for each in content["utterances"]:
          speaker = SIDES.index(str(each["speaker_idx"]))
          said[speaker].append(_said(each))
          said[1 - speaker].extend(
            _said(other) for other in each.get("backchannels") or ()
          )
        metadata = self._options.metadata(calls.KIND)
        if isinstance(content.get("narrative"), str):
          metadata["narrative"] = content["narrative"]
      yield from calls.timelines(
        part.name,
        {
          side: calls.Side(
            sound[number],
            said[number],
            [(each.start, each.end) for each in said[number]],
            voice=f"{part.name} {side}",
          )
          for number, side in enumerate(SIDES)
        },
        among=self._roles,
        metadata=metadata,
      )
    except BadRecording as error:
      yield error


def _said(each: Mapping[str, object]) -> calls.Said:
  return calls.Said(each["start_time"], each["end_time"], each.get("tts_text"))


@source.register_importer("behavior_sd")
def open_folder(src: str, *, options: Mapping[str, str]) -> BehaviorSd:
  """The folder at a path or URL."""
  known = options_lib.Options(
    options, known={"user": ""}, importer="behavior_sd"
  )
  return BehaviorSd(src, options=known)
