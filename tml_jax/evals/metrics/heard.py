"""What the agent said in a log, and what of it was asked for.

For: the runs of the agent's speech and their assignment to annotations, which
all metrics share. Not for: metrics (`floor`, `timed`). Start at `listen`.

A run is an unbroken row of ticks in which the agent sounds; its onset is the
time at which its first tick begins. Times are seconds. An annotation with
something due gives the run a chance, [first, last]:

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
  TOOL          from the result on

`until` ends it where it is given. Elsewhere the first onset counts. An onset
serves one annotation of a kind; it may serve one of another kind, too.
"""

import dataclasses
import re

import numpy as np

from tml_jax.logs.ticks import Log
from tml_jax.streams import clock
from tml_jax.streams.annotation import Annotation, Kind

CUE_SECONDS = 1.0  # after `due`, the widest of the tolerances of TimeSpeak
REPETITION_SECONDS = 2.0
FOLLOW_SECONDS = 2.0
EARLY_SECONDS = 1.0
# A run this close behind another goes on with it: 500 ms is what
# Full-Duplex-Bench v1.5 merges of a model's speech, two ticks here.
GOES_ON_TICKS = 2
EPSILON = 1e-6  # seconds; sums of decimal times miss each other by rounding
DIRECTED = (Kind.TURN, Kind.TIMED, Kind.BARGE_IN, Kind.FOLLOW)
UNDIRECTED = (
  Kind.BACKCHANNEL,
  Kind.VOCAL_TIC,
  Kind.SIDE_TALK,
  Kind.BACKGROUND,
)


def seconds(tick: int) -> float:
  """When a tick begins."""
  return round(tick * clock.TICKS.seconds, 6)


@dataclasses.dataclass(frozen=True)
class Run:
  """Unbroken speech of the agent, the ticks [first, stop).

  Attributes:
    first: tick.
    stop: tick.
    text: said since the run before.
  """

  first: int
  stop: int
  text: str

  @property
  def onset(self) -> float:
    return seconds(self.first)

  @property
  def end(self) -> float:
    return seconds(self.stop)


@dataclasses.dataclass(frozen=True)
class Reply:
  """Something due, and the run that came of it.

  Attributes:
    to: the annotation.
    at: when it was due; where no time is given, when its chance began.
    run: index of the run, None where none came.
  """

  to: Annotation
  at: float
  run: int | None


@dataclasses.dataclass(frozen=True)
class Heard:
  """A log with its runs.

  Attributes:
    log: as said.
    runs: of the agent, in order.
    replies: one for everything due, ACTIVITY has two.
    asked: indices of the runs that are somebody's reply.
    directed: [ticks] bool, the user speaks and means the agent.
  """

  log: Log
  runs: tuple[Run, ...]
  replies: tuple[Reply, ...]
  asked: frozenset[int]
  directed: np.ndarray

  @property
  def unasked(self) -> list[Run]:
    """Runs that nobody asked for and that go on with none that was."""
    return [
      run
      for i, run in enumerate(self.runs)
      if i not in self.asked and not self._goes_on(i)
    ]

  def of(self, kind: Kind) -> list[Reply]:
    return [reply for reply in self.replies if reply.to.kind == kind]

  def onset(self, reply: Reply) -> float | None:
    return None if reply.run is None else self.runs[reply.run].onset

  def text(self, index: int) -> str:
    """What was said from run `index` on until another begins."""
    parts = [self.runs[index].text]
    for i in range(index + 1, len(self.runs)):
      if i in self.asked or not self._goes_on(i):
        break
      parts.append(self.runs[i].text)
    return " ".join(parts)

  def at(self, tick: int) -> int | None:
    """Index of the run that sounds in a tick."""
    for i, run in enumerate(self.runs):
      if run.first <= tick < run.stop:
        return i
    return None

  def onsets(self, first: float, last: float) -> list[int]:
    """Indices of runs that begin in [first, last]."""
    return [
      i
      for i, run in enumerate(self.runs)
      if first - EPSILON <= run.onset <= last + EPSILON
    ]

  def _goes_on(self, index: int) -> bool:
    if index == 0:
      return False
    gap = self.runs[index].first - self.runs[index - 1].stop
    return gap <= GOES_ON_TICKS


def runs_of(active: np.ndarray) -> list[tuple[int, int]]:
  """[first, stop) of every run of true values. `active` is [ticks] bool."""
  edges = np.diff(np.concatenate([[0], active.astype(int), [0]]))
  starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
  return list(zip(starts.tolist(), stops.tolist(), strict=True))


