"""Conversations in tar files, as WebDataset writes them.

For: NAME.flac (or .wav, .mp3, ...) with two channels, or NAME.user.flac and
NAME.agent.flac; and words in NAME.json, {"words": [{"role": "agent", "start":
1.2, "end": 1.5, "text": "hello"}, ...]}, whose roles may also be the sides left
and right; or in NAME.seglst.json, [{"speaker", "start_time", "end_time",
"words", "word_alignment": [["hello", 1.2, 1.5], ...]}, ...]. Not for: pairs of
text and something else, for which `speech_text`, `image_text` and `video_text`
have a layout. Start at `WebDataset`.

Roles: two channels need `user`, left, right or each. `speakers` are the names
that words have for the left and the right one, with a comma between.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tml_jax.data import calls, records, samples, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part, Reason
from tml_jax.streams.timeline import Role, Timeline

ROLES = (Role.USER, Role.AGENT)
_KNOWN = {"user": "", "speakers": ""}
_SEGMENTS = "seglst.json"
_APART = {str(role): role for role in ROLES}


class WebDataset:
  """The conversations of a tar file, or of all of a folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    self._options = options
    self._roles: list[calls.Roles] = []
    if options["user"]:
      self._roles = calls.roles(options, sides=calls.CHANNELS)
    names = options["speakers"].split(",") if options["speakers"] else []
    if len(names) not in (0, 2):
      raise options.error("speakers", want="two names with a comma between")
    self._names = dict(zip(names, calls.CHANNELS, strict=False))
    ends = [*samples.SOUNDS, "json", _SEGMENTS]
    ends += [f"{role}.{end}" for role in ROLES for end in samples.SOUNDS]
    self._tars = samples.Tars(stored.Place(src), ends=ends)

  def parts(self) -> list[Part]:
    return self._tars.parts()

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    for sample in self._tars.read(part):
      try:
        if isinstance(sample, BadRecording):
          raise sample
        yield from self._timelines(sample)
      except BadRecording as error:
        yield error

  def _timelines(self, sample: samples.Sample) -> Iterator[Timeline]:
    heard, among = self._heard(sample)
    notes = calls.Notes()
    said: dict[str, list[calls.Said]] = {side: [] for side in heard}
    spans: dict[str, list[tuple[object, object]]] = {side: [] for side in heard}
    speakers = calls.speakers_of(said, among=among)
    sides = {side: side for side in heard}
    for name, side in self._names.items():
      if side in said:
        speakers[name], sides[name] = said[side], side
    has_segments = False
    if (segments := sample.first([_SEGMENTS])) is not None:
      has_segments = True
      with calls.reading(segments[0]):
        found = records.value_of(segments[1], name=segments[0])
        _segments(found, said=speakers, spans=spans, sides=sides, notes=notes)
    elif (words := sample.first(["json"])) is not None:
      with calls.reading(words[0]):
        found = records.value_of(words[1], name=words[0])
        entries = found.get("words") if isinstance(found, dict) else found
        calls.collect(entries or (), into=speakers, notes=notes)
    if not any(said.values()):
      notes[Note.NO_WORDS] += 1
    yield from calls.timelines(
      sample.name,
      {
        side: calls.Side(
          *(sound, said[side], spans[side] if has_segments else None),
          voice=f"{sample.name} {side}",
        )
        for side, sound in heard.items()
      },
      among=among,
      metadata=self._options.metadata(calls.KIND),
      notes=notes,
    )

  def _heard(
    self, sample: samples.Sample
  ) -> tuple[dict[str, np.ndarray], list[calls.Roles]]:
    """[n] of each side, and who is who.

    Raises:
      BadRecording: there are not two sides, or nothing says who is who.
    """
    both = sample.first(samples.SOUNDS)
    if both is not None:
      if not self._roles:
        raise BadRecording(
          Reason.BROKEN_METADATA,
          f"{both[0]}: who is on the left? give --option=user=left or right",
        )
      sound = calls.sound_of_bytes(both[1], name=both[0], channels=2)
      return dict(zip(calls.CHANNELS, sound, strict=True)), self._roles
    heard = {}
    for role in ROLES:
      alone = sample.first([f"{role}.{end}" for end in samples.SOUNDS])
      if alone is None:
        raise BadRecording(
          Reason.MISSING, f"{sample.name}: no sound of the {role}"
        )
      heard[str(role)] = calls.sound_of_bytes(
        alone[1], name=alone[0], channels=1
      )[0]
    return heard, [_APART]


def _segments(
  found: Any,
  *,
  said: Mapping[str, list[calls.Said]],
  spans: Mapping[str, list[tuple[object, object]]],
  sides: Mapping[str, str],
  notes: calls.Notes,
) -> None:
  """Adds the words and spans of a list of segments."""
  for each in found:
    speaker = each["speaker"]
    if speaker not in sides:
      notes[Note.OTHER_SPEAKERS] += len(str(each["words"]).split())
      continue
    start, end = each["start_time"], each["end_time"]
    spans[sides[speaker]].append((start, end))
    if each.get("word_alignment"):
      said[speaker].extend(
        calls.Said(first, last, word)
        for word, first, last, *_ in each["word_alignment"]
      )
    else:
      said[speaker].append(calls.Said(start, end, each["words"]))


@source.register_importer("webdataset")
def open_tars(src: str, *, options: Mapping[str, str]) -> WebDataset:
  """The tar file, or the folder of them, at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="webdataset")
  return WebDataset(src, options=known)
