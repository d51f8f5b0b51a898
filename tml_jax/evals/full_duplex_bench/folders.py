"""Full-Duplex-Bench: its folders as clips and timelines, its output files.

For: the layout of v1.0 (arXiv 2503.04721) and v1.5 (2507.23159). Not for: the
numbers (`scores`) or holding sessions (`suite`). Start reading at
`open_root`; docs/full_duplex_bench.md. Nothing here imports jax.

A clip is a folder TASK/ID with `input.wav` of any rate and any number of
channels, and what happens in it, in seconds:

  pause.json, turn_taking.json, interrupt.json  [{"timestamp": [s, e]}, ...]
  metadata.json                                 {"timestamps": [s, e]}

What the benchmark does not say, the panel's annotations take from energy: the
user's turn begins and ends with the speech of `input.wav`.
"""

import dataclasses
import enum
import hashlib
import json
import math
import pathlib
from typing import Any

import numpy as np

from tml_jax import errors, files, registry
from tml_jax.data import audio as audio_lib
from tml_jax.data import media, source
from tml_jax.streams import annotation, clock
from tml_jax.streams.annotation import Annotation, Kind
from tml_jax.streams.timeline import Role, Span, Timeline, Track, Word

INPUT, OUTPUT, WORDS = "input.wav", "output.wav", "output.json"
# Of the benchmark's code and not of its data: when human listeners gave
# backchannels in each clip of ICC, a share for every 200 ms.
HUMAN = "icc_gt_distribution.json"
# A user's turn is one to answer if the clip goes on as long behind it.
ROOM_SECONDS = 1.0


class Task(enum.StrEnum):
  """Folders of v1.0, then of v1.5; no name is in both."""

  CANDOR_PAUSE = "candor_pause_handling"
  SYNTHETIC_PAUSE = "synthetic_pause_handling"
  TURN = "candor_turn_taking"
  BACKCHANNEL = "icc_backchannel"
  INTERRUPTION = "synthetic_user_interruption"
  USER_INTERRUPTION = "user_interruption"
  USER_BACKCHANNEL = "user_backchannel"
  TALKING_TO_OTHER = "talking_to_other"
  BACKGROUND_SPEECH = "background_speech"


PAUSES = (Task.CANDOR_PAUSE, Task.SYNTHETIC_PAUSE)
_INTERRUPTED = (Task.INTERRUPTION, Task.USER_INTERRUPTION)
# What an event of v1.5 is to our panel, where it is no interruption.
_UNDIRECTED = {
  Task.USER_BACKCHANNEL: Kind.BACKCHANNEL,
  Task.TALKING_TO_OTHER: Kind.SIDE_TALK,
  Task.BACKGROUND_SPEECH: Kind.BACKGROUND,
}
OVERLAP = (Task.USER_INTERRUPTION, *_UNDIRECTED)  # v1.5
_EVENTS = {
  **dict.fromkeys(PAUSES, "pause.json"),
  Task.TURN: "turn_taking.json",
  Task.INTERRUPTION: "interrupt.json",
  **dict.fromkeys(OVERLAP, "metadata.json"),
}


@dataclasses.dataclass(frozen=True)
class Clip:
  """One folder with an `input.wav` that can be used.

  Attributes:
    task: whose it is.
    id: name of the folder.
    folder: below the root, the place of `output.wav` too.
    path: of `input.wav`.
    num_samples: of it, at 16 kHz.
    digest: of it and of what happens in it.
    events: the pauses, the end of turn (and the next start), the interruption
      or the overlap.
    spans: where the user, or anybody else, speaks; by energy.
  """

  task: Task
  id: str
  folder: pathlib.PurePath
  path: pathlib.Path
  num_samples: int
  digest: str
  events: tuple[Span, ...]
  spans: tuple[Span, ...]

  @property
  def name(self) -> str:
    return f"{self.task}/{self.id}"

  @property
  def duration(self) -> float:
    return self.num_samples / clock.SAMPLE_RATE

  def load(self) -> Timeline:
    """The user's part, with annotations for our panel."""
    return Timeline(
      id=self.name,
      duration=self.duration,
      tracks=(Track(Role.USER, read(self.path), (), self.spans, self.name),),
      metadata={
        "family": str(self.task),
        annotation.KEY: [annotation.to_json(a) for a in annotations(self)],
      },
    )


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """What is below a root.

  Attributes:
    clips: those of a task together, in order of their numbers.
    left_out: why a clip is not among them, by "TASK/ID".
    human: shares of `HUMAN` by ID; empty where the file is not there.
  """

  clips: tuple[Clip, ...]
  left_out: dict[str, str]
  human: dict[str, np.ndarray]


