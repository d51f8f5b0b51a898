"""When the agent may do what is asked of it, and what would come too early.

For: the annotations of a log as chances. Not for: what the agent made of them
(`heard`). Start at `of`. Times are seconds. An annotation with something due
gives a run the chance to begin in [first, last]:

  TURN          from the user's end until the user speaks again
  TIMED         half-way to the neighbours of its group, not before the user
                has asked; the onset nearest to `due` counts
  CUE           from the cue's end until `CUE_SECONDS` after it was due
  FOLLOW        as long as the user speaks and `FOLLOW_SECONDS` after it; every
                run in it is asked for
  REPETITION    until the next one ends, or `REPETITION_SECONDS`
  ACTIVITY      half-way to the neighbours, for its start and for its end; the
                nearest onset counts; a start no earlier than `EARLY_SECONDS`
  SILENT_UNTIL  from the event on
  TOOL          from the result of the right call on; none without that call.
                An item that names no call: from its end on

`until` ends it where it is given. Elsewhere the first onset counts.

In time is, in that chance:

  TIMED       `TIMED_SECONDS` about `due`
  ACTIVITY    at most `PROMPT_SECONDS` after what is seen
  TOOL        at most `PROMPT_SECONDS` after the result is there, nobody speaks
              and the result before it has been said; and the call at most
              `PROMPT_SECONDS` after the question
  all others  at most `LATE_SECONDS` after `due`; without it, at most
              `PROMPT_SECONDS` after the chance began

In conversation a silence of about a second is the longest that is borne
(Jefferson 1989, "a standard maximum silence"): `PROMPT_SECONDS`. `due` is 0.4 s
after what it answers at most, so `LATE_SECONDS` after it are the same.
"""

import dataclasses

import numpy as np

from tml_jax import errors
from tml_jax.evals.metrics import speech
from tml_jax.logs.ticks import Log
from tml_jax.streams import calls, clock
from tml_jax.streams.annotation import Annotation, Kind

CUE_SECONDS = 1.0  # after `due`, the widest of the tolerances of TimeSpeak
REPETITION_SECONDS = 2.0
FOLLOW_SECONDS = 2.0
EARLY_SECONDS = 1.0
TIMED_SECONDS = 0.4  # the middle one of the tolerances of TimeSpeak
PROMPT_SECONDS = 1.0
LATE_SECONDS = 0.6
EPSILON = 1e-6  # seconds; sums of decimal times miss each other by rounding
DIRECTED = (Kind.TURN, Kind.TIMED, Kind.BARGE_IN, Kind.FOLLOW)
UNDIRECTED = (
  Kind.BACKCHANNEL,
  Kind.VOCAL_TIC,
  Kind.SIDE_TALK,
  Kind.BACKGROUND,
)
# Of these something is due.
DUE = (
  Kind.TURN,
  Kind.TIMED,
  Kind.CUE,
  Kind.FOLLOW,
  Kind.REPETITION,
  Kind.ACTIVITY,
  Kind.SILENT_UNTIL,
  Kind.TOOL,
)
# Due while the user speaks, or at what no turn of the user tells: whoever
# speaks when a turn is over, and then alone, cannot have it. An asked time is
# not among these: as long as a harness asks its model, it can have that.
NEEDS_DUPLEX = (
  Kind.CUE,
  Kind.FOLLOW,
  Kind.REPETITION,
  Kind.ACTIVITY,
  Kind.SILENT_UNTIL,
)
EITHER = tuple(kind for kind in DUE if kind not in NEEDS_DUPLEX)


def seconds(tick: int) -> float:
  """When a tick begins."""
  return round(tick * clock.TICKS.seconds, 6)


@dataclasses.dataclass(frozen=True)
class Chance:
  """When something may be said.

  Attributes:
    to: the annotation.
    at: when it is due; where no time is given, where the chance begins.
    first: of the onsets that count.
    last: of them; before `first` where there is no chance.
    nearest: whether the nearest onset counts, and not the first.
    earliest: of the onsets in time.
    latest: of them.
    quiet_from: where unasked speech begins to spoil it; None where none does.
    quiet_until: where it ends to; None for its own onset, or `at`.
  """

  to: Annotation
  at: float
  first: float
  last: float
  nearest: bool = False
  earliest: float = 0.0
  latest: float = float("inf")
  quiet_from: float | None = None
  quiet_until: float | None = None


