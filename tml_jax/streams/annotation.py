"""What a conversation asks of the agent, and when: the truth of a scenario.

For: families that write it (`data/scenarios`) and metrics that compare with
it (`evals`). Not for: the model, which never sees it. Start at `Annotation`.
It travels as JSON in `Timeline.metadata["annotations"]`.
"""

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any

from tml_jax.streams.timeline import Timeline

KEY = "annotations"  # of Timeline.metadata


class Kind(enum.StrEnum):
  """What happens in [start, end) and what is due.

  TURN: the user speaks and expects a reply; `due` is where the recorded agent
    begins it, `until` where the chance is over.
  TIMED: in [start, end) the user asks for speech at the time `due`; those of
    one periodic reminder share a `group`.
  BARGE_IN: the user interrupts a speaking agent, who stops.
  BACKCHANNEL, VOCAL_TIC, SIDE_TALK, BACKGROUND: speech or noise that is no
    turn: the agent neither stops nor answers.
  PAUSE: the user thinks, in the middle of a turn: the agent waits.
  CUE: a word ends at `end`, on which the agent speaks at once, `due` to
    `until`, whoever else is speaking.
  FOLLOW: the user speaks and the agent repeats or translates it meanwhile,
    from `due` on.
  REPETITION: one of a video's repetitions ends at `end`, and the agent says
    its number, `text`.
  ACTIVITY: something goes on in the video from `start` to `end`; the agent
    says so at its start and at its stop.
  SILENT_UNTIL: nothing is to be said from `start` until the event at `end`,
    and then something by `until`.
  TOOL: a question ends at `start`; the result of `call` arrives at `end`; the
    agent says it from `due` on.
  """

  TURN = "turn"
  TIMED = "timed"
  BARGE_IN = "barge_in"
  BACKCHANNEL = "backchannel"
  VOCAL_TIC = "vocal_tic"
  SIDE_TALK = "side_talk"
  BACKGROUND = "background"
  PAUSE = "pause"
  CUE = "cue"
  FOLLOW = "follow"
  REPETITION = "repetition"
  ACTIVITY = "activity"
  SILENT_UNTIL = "silent_until"
  TOOL = "tool"


@dataclasses.dataclass(frozen=True)
class Annotation:
  """One of them; times in seconds, `Kind` says what they mean.

  Attributes:
    kind: as said.
    start: where it begins.
    end: where it is over.
    due: where the agent's speech begins in the recording, if its windows are no
      longer than ticks; None where none is.
    until: the last moment at which it may begin; None for no limit.
    text: what the agent says, if that is known.
    group: joins those of one instruction.
    call: NAME ARGUMENTS that a question asks for; "" where that is not known.
    since: where the user begins who asks once more, if that is not `start`.
  """

  kind: Kind
  start: float
  end: float
  due: float | None = None
  until: float | None = None
  text: str = ""
  group: str = ""
  call: str = ""
  since: float | None = None


def names(annotations: tuple[Annotation, ...]) -> dict[float, str]:
  """The kinds that begin at a time, "turn, barge_in", by that time."""
  result: dict[float, list[str]] = {}
  for annotation in annotations:
    kinds = result.setdefault(annotation.start, [])
    if annotation.kind not in kinds:
      kinds.append(str(annotation.kind))
  return {start: ", ".join(kinds) for start, kinds in result.items()}


def to_json(annotation: Annotation) -> dict[str, Any]:
  """JSON values; without `call` and `since` where there are none."""
  values = dataclasses.asdict(annotation) | {"kind": str(annotation.kind)}
  if not annotation.call:
    del values["call"]
  if annotation.since is None:
    del values["since"]
  return values


def of(timeline: Timeline) -> tuple[Annotation, ...]:
  """All of a timeline, in order of their start; none for plain recordings.

  Raises:
    ValueError: metadata that are not annotations.
  """
  return parse(timeline.metadata.get(KEY, ()), where=timeline.id)


def parse(
  items: Iterable[dict[str, Any]], *, where: str
) -> tuple[Annotation, ...]:
  """The inverse of `to_json`, for a list.

  Raises:
    ValueError: naming `where` and what is no annotation.
  """
  try:
    found = [
      Annotation(**item | {"kind": Kind(item["kind"])}) for item in items
    ]
  except (TypeError, KeyError, ValueError) as error:
    raise ValueError(f"{where}: not annotations: {error}") from error
  for annotation in found:
    if not 0 <= annotation.start <= annotation.end:
      raise ValueError(
        f"{where}: {annotation.kind} from {annotation.start} to"
        f" {annotation.end} s"
      )
  return tuple(sorted(found, key=lambda a: (a.start, a.end)))
