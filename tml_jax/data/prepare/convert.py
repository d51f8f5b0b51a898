"""One unit of work: its recordings, checked, to shards.

For: the processes of `prepare` and the workers of Beam, which run the same
function. Not for: reading media (`media`) or what a source checks itself. Start
reading at `convert`. Whatever is wrong with a recording, it alone is skipped,
with a reason and its name.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from tml_jax import errors
from tml_jax.data import corpus, source
from tml_jax.data.mend import options as mend_options
from tml_jax.data.mend import stage
from tml_jax.data.prepare.plan import Unit
from tml_jax.data.source import BadRecording, Part, Reason
from tml_jax.streams import document, timeline
from tml_jax.streams.document import Document
from tml_jax.streams.timeline import Timeline, Track

# Letters. Nobody says a longer word; its say-text would fill minutes.
MAX_WORD = 1000
EXAMPLES = 5  # of every reason to skip
SKIPPED = "skipped"
MEASURES = "measures"  # values of each, of recordings that are kept or not
MENDED = "mended"
VIDEO = "video"  # height and width, of units and corpora with video


@dataclasses.dataclass(frozen=True)
class Task:
  """What a unit is converted with; small, as every process gets it.

  Attributes:
    recordings: the source.
    place: of the corpus.
    size: height and width that video must have.
    code: names the code that reads and converts.
    options: of the source and of what is done to its recordings, in one text.
    mending: what is measured, mended and annotated.
  """

  recordings: source.Source | source.Streamed
  place: str
  size: tuple[int, int]
  code: str
  options: str
  mending: mend_options.Mending = mend_options.OFF

  @property
  def maker(self) -> str:
    """What makes the same parts another unit."""
    return f"{self.code} {self.options} {self.size[0]}x{self.size[1]}"


def convert(task: Task, unit: Unit) -> corpus.Unit:
  """Writes a unit; the same bytes wherever and whenever it runs.

  Raises:
    errors.UserError: from the source, of which nothing can be used, or from
      the place.
    OSError: it cannot be written.
  """
  counts = _Counts()
  items = counts.usable(task, unit)

  def meta() -> dict[str, Any]:
    return {
      "parts": [list(key) for key in unit.keys],
      "code": task.code,
      "options": task.options,
      "size": list(task.size),
      VIDEO: counts.has_video,
      SKIPPED: counts.skipped,
      source.NOTES: counts.notes,
      MENDED: counts.mended,
      MEASURES: counts.measures,
    }

  return corpus.write_unit(
    items, name=unit.name, place=corpus.Place(task.place), meta=meta
  )


class _Counts:
  """What was left out of a unit, filled up while it is read.

  Attributes:
    skipped: count and examples by reason.
    notes: the same of what was left out of recordings that are kept.
    mended: the same of what was mended in them, or written.
    measures: values by name.
    has_video: whether one had video, or was skipped for its size.
  """

  def __init__(self) -> None:
    self.skipped: dict[str, Any] = {}
    self.notes: dict[str, Any] = {}
    self.mended: dict[str, Any] = {}
    self.measures: dict[str, list[float]] = {}
    self.has_video = False

  def usable(self, task: Task, unit: Unit) -> Iterator[corpus.Item]:
    """What can be written."""
    for part, place in zip(unit.parts, unit.places, strict=True):
      for item in self._mended(task, part=part, place=place):
        checked = _checked(item, name=f"number {place}", size=task.size)
        if isinstance(checked, BadRecording):
          self.has_video |= checked.reason is Reason.OTHER_SIZE
          count(
            self.skipped,
            str(checked.reason),
            examples=[source.as_text(checked.detail)],
          )
          continue
        if isinstance(checked, Timeline):
          self.has_video |= bool(checked.video)
        for note, number in checked.metadata.get(source.NOTES, {}).items():
          count(self.notes, note, examples=[checked.id], number=number)
        yield checked
        del item, checked  # before the next is decoded

  def _mended(
    self, task: Task, *, part: Part, place: int
  ) -> Iterator[corpus.Item | BadRecording]:
    """What was read, measured and mended."""
    for item in _read(task.recordings, part=part, place=place):
      if isinstance(item, Document):
        yield item
        continue
      for each in _applied(item, task.mending, name=part.name):
        if isinstance(each, BadRecording):
          if isinstance(each, stage.Faulty):
            self._measured(each.values)
          yield each
          continue
        self._measured(each.values)
        for done in each.done:
          count(self.mended, done, examples=[source.as_text(each.item.id)])
        yield each.item
        del each

  def _measured(self, values: Mapping[str, float]) -> None:
    for name, value in values.items():
      self.measures.setdefault(name, []).append(round(value, 6))


def count(
  counts: dict[str, Any], reason: str, *, examples: list[str], number: int = 1
) -> None:
  """Adds to counts by reason, with some examples of each."""
  entry = counts.setdefault(reason, {"count": 0, "examples": []})
  entry["count"] += number
  entry["examples"] = [*entry["examples"], *examples][:EXAMPLES]


def _read(
  recordings: source.Source | source.Streamed, *, part: Part, place: int
) -> Iterator[corpus.Item | BadRecording]:
  """What is in a part, and what is wrong with it."""
  if isinstance(recordings, source.Streamed):
    name, items = part.name, recordings.read(part)
  else:
    name = f"number {place}"
    items = map(recordings.__getitem__, itertools.repeat(place, 1))
  while True:
    try:
      item = next(items, None)
    except errors.UserError:
      raise
    except BadRecording as error:
      item, items = error, iter(())
    except MemoryError:
      yield BadRecording(Reason.TOO_LARGE, f"{name}: no memory")
      return
    except Exception as error:  # whatever the source is not ready for
      yield BadRecording(Reason.FAILED, f"{name}: {error!r}")
      return
    if item is None:
      return
    yield item
    del item


def _applied(
  item: Timeline | BadRecording, mending: mend_options.Mending, *, name: str
) -> Iterator[stage.Result | BadRecording]:
  """`stage.apply`, where what it is not ready for skips the recording."""
  made = stage.apply(item, mending=mending)
  while True:
    try:
      each = next(made, None)
    except errors.UserError:
      raise
    except MemoryError:
      each = BadRecording(Reason.TOO_LARGE, f"{name}: no memory to mend it")
    except Exception as error:  # a timeline of things that are no fields of one
      each = BadRecording(Reason.INVALID, f"{name}: {error!r}")
    if each is None:
      return
    yield each


def _checked(
  item: corpus.Item | BadRecording, *, name: str, size: tuple[int, int]
) -> corpus.Item | BadRecording:
  """A recording as it is written, or why not."""
  try:
    if isinstance(item, BadRecording):
      return item
    if isinstance(item, Document):
      document.validate(item)
      corpus.check(item)
      return item
    item = _without_long_words(item)
    timeline.validate(item)
    _check_prompt(item)
    _check_video(item, size=size)
    corpus.check(item)
    return item
  except BadRecording as error:
    return error
  except ValueError as error:
    return BadRecording(Reason.INVALID, f"{name}: {error}")
  except Exception as error:  # a timeline of things that are no fields of one
    return BadRecording(Reason.INVALID, f"{name}: {error!r}")


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


def _check_video(item: Timeline, *, size: tuple[int, int]) -> None:
  for frame in item.video:
    height, width, _ = frame.image.shape
    if (height, width) != size or frame.image.dtype.name != "uint8":
      raise BadRecording(
        Reason.OTHER_SIZE,
        f"{item.id}: {height} x {width} {frame.image.dtype} at {frame.time} s;"
        f" the config's streams.video_height and video_width are {size[0]} x"
        f" {size[1]}: resize it there",
      )