def open_root(root: str, *, tasks: tuple[str, ...] = ()) -> Benchmark:
  """Finds all clips and reads each of them once.

  Args:
    root: has folders of tasks, or folders v1.0 and v1.5 that have them, or is
      one of a task.
    tasks: that are wanted; none for all that are there.

  Raises:
    errors.UserError: no folder of a task, one of clips that is no task, a task
      that is not there or is there twice, or no clip that can be used.
  """
  top = pathlib.Path(root)
  if not root or not top.is_dir():
    raise errors.UserError(
      f"--fdb_root={root}: there is no such directory; give that of"
      " Full-Duplex-Bench"
    )
  folders = _task_folders(top)
  for task in tasks:
    if task not in folders:
      raise errors.UserError(
        f"--families={task}: no task in --fdb_root={root}; "
        + registry.nearest(task, names=[str(name) for name in folders])
      )
  clips, left_out = [], {}
  for task in Task:
    if task not in folders or (tasks and task not in tasks):
      continue
    for folder in sorted(_folders(folders[task]), key=_by_number):
      try:
        clips.append(_clip(task, folder, top=top))
      except source.BadRecording as error:
        left_out[f"{task}/{folder.name}"] = str(error)
  if not clips:
    name, why = next(iter(left_out.items()), ("", "its folders are empty"))
    raise errors.UserError(
      f"--fdb_root={root} has no clip that can be used: {name} {why}"
    )
  return Benchmark(tuple(clips), left_out, _human(top))


def _task_folders(top: pathlib.Path) -> dict[Task, pathlib.Path]:
  """The folder of each task that is there."""
  upper = [top, *_folders(top)]
  known = [str(task) for task in Task]
  places = [*upper, *(f for u in upper[1:] for f in _folders(u))]
  found: dict[Task, pathlib.Path] = {}
  for folder in places:
    name = folder.resolve().name
    if name in known:
      if name in found:
        raise errors.UserError(
          f"--fdb_root={top} has {name} twice, {found[Task(name)]} and"
          f" {folder}: give the directory of one of them"
        )
      found[Task(name)] = folder
    elif any((f / INPUT).is_file() for f in _folders(folder)):
      raise errors.UserError(
        f"{folder} has clips and is no task of v1.0 or v1.5; "
        f"{registry.nearest(name, names=known)} Rename it or move it away"
      )
  if not found:
    raise errors.UserError(
      f"--fdb_root={top} has no folder of a task, for instance"
      f" {top / Task.TURN}: give the directory of Full-Duplex-Bench"
    )
  return found


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
  """Those in a folder, without hidden ones."""
  try:
    return sorted(
      f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")
    )
  except OSError as error:
    raise errors.UserError(
      f"{folder} cannot be read ({error.strerror}); give a directory that can"
    ) from error


def _by_number(folder: pathlib.Path) -> tuple[int, str]:
  return int(folder.name) if folder.name.isdecimal() else -1, folder.name


def _clip(task: Task, folder: pathlib.Path, *, top: pathlib.Path) -> Clip:
  """Reads a folder.

  Raises:
    source.BadRecording: a file is missing, broken or not below `top`.
  """
  path = folder / INPUT
  for name in (INPUT, _EVENTS.get(task, INPUT)):
    try:
      files.check_inside(folder / name, root=top, what=f"--fdb_root={top}")
    except errors.UserError as error:
      raise _broken(str(error)) from error
  samples = read(path)
  events, digest = (), hashlib.sha256(path.read_bytes())
  if task in _EVENTS:
    file = folder / _EVENTS[task]
    duration = len(samples) / clock.SAMPLE_RATE
    events = _events(_json(file), task=task, file=file, duration=duration)
    digest.update(file.read_bytes())
  return Clip(
    task=task,
    id=folder.name,
    folder=folder.relative_to(top),
    path=path,
    num_samples=len(samples),
    digest=digest.hexdigest()[:16],
    events=events,
    spans=tuple(audio_lib.speech_spans(samples, name=f"{task}/{folder.name}")),
  )


def read(path: pathlib.Path) -> np.ndarray:
  """[n] float32 at 16 kHz; channels are averaged.

  n is that of the file times the ratio of rates, rounded: what is written
  beside it is exactly as long.

  Raises:
    source.BadRecording: see `media.sound`.
  """
  return media.sound(path).mean(axis=0)