@dataclasses.dataclass(frozen=True)
class Called:
  """The right call to a question.

  Attributes:
    made: when; None where it was not.
    arrived: when its result began to arrive; None where it did not.
  """

  made: float | None
  arrived: float | None


def directed(log: Log) -> np.ndarray:
  """[ticks] bool, the user speaks and means the agent."""
  meant, not_meant = log.covered(*DIRECTED), log.covered(*UNDIRECTED)
  return log.user & (meant | ~not_meant)


def of(log: Log, *, directed: np.ndarray) -> list[Chance]:
  """All chances of a log, kind by kind, in order of their time.

  Raises:
    errors.UserError: an annotation lacks what its kind asks for.
  """
  result = _timed(log) + _activities(log) + _tools(log, directed=directed)
  for kind in DUE:
    if kind not in (Kind.TIMED, Kind.ACTIVITY, Kind.TOOL):
      result += _others(log, kind, directed=directed)
  return result


def follow_until(a: Annotation) -> float:
  """The end of a FOLLOW's chance."""
  return a.end + FOLLOW_SECONDS if a.until is None else a.until


def _others(log: Log, kind: Kind, *, directed: np.ndarray) -> list[Chance]:
  """Of kinds whose first onset counts."""
  end, result = seconds(len(log.ticks)), []
  items = log.of_kind(kind)
  items.sort(key=lambda a: a.end if a.due is None else a.due)
  quiet: float | None = 0.0
  for i, a in enumerate(items):
    first, last, until = a.end, end, None
    if kind == Kind.TURN:
      last = _next_speech(directed, a.end)
      quiet, until = a.start, a.end
    elif kind == Kind.CUE:
      last = (a.end if a.due is None else a.due) + CUE_SECONDS
    elif kind == Kind.FOLLOW:
      first, last = a.start, follow_until(a)
    elif kind == Kind.REPETITION:
      last = a.end + REPETITION_SECONDS
      if i + 1 < len(items) and items[i + 1].group == a.group:
        last = min(last, items[i + 1].end - 2 * EPSILON)
      quiet = a.start
    elif kind == Kind.SILENT_UNTIL:
      begin = clock.TICKS.window_of(a.start)
      quiet, until = seconds(begin), a.end
    last = last if a.until is None else a.until
    at = first if a.due is None else a.due
    latest = first + PROMPT_SECONDS if a.due is None else at + LATE_SECONDS
    result.append(
      Chance(
        *(a, at, first, last),
        latest=latest,
        quiet_from=quiet,
        quiet_until=until,
      )
    )
    quiet = last  # of the next cue
  return result


def _timed(log: Log) -> list[Chance]:
  groups: dict[str, list[Annotation]] = {}
  for i, a in enumerate(log.of_kind(Kind.TIMED)):
    if a.due is None:
      raise errors.UserError(
        f"{log.id}: the annotation timed at {a.start:g} s has no time at which"
        " it is due: write `due`, or leave it out"
      )
    groups.setdefault(a.group or f"alone {i}", []).append(a)
  end, result = seconds(len(log.ticks)), []
  for group in groups.values():
    group.sort(key=lambda a: a.due)
    borders = _nearest([(a, a.due) for a in group], end=end)
    for i, chance in enumerate(borders):
      result.append(
        dataclasses.replace(
          chance,
          first=max(chance.first, chance.to.end),
          earliest=chance.at - TIMED_SECONDS,
          latest=chance.at + TIMED_SECONDS,
          quiet_from=borders[i - 1].at if i else chance.to.start,
        )
      )
  return result