def plain(text: str) -> str:
  """Words alone, for comparison: no case, no punctuation."""
  return " ".join(re.findall(r"\w+", text.casefold()))


def listen(log: Log) -> Heard:
  """Finds runs and assigns them."""
  runs, before = [], 0
  for first, stop in runs_of(log.agent):
    text = "".join(tick.agent_text for tick in log.ticks[before:stop])
    runs.append(Run(first, stop, text.strip()))
    before = stop
  meant, not_meant = log.covered(*DIRECTED), log.covered(*UNDIRECTED)
  directed = log.user & (meant | ~not_meant)
  heard = Heard(log, tuple(runs), (), frozenset(), directed)
  replies, asked = [], set()
  for kind in Kind:
    used: set[int] = set()
    for chance in _chances(heard, kind):
      found = heard.onsets(chance.first, chance.last)
      free = [i for i in found if i not in used]
      reply = free[0] if free else None
      if free and chance.nearest:
        reply = min(
          free, key=lambda i: round(abs(runs[i].onset - chance.at), 6)
        )
      replies.append(Reply(chance.to, chance.at, reply))
      used |= {reply} - {None}
      asked |= set(found if kind == Kind.FOLLOW else ())
    asked |= used
  return dataclasses.replace(
    heard, replies=tuple(replies), asked=frozenset(asked)
  )


@dataclasses.dataclass(frozen=True)
class _Chance:
  to: Annotation
  at: float
  first: float
  last: float
  nearest: bool = False


def _chances(heard: Heard, kind: Kind) -> list[_Chance]:
  """The chances of all annotations of a kind, in order of their time."""
  items = heard.log.of_kind(kind)
  end = seconds(len(heard.log.ticks))
  if kind == Kind.TIMED:
    groups: dict[str, list[Annotation]] = {}
    for i, a in enumerate(items):
      if a.due is None:
        raise ValueError(f"{heard.log.id}: {a} has no time at which it is due")
      groups.setdefault(a.group or f"alone {i}", []).append(a)
    return [
      chance
      for group in groups.values()
      for chance in _nearest(
        [(a, a.due) for a in sorted(group, key=lambda a: a.due)], end=end
      )
    ]
  if kind == Kind.ACTIVITY:
    borders = [(a, at) for a in items for at in (a.start, a.end)]
    return _nearest(sorted(borders, key=lambda b: b[1]), end=end)
  result = []
  items.sort(key=lambda a: a.end if a.due is None else a.due)
  for i, a in enumerate(items):
    first = a.start if kind == Kind.FOLLOW else a.end
    if kind == Kind.TURN:
      last = _next_speech(heard, a.end)
    elif kind == Kind.CUE:
      last = (a.end if a.due is None else a.due) + CUE_SECONDS
    elif kind == Kind.FOLLOW:
      last = a.end + FOLLOW_SECONDS
    elif kind == Kind.REPETITION:
      last = a.end + REPETITION_SECONDS
      if i + 1 < len(items) and items[i + 1].group == a.group:
        last = min(last, items[i + 1].end - 2 * EPSILON)
    elif kind in (Kind.SILENT_UNTIL, Kind.TOOL):
      last = end
    else:
      return []  # nothing is due
    last = last if a.until is None else a.until
    result.append(_Chance(a, first if a.due is None else a.due, first, last))
  return result


def _nearest(
  borders: list[tuple[Annotation, float]], *, end: float
) -> list[_Chance]:
  """Times cut half-way between neighbours."""
  result = []
  for i, (a, at) in enumerate(borders):
    first, last = 0.0, end
    if i > 0:
      first = (borders[i - 1][1] + at) / 2
    if i + 1 < len(borders):
      last = (at + borders[i + 1][1]) / 2 - 2 * EPSILON
    if a.kind == Kind.TIMED:
      first = max(first, a.end)
    elif at == a.start:
      first = max(first, at - EARLY_SECONDS)
    last = last if a.until is None else min(last, a.until)
    result.append(_Chance(a, at, first, last, nearest=True))
  return result


def _next_speech(heard: Heard, time: float) -> float:
  """Just before the user speaks again after `time`, or the log's end."""
  for first, _ in runs_of(heard.directed):
    if seconds(first) >= time - EPSILON:
      return seconds(first) - 2 * EPSILON
  return seconds(len(heard.directed))