def _json(file: pathlib.Path) -> Any:
  try:
    return files.load_json(file)
  except FileNotFoundError as error:
    raise _broken(f"{file} is missing") from error
  except (OSError, ValueError) as error:
    raise _broken(f"{file}: {error}") from error


def _broken(detail: str) -> source.BadRecording:
  return source.BadRecording(source.Reason.BROKEN_METADATA, detail)


def _events(
  found: Any, *, task: Task, file: pathlib.Path, duration: float
) -> tuple[Span, ...]:
  """What happens, by the benchmark's file; ends are cut to the clip's."""
  try:
    if task in OVERLAP:
      times = [found["timestamps"]]
    else:
      times = [event["timestamp"] for event in found]
    result = tuple(Span(float(s), float(e)) for s, e in times)
  except (KeyError, TypeError, ValueError) as error:
    raise _broken(f"{file} has no timestamps [start, end]") from error
  if not result or (task not in PAUSES and len(result) > 1):
    raise _broken(f"{file} has {len(result)} events")
  for span in result:
    if not 0 <= span.start <= span.end < math.inf or span.start >= duration:
      raise _broken(
        f"{file}: from {span.start} to {span.end} s of {duration:.2f} s"
      )
  return tuple(Span(s.start, min(s.end, duration)) for s in result)


def _human(top: pathlib.Path) -> dict[str, np.ndarray]:
  """The file `HUMAN` in the root, if somebody put it there.

  Raises:
    errors.UserError: it is no such file, or leads out of the root.
  """
  path = top / HUMAN
  if not path.exists():
    return {}
  files.check_inside(path, root=top, what=f"--fdb_root={top}")
  try:
    found = files.load_json(path)
    shares = {name: np.array(each, float) for name, each in found.items()}
    if any(s.ndim != 1 or not s.sum() > 0 for s in shares.values()):
      raise ValueError("not lists of shares")
  except (
    *(OSError, ValueError, AttributeError),
    *(TypeError, OverflowError),
  ) as error:
    raise errors.UserError(
      f"{path}: {error}; copy the benchmark's file again or remove this one"
    ) from error
  return shares


def annotations(clip: Clip) -> list[Annotation]:
  """What our panel asks of the agent in a clip.

  The user's TURN is all speech before what happens; in clips of pauses and of
  backchannels all speech, if `ROOM_SECONDS` are left behind it.
  """
  if clip.task == Task.TURN:
    return _turn(clip, before=clip.events[0].start, ends_there=True)
  if clip.task in PAUSES or clip.task == Task.BACKCHANNEL:
    pauses = [Annotation(Kind.PAUSE, s.start, s.end) for s in clip.events]
    turn = _turn(clip, before=clip.duration)
    has_room = turn and turn[0].end + ROOM_SECONDS <= clip.duration
    return pauses + (turn if has_room else [])
  (event,) = clip.events
  result = _turn(clip, before=event.start)
  kinds = [Kind.BARGE_IN, Kind.TURN]
  if clip.task not in _INTERRUPTED:
    kinds = [_UNDIRECTED[clip.task]]
  return result + [Annotation(kind, event.start, event.end) for kind in kinds]


def _turn(
  clip: Clip, *, before: float, ends_there: bool = False
) -> list[Annotation]:
  """The user's speech before a time as one TURN, if there is any."""
  spans = [span for span in clip.spans if span.start < before]
  start = spans[0].start if spans else 0.0
  if ends_there:
    return [Annotation(Kind.TURN, start, before)]
  if not spans:
    return []
  return [Annotation(Kind.TURN, start, min(spans[-1].end, before))]


def after(words: list[Word], time: float) -> list[Word]:
  """Words as heard in a recording that is cut at `time`."""
  return [
    dataclasses.replace(word, start=max(word.start, time))
    for word in words
    if word.end > time + 1e-6
  ]


def to_json(
  words: list[Word], *, clip: Clip, provenance: dict[str, Any]
) -> str:
  """Text of an `output.json`, as the benchmark's recogniser writes it.

  Of v1.0's interruptions it holds what follows them: the recogniser gets the
  recording cut there. `provenance` is an entry more.
  """
  if clip.task == Task.INTERRUPTION:
    words = after(words, clip.events[0].end)
  chunks = [
    {"text": w.text, "timestamp": [round(w.start, 3), round(w.end, 3)]}
    for w in words
  ]
  found = {
    "text": " ".join(word.text for word in words),
    "chunks": chunks,
    "provenance": provenance,
  }
  return json.dumps(found, ensure_ascii=False, indent=1) + "\n"
