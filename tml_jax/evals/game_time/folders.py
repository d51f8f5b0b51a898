"""Game-Time: spoken instructions about time, as clips and timelines.

For: the layout of the archives basic_instructions.zip and
advanced_instructions.zip (arXiv 2509.26388; Hugging Face
gametime-benchmark/gametime, CC BY 4.0). Not for: the numbers (`scores`) or
holding sessions (`suite`). Start at `open_root`; docs/game_time.md. Nothing
here imports jax.

  KIND_instructions/audios/TASK/test/ID.wav         an instruction
  KIND_instructions/alignments/TASK/[test/]ID.jsonl its words with times

KIND is basic or advanced; TASK begins with the number or letter of its family,
as 1-a-Sequence-Number. An alignment holds [word, [start, end], speaker] in any
nesting. What is asked for, so many seconds, is read from these words: manifests
of texts lie beside them, whose keys the data's card does not name.
"""

import dataclasses
import enum
import hashlib
import json
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from tml_jax import errors, files, registry
from tml_jax.data import audio as audio_lib
from tml_jax.data import media, source
from tml_jax.streams import annotation, clock
from tml_jax.streams.annotation import Annotation, Kind
from tml_jax.streams.timeline import Role, Span, Timeline, Track, Word

KINDS = ("basic_instructions", "advanced_instructions")


class Family(enum.StrEnum):
  """What TASK begins with; table 1 of the paper."""

  SEQUENCE = "1"
  REPEAT = "2"
  COMPOSE = "3"
  RECALL = "4"
  OPEN_ENDED = "5"
  ROLE_PLAY = "6"
  TIME_FAST = "A"  # done within so many seconds
  TIME_SLOW = "B"  # takes so many seconds at least
  TIME_SILENCE = "C"  # so many seconds of silence first
  TEMPO_INTERVAL = "D"  # so many seconds between words
  TEMPO_ADHERE = "E"  # the tempo of the user's example
  SHADOW = "F"  # each word repeated while the user goes on
  CUE = "G"  # at the moment of the user's last word


BASIC = tuple(Family)[:6]
# Those that say a number of seconds.
TIMED = tuple(Family)[6:10]
# Those in which the agent speaks while the user does.
OVERLAPPING = (Family.SHADOW, Family.CUE)

# Seconds of silence behind an instruction, for what is to be said.
ROOM, SHORT_ROOM, REST = 20.0, 4.0, 10.0
GAPS = 3  # between sounds in a tempo, for which there is room
# Seconds of silence between words of an example, at least, and words of it.
EXAMPLE_GAP, EXAMPLE_WORDS = 0.3, 3

