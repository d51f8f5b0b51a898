"""Spans and words for tracks that have none.

For: `stage`, after faults are mended, so that times are right. Not for: who
finds them (`speech`, `recognition`). Start reading at `annotated`.
"""

import dataclasses
from collections.abc import Callable

from tml_jax.data.mend import activity, recognition, speech
from tml_jax.data.mend.options import Annotation, Mending
from tml_jax.streams.timeline import Role, Timeline, Track


def annotated(
  item: Timeline, *, mending: Mending
) -> tuple[Timeline, tuple[str, ...]]:
  """The recording with spans and words where it had none, and what was written.

  Raises:
    BadRecording: the recogniser does not know its language.
  """
  written: list[str] = []
  if Annotation.SPEECH in mending.annotate:

    def heard(track: Track) -> Track:
      if not track.audio.size or (
        track.spans and not activity.is_measured(track)
      ):
        return track
      written.append("speech by Silero")
      return dataclasses.replace(track, spans=speech.spans(track.audio))

    item = _with(item, heard)
  if Annotation.WORDS in mending.annotate:
    spoken = [t for t in item.tracks if t.role is not Role.ENVIRONMENT]
    if all(track.words for track in spoken):
      return item, tuple(dict.fromkeys(written))
    recogniser = recognition.of_language(
      mending.recogniser,
      language=str(item.metadata.get("language") or ""),
      name=item.id,
    )

    def said(track: Track) -> Track:
      if track.role is Role.ENVIRONMENT or track.words or not track.spans:
        return track
      written.append(f"words by {mending.recogniser.partition(':')[0]}")
      return dataclasses.replace(track, words=recogniser.words_of(track))

    item = _with(item, said)
  return item, tuple(dict.fromkeys(written))


def _with(item: Timeline, change: Callable[[Track], Track]) -> Timeline:
  return dataclasses.replace(item, tracks=tuple(map(change, item.tracks)))
