"""One recording of a source as it is written, or why not.

For: the worker processes of `prepare`. Not for: reading media (`media`) or
what a source checks itself. Start reading at `convert`. Whatever is wrong with
a recording, it alone is skipped, with a reason and its name.
"""

import dataclasses

from tml_jax import errors
from tml_jax.data import corpus, source
from tml_jax.streams import timeline
from tml_jax.streams.timeline import Timeline, Track

# Letters. Nobody says a longer word; its say-text would fill minutes.
MAX_WORD = 1000


@dataclasses.dataclass(frozen=True)
class Skipped:
  """A recording that is not written."""

  reason: str
  detail: str


@dataclasses.dataclass(frozen=True)
class Kept:
  """A recording that is written.

  Attributes:
    record: of it.
    id: of its timeline.
    has_video: whether it has pictures.
    notes: how many of each `source.Note` were left out.
  """

  record: corpus.Record
  id: str
  has_video: bool
  notes: dict[str, int]


def convert(
  recordings: source.Source, index: int, *, size: tuple[int, int]
) -> Kept | Skipped:
  """Reads and checks recording `index`.

  Args:
    recordings: the source.
    index: of it.
    size: height and width that video must have.

  Raises:
    errors.UserError: from the source, which nothing of it can be used without.
  """
  try:
    item = recordings[index]
  except errors.UserError:
    raise
  except source.BadRecording as error:
    return _skipped(error.reason, error.detail)
  except MemoryError:
    return _skipped(source.Reason.TOO_LARGE, f"number {index}: no memory")
  except Exception as error:  # whatever the source is not ready for
    return _skipped(source.Reason.FAILED, f"number {index}: {error!r}")
  try:
    item = _without_long_words(item)
    timeline.validate(item)
    _check_prompt(item)
    return _check_video(item, size=size) or keep(item)
  except ValueError as error:
    return _skipped(source.Reason.INVALID, f"number {index}: {error}")
  except Exception as error:  # a timeline of things that are no fields of one
    return _skipped(source.Reason.INVALID, f"number {index}: {error!r}")


def keep(item: Timeline) -> Kept:
  """A valid timeline as it is written."""
  return Kept(
    corpus.Record.of(item),
    item.id,
    bool(item.video),
    dict(item.metadata.get(source.NOTES, {})),
  )


def _skipped(reason: source.Reason, detail: str) -> Skipped:
  return Skipped(str(reason), source.as_text(detail))


def _without_long_words(item: Timeline) -> Timeline:
  """Leaves out words that are none."""
  found = 0

  def shortened(track: Track) -> Track:
    nonlocal found
    words = tuple(
      w
      for w in track.words
      if not isinstance(w.text, str) or len(w.text) <= MAX_WORD
    )
    found += len(track.words) - len(words)
    return dataclasses.replace(track, words=words)

  tracks = tuple(shortened(track) for track in item.tracks)
  if not found:
    return item
  notes = item.metadata.get(source.NOTES, {}) | source.notes(
    {source.Note.LONG_WORDS: found}
  ).get(source.NOTES, {})
  return dataclasses.replace(
    item, tracks=tracks, metadata=item.metadata | {source.NOTES: notes}
  )


def _check_prompt(item: Timeline) -> None:
  """What scenarios need to know of a voice's prompt is there.

  Raises:
    ValueError: it is not.
  """
  if "prompt" not in item.metadata:
    return  # a conversation
  for name in ("prompt", "language", "text"):
    if not isinstance(item.metadata.get(name), str):
      raise ValueError(
        f"timeline {item.id!r}: metadata {name!r} is"
        f" {item.metadata.get(name)!r} and no text; utterance.build writes it"
      )
  if len(item.tracks) != 1:
    raise ValueError(
      f"timeline {item.id!r}: a prompt has one track, not {len(item.tracks)}"
    )


def _check_video(item: Timeline, *, size: tuple[int, int]) -> Skipped | None:
  for frame in item.video:
    height, width, _ = frame.image.shape
    if (height, width) != size or frame.image.dtype.name != "uint8":
      return _skipped(
        source.Reason.OTHER_SIZE,
        f"{item.id}: {height} x {width} {frame.image.dtype} at {frame.time} s;"
        f" the config's streams.video_height and video_width are {size[0]} x"
        f" {size[1]}: resize it there",
      )
  return None