_UNITS = (
  "zero one two three four five six seven eight nine ten eleven twelve thirteen"
  " fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
_NUMBERS = {word: n for n, word in enumerate(_UNITS)} | _TENS | {"a": 1}
_WORD = "|".join(sorted(_NUMBERS, key=len, reverse=True))
_SECONDS = re.compile(
  r"(?:(?P<half>half(?: an?)?)"
  rf"|(?P<tens>{'|'.join(_TENS)})[- ](?P<unit>{'|'.join(_UNITS[1:10])})"
  rf"|(?P<number>\d+(?:\.\d+)?|\b(?:{_WORD})\b)"
  rf"(?: point (?P<point>\d|{'|'.join(_UNITS[:10])}))?"
  r"(?P<and> and a half)?)[- ]?(?P<what>seconds?|secs?|minutes?)\b"
)


@dataclasses.dataclass(frozen=True)
class Clip:
  """One instruction.

  Attributes:
    task: folder, TASK.
    family: of it.
    id: name of the file.
    folder: KIND_instructions.
    path: of the sound.
    num_samples: of the instruction, at 16 kHz.
    digest: of sound and alignment.
    words: of the user.
    spans: where the user speaks; by energy.
  """

  task: str
  family: Family
  id: str
  folder: str
  path: pathlib.Path
  num_samples: int
  digest: str
  words: tuple[Word, ...]
  spans: tuple[Span, ...]

  @property
  def name(self) -> str:
    return f"{self.task}/{self.id}"

  @property
  def end(self) -> float:
    """Where the instruction is over, in seconds."""
    return self.words[-1].end

  @property
  def asked(self) -> float | None:
    """Seconds that are asked for, or between onsets of the user's example.

    None where the words do not say it.
    """
    if self.family == Family.TEMPO_ADHERE:
      return tempo(self.words)
    if self.family not in TIMED:
      return None
    return seconds(" ".join(word.text for word in self.words))

  @property
  def duration(self) -> float:
    """Of the session, in seconds: the instruction, and room behind it."""
    room = SHORT_ROOM if self.family in OVERLAPPING else ROOM
    if self.asked is not None:
      in_tempo = self.family in (Family.TEMPO_INTERVAL, Family.TEMPO_ADHERE)
      times = GAPS if in_tempo else 2
      room = max(room, times * self.asked + REST)
    return max(self.num_samples / clock.SAMPLE_RATE, self.end) + room

  def load(self) -> Timeline:
    """The user's part, with annotations for our panel."""
    sound = np.zeros(round(self.duration * clock.SAMPLE_RATE), np.float32)
    found = read(self.path)
    sound[: len(found)] = found
    return Timeline(
      id=self.name,
      duration=self.duration,
      tracks=(Track(Role.USER, sound, self.words, self.spans, self.task),),
      metadata={
        "family": str(self.family.name.lower()),
        annotation.KEY: [annotation.to_json(a) for a in annotations(self)],
      },
    )


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """What is below a root.

  Attributes:
    clips: in order of their families and tasks.
    left_out: why a clip is not among them, by "TASK/ID".
  """

  clips: tuple[Clip, ...]
  left_out: dict[str, str]


def annotations(clip: Clip) -> list[Annotation]:
  """What our panel asks of the agent; nothing where it speaks meanwhile."""
  if clip.family in OVERLAPPING:
    return []
  start = clip.words[0].start
  if clip.family == Family.TIME_SILENCE and clip.asked is not None:
    due = clip.end + clip.asked
    return [Annotation(Kind.TIMED, start, clip.end, due=due)]
  return [Annotation(Kind.TURN, start, clip.end)]


def seconds(text: str) -> float | None:
  """The last number of seconds that a text names; None where it has none.

  As "in ten seconds", "a 2.5-second pause", "half a second", "1 minute". The
  last one, as a request ends with its time.
  """
  found = list(_SECONDS.finditer(re.sub(r"[,;:!?]", "", text.lower())))
  if not found:
    return None
  match = found[-1]
  if match["half"]:
    value = 0.5
  elif match["tens"]:
    value = float(_NUMBERS[match["tens"]] + _NUMBERS[match["unit"]])
  else:
    value = _number(match["number"])
    value += 0.1 * _number(match["point"]) if match["point"] else 0.0
    value += 0.5 if match["and"] else 0.0
  return value * (60 if match["what"].startswith("min") else 1)


def _number(text: str) -> float:
  return float(_NUMBERS[text] if text in _NUMBERS else text)


def tempo(words: tuple[Word, ...]) -> float | None:
  """Seconds from onset to onset in the longest row of words set apart.

  The median; of equally long rows the last. None for fewer than three words.
  """
  rows: list[list[Word]] = [[]]
  for word in words:
    if rows[-1] and word.start - rows[-1][-1].end < EXAMPLE_GAP:
      rows.append([])
    rows[-1].append(word)
  row = max(reversed(rows), key=len)
  if len(row) < EXAMPLE_WORDS:
    return None
  return float(np.median(np.diff([word.start for word in row])))


def open_root(root: str, *, tasks: tuple[str, ...] = ()) -> Benchmark:
  """Finds all clips and reads each of them once.

  Args:
    root: has basic_instructions or advanced_instructions, or both.
    tasks: TASK folders, or families by name, as time_fast; none for all.

  Raises:
    errors.UserError: there is no such folder, a task that is not there or is of
      no family, or no clip that can be used.
  """
  top = pathlib.Path(root)
  kinds = [kind for kind in KINDS if (top / kind / "audios").is_dir()]
  if not root or not kinds:
    raise errors.UserError(
      f"--game_time_root={root} has no {KINDS[0]}/audios and no"
      f" {KINDS[1]}/audios: give the folder in which the archives of Game-Time"
      " were unpacked"
    )
  clips: list[Clip] = []
  left_out: dict[str, str] = {}
  known: set[str] = set()
  for kind in kinds:
    for folder in _folders(top / kind / "audios"):
      family = _family(folder)
      known |= {folder.name, family.name.lower()}
      if tasks and not {folder.name, family.name.lower()} & {*tasks}:
        continue
      for path in sorted(folder.glob("test/*.wav")):
        try:
          clips.append(_clip(path, kind=kind, family=family, top=top))
        except source.BadRecording as error:
          left_out[f"{folder.name}/{path.stem}"] = str(error)
  for task in tasks:
    if task not in known:
      raise errors.UserError(
        f"--families={task}: no task in --game_time_root={root}; "
        + registry.nearest(task, names=sorted(known))
      )
  if not clips:
    name, why = next(iter(left_out.items()), ("", "its folders are empty"))
    raise errors.UserError(
      f"--game_time_root={root} has no clip that can be used: {name} {why}"
    )
  order = list(Family)
  clips.sort(key=lambda c: (order.index(c.family), c.task, c.id))
  return Benchmark(tuple(clips), left_out)


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")
  )