def _activities(log: Log) -> list[Chance]:
  items = log.of_kind(Kind.ACTIVITY)
  borders = sorted(
    [(a, at) for a in items for at in (a.start, a.end)], key=lambda b: b[1]
  )
  result = _nearest(borders, end=seconds(len(log.ticks)))
  for i, chance in enumerate(result):
    first = chance.first
    if chance.at == chance.to.start:
      first = max(first, chance.at - EARLY_SECONDS)
    result[i] = dataclasses.replace(
      chance,
      first=first,
      earliest=chance.at,
      latest=chance.at + PROMPT_SECONDS,
      quiet_from=result[i - 1].at if i else 0.0,
    )
  return result


def _nearest(
  borders: list[tuple[Annotation, float]], *, end: float
) -> list[Chance]:
  """Times cut half-way between neighbours."""
  result = []
  for i, (a, at) in enumerate(borders):
    first, last = 0.0, end
    if i > 0:
      first = (borders[i - 1][1] + at) / 2
    if i + 1 < len(borders):
      last = (at + borders[i + 1][1]) / 2 - 2 * EPSILON
    last = last if a.until is None else min(last, a.until)
    result.append(Chance(a, at, first, last, nearest=True))
  return result


def called(log: Log) -> list[tuple[Annotation, Called]]:
  """The right call to every TOOL whose call is known, in order of questions.

  A call serves one question, and is made after it.
  """
  calls_made = [
    (k, call) for k, tick in enumerate(log.ticks) for call in tick.calls
  ]
  arrivals = {
    result.number: k
    for k, tick in reversed(list(enumerate(log.ticks)))
    for result in tick.results
  }
  used: set[int] = set()
  result = []
  for a in sorted(log.of_kind(Kind.TOOL), key=lambda a: a.start):
    if not a.call:
      continue
    wanted = calls.parse_call(a.call)
    asked = clock.TICKS.num_windows(a.start)  # heard a tick after decided
    right = [
      (k, call.number)
      for k, call in calls_made
      if k >= asked
      and calls.parse_call(call.text) == wanted
      and call.number not in used
    ]
    if not right:
      result.append((a, Called(None, None)))
      continue
    made, number = right[0]
    used.add(number)
    arrived = arrivals.get(number)
    at = None if arrived is None else seconds(arrived)
    if arrived == clock.TICKS.window_of(a.end):
      at = a.end  # to the sample
    result.append((a, Called(seconds(made), at)))
  return result


def _tools(log: Log, *, directed: np.ndarray) -> list[Chance]:
  end, result = seconds(len(log.ticks)), []
  said = 0.0  # where the result before has its latest beginning
  found = sorted(
    called(log),
    key=lambda c: c[0].end if c[1].arrived is None else c[1].arrived,
  )
  agent = speech.runs_of(log.agent)
  for a in log.of_kind(Kind.TOOL):
    if not a.call:  # nobody knows what should have been called
      at, last = a.end if a.due is None else a.due, a.until
      last = end if last is None else last
      latest = at + PROMPT_SECONDS
      result.append(
        Chance(a, at, a.end, last, latest=latest, quiet_from=a.start)
      )
  for a, call in found:
    if call.arrived is None:
      # Nothing has come that could be said.
      result.append(Chance(a, a.end, end, -1.0))
      continue
    last = end if a.until is None else a.until
    ready = _quiet(directed, max(call.arrived, said))
    # The agent says one result after the other.
    said = next(
      (seconds(stop) for first, stop in agent if seconds(first) >= ready), ready
    )
    is_recorded = call.arrived == a.end and a.due is not None
    at = a.due if is_recorded else call.arrived
    is_late = call.made - a.start > PROMPT_SECONDS + EPSILON
    latest = -1.0 if is_late else ready + PROMPT_SECONDS
    result.append(Chance(a, at, call.arrived, last, latest=latest))
  return result


def _quiet(user: np.ndarray, time: float) -> float:
  """When the first tick after `time` begins in which the user is silent."""
  first = clock.TICKS.num_windows(time)
  for k in range(first, len(user)):
    if not user[k]:
      return seconds(k)
  return seconds(len(user))


def _next_speech(directed: np.ndarray, time: float) -> float:
  """Just before the user speaks again after `time`, or the log's end."""
  for first, _ in speech.runs_of(directed):
    if seconds(first) >= time - EPSILON:
      return seconds(first) - 2 * EPSILON
  return seconds(len(directed))
