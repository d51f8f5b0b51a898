"""DuplexChat: manifests of dialogues in podcasts, with sound of one's own.

For: *.jsonl of {"language", "audio_url", "dialogue_idx", "episode_start_sec",
"episode_end_sec", "duration_sec", "speakers": [...], "episode_duration_sec"}
and a field that names the separated sound on this disk, two channels (option
`audio`, audio_path by default), of the dialogue or of its whole episode. Not
for: downloading; nothing is fetched from `audio_url`. Start at `DuplexChat`.

Roles: A is on the left and B on the right, as the project's pipeline writes
them, and either can be the user: `user` is A, B or each. `root` is where sounds
lie, if not beside the manifest.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tml_jax.data import calls, records, source, stored
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Note, Part, Reason
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

SIDES = ("A", "B")  # left, right
_KNOWN = {"user": "", "audio": "audio_path", "root": ""}
_RANGE = 1 << 12
_BYTES = 50_000  # of sound for a byte of a line: 400 of them are some minutes
_NEAR = 1.0  # seconds by which lengths may differ


class DuplexChat:
  """The dialogues of manifests."""

  def __init__(self, src: str, *, options: options_lib.Options):
    self._place, self._options = stored.Place(src), options
    self._roles = calls.roles(options, sides=SIDES)
    self._sounds = stored.Place(options["root"]) if options["root"] else None
    self._ranges = stored.ranges(
      self._place.files(ends=(".jsonl", ".jsonl.gz")), size=_RANGE
    )

  def parts(self) -> list[Part]:
    return [
      Part(found.part.name, found.part.stamp, found.part.bytes * _BYTES)
      for found in self._ranges.values()
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    found = self._ranges[part.name]
    last = ("", np.zeros((2, 0), np.float32))  # an episode has many dialogues
    for each in records.json_lines(self._place, found):
      try:
        if isinstance(each, BadRecording):
          raise each
        name, row = each
        place = self._sounds or self._place
        folder = self._sounds.top if self._sounds else found.file.folder
        path = place.below(
          folder,
          records.text_of(
            row, self._options["audio"], name=name, missing=Reason.MISSING
          ),
        )
        if path != last[0]:
          last = ("", np.zeros((2, 0), np.float32))
          last = (path, calls.sound(place, path, channels=2))
        yield from self._timelines(name, row, sound=last[1])
      except BadRecording as error:
        yield error

  def _timelines(
    self, name: str, row: Mapping[str, Any], *, sound: np.ndarray
  ) -> Iterator[Timeline]:
    kept = _dialogue(sound, row=row, name=name)
    language = row.get("language")
    speakers = row.get("speakers")
    if not isinstance(speakers, list) or len(speakers) != len(SIDES):
      speakers = [f"{name} {side}" for side in SIDES]
    yield from calls.timelines(
      name,
      {
        side: calls.Side(heard, voice=f"{name} {speaker}")
        for side, heard, speaker in zip(SIDES, kept, speakers, strict=True)
      },
      among=self._roles,
      metadata=self._options.metadata(
        calls.KIND, language=language if isinstance(language, str) else ""
      ),
      notes={Note.NO_WORDS: 1},
    )


def _dialogue(
  sound: np.ndarray, *, row: Mapping[str, Any], name: str
) -> np.ndarray:
  """[2, n] of the dialogue, of a file that has it alone or the episode.

  Raises:
    BadRecording: the file is as long as neither.
  """
  start, end, length, episode = (
    calls.seconds(row.get(field), name=name)
    for field in (
      "episode_start_sec",
      "episode_end_sec",
      "duration_sec",
      "episode_duration_sec",
    )
  )
  held = sound.shape[1] / clock.SAMPLE_RATE
  if length is not None and abs(held - length) <= _NEAR:
    return sound
  if (
    episode is not None
    and abs(held - episode) <= _NEAR
    and start is not None
    and end is not None
    and 0 <= start < end <= held + _NEAR
  ):
    first, last = (round(t * clock.SAMPLE_RATE) for t in (start, end))
    return sound[:, first:last]
  raise BadRecording(
    Reason.BROKEN_METADATA,
    f"{name}: {held:.2f} s of sound are neither the dialogue's {length} s nor"
    f" the episode's {episode} s",
  )


@source.register_importer("duplexchat")
def open_manifest(src: str, *, options: Mapping[str, str]) -> DuplexChat:
  """The manifest, or the folder of manifests, at a path or URL."""
  known = options_lib.Options(options, known=_KNOWN, importer="duplexchat")
  return DuplexChat(src, options=known)