def _family(folder: pathlib.Path) -> Family:
  first = folder.name.partition("-")[0].upper()
  try:
    return Family(first)
  except ValueError as error:
    raise errors.UserError(
      f"{folder} is no task of Game-Time: their names begin with 1 to 6 or A to"
      " G and a dash; move it away"
    ) from error


def _clip(
  path: pathlib.Path, *, kind: str, family: Family, top: pathlib.Path
) -> Clip:
  """Reads a clip.

  Raises:
    source.BadRecording: a file is missing, broken or not below `top`.
  """
  task, found = path.parent.parent.name, None
  base = top / kind / "alignments" / task
  for place in (
    base / f"{path.stem}.jsonl",
    base / "test" / f"{path.stem}.jsonl",
  ):
    if place.exists():
      found = place
  if found is None:
    raise _broken(f"{base / path.stem}.jsonl is missing")
  for each in (path, found):
    try:
      files.check_inside(each, root=top, what=f"--game_time_root={top}")
    except errors.UserError as error:
      raise _broken(str(error)) from error
  samples, words = read(path), read_words(found)
  digest = hashlib.sha256(path.read_bytes() + found.read_bytes())
  return Clip(
    task=task,
    family=family,
    id=path.stem,
    folder=kind,
    path=path,
    num_samples=len(samples),
    digest=digest.hexdigest()[:16],
    words=words,
    spans=tuple(audio_lib.speech_spans(samples, name=f"{task}/{path.stem}")),
  )


def read(path: pathlib.Path) -> np.ndarray:
  """[n] float32 at 16 kHz; channels are averaged.

  Raises:
    source.BadRecording: see `media.sound`.
  """
  return media.sound(path).mean(axis=0)


def read_words(path: pathlib.Path) -> tuple[Word, ...]:
  """Words of an alignment, in order.

  Raises:
    source.BadRecording: it is broken, or has none.
  """
  try:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [
      word
      for line in lines
      if line.strip()
      for word in _words(json.loads(line))
    ]
  except (OSError, ValueError, TypeError) as error:
    raise _broken(f"{path}: {error}") from error
  if not found:
    raise _broken(f"{path} has no [word, [start, end], speaker]")
  for word in found:
    if not 0 <= word.start <= word.end < math.inf:
      raise _broken(f"{path}: {word.text!r} from {word.start} to {word.end} s")
  return tuple(sorted(found, key=lambda word: (word.start, word.end)))


def _words(value: Any) -> Iterator[Word]:
  """All [word, [start, end], ...] in a JSON value."""
  if isinstance(value, dict):
    value = list(value.values())
  if not isinstance(value, list):
    return
  if len(value) >= 2 and isinstance(value[0], str):
    if isinstance(value[1], list) and len(value[1]) == 2:
      start, end = value[1]
      yield Word(float(start), float(end), value[0].strip())
    return
  for each in value:
    yield from _words(each)


def _broken(detail: str) -> source.BadRecording:
  return source.BadRecording(source.Reason.BROKEN_METADATA, detail)
