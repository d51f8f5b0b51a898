"""What the agent said in a log, and what of it was asked for.

For: the runs of the agent's speech and their assignment to annotations, which
all metrics share. Not for: metrics (`floor`, `timed`), or when something is
due (`chances`). Start at `listen`.

A run is a row of ticks in which the agent sounds, with gaps of at most
`speech.GAP_SECONDS` closed before anything is counted: what starts so soon
after speech goes on with it, and is neither an onset nor a run of its own. A
gap stays open in two cases, which no agent reaches without hearing:

  the agent gave way: the run before it was due when it began, the user
    interrupted its last unbroken sound (BARGE_IN), and ended in the gap or at
    most `GAVE_WAY_SECONDS` before it;
  the agent says behind it, word for word, what is due then.

The onset of a run is the time at which its first tick begins. Times are
seconds. A run is asked for where it begins in the chance of something due and
is the first that does, for TIMED and ACTIVITY the nearest. It serves one
annotation of a kind; it may serve one of another kind, too.

A reply is spoiled by speech that nobody asked for and that came first: in the
turn of the user (TURN), since the time was asked for (TIMED), since what was
due before, or the beginning (CUE, ACTIVITY, FOLLOW), since the movement began
that is counted (REPETITION), in the silence that was
asked for (SILENT_UNTIL). It is `done` where it came in time, and nothing
has spoiled it. An agent that speaks all the time, at random or on a clock of
its own does nothing by that.
"""

import dataclasses
import re

import numpy as np

from tml_jax.evals.metrics import chances, speech
from tml_jax.evals.metrics.chances import EPSILON, Chance, seconds
from tml_jax.logs.ticks import Log
from tml_jax.streams import clock
from tml_jax.streams.annotation import Annotation, Kind

GAVE_WAY_SECONDS = 0.6  # three windows: what the families leave an agent
# Words that a reply which was cut short may have more or fewer than the
# recorded one, whose own end is drawn from two windows.
CUT_WORDS = 2
OVERRUN_SECONDS = 2.0  # of speech after the user took the floor
ASKS = (Kind.TURN, Kind.TIMED, Kind.BARGE_IN)


@dataclasses.dataclass(frozen=True)
class Run:
  """Speech of the agent, the ticks [first, stop).

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
    spoiled: by speech before it.
    in_time: `Chance.earliest` to `Chance.latest`; false where none came.
  """

  to: Annotation
  at: float
  run: int | None
  spoiled: bool = False
  in_time: bool = False

  @property
  def came(self) -> bool:
    """A run that nothing has spoiled, in time or not."""
    return self.run is not None and not self.spoiled

  @property
  def done(self) -> bool:
    return self.came and self.in_time


@dataclasses.dataclass(frozen=True)
class Heard:
  """A log with its runs.

  Attributes:
    log: as said.
    runs: of the agent, in order.
    replies: one for everything due, ACTIVITY has two.
    asked: indices of the runs that are somebody's reply.
    directed: [ticks] bool, the user speaks and means the agent.
    agent: [ticks] bool, the agent speaks: the runs.
    recorded: [ticks] bool, the same of the recorded agent.
  """

  log: Log
  runs: tuple[Run, ...]
  replies: tuple[Reply, ...]
  asked: frozenset[int]
  directed: np.ndarray
  agent: np.ndarray
  recorded: np.ndarray

  @property
  def minutes(self) -> float:
    return seconds(len(self.log.ticks)) / 60

  @property
  def unasked(self) -> list[Run]:
    """Runs that nobody asked for."""
    return [run for i, run in enumerate(self.runs) if i not in self.asked]

  @property
  def unasked_seconds(self) -> float:
    """Of these runs, and of asked ones that do not end when they must.

    That is what goes on for longer than `OVERRUN_SECONDS` after the user has
    begun to ask for something else.
    """
    starts = [a.start for a in self.log.of_kind(*ASKS)]
    total = 0.0
    for i, run in enumerate(self.runs):
      allowed = run.onset
      if i in self.asked:
        taken = [s for s in starts if run.onset < s - EPSILON]
        allowed = min(taken, default=run.end) + OVERRUN_SECONDS
      total += max(0.0, run.end - allowed)
    return total

  def of(self, kind: Kind) -> list[Reply]:
    return [reply for reply in self.replies if reply.to.kind == kind]

  def onset(self, reply: Reply) -> float | None:
    return None if reply.run is None else self.runs[reply.run].onset

  def at(self, tick: int) -> int | None:
    """Index of the run that a tick is in."""
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

  def says_right(self, reply: Reply) -> bool | None:
    """Whether a reply has its words; None where none came or none are known.

    Case and punctuation do not count. Of FOLLOW, what was said in all its
    chance. Where a BARGE_IN cuts a reply short, the shorter of the two texts
    must begin the other and may be `CUT_WORDS` words shorter.
    """
    wanted = plain(reply.to.text)
    if reply.run is None or not wanted:
      return None
    said = plain(self.runs[reply.run].text)
    if reply.to.kind == Kind.FOLLOW:
      found = self.onsets(reply.to.start, chances.follow_until(reply.to))
      said = plain(" ".join(self.runs[i].text for i in found))
    run = self.runs[reply.run]
    is_cut = reply.to.kind == Kind.TURN and any(
      run.onset < b.start < run.end + chances.LATE_SECONDS
      for b in self.log.of_kind(Kind.BARGE_IN)
    )
    if is_cut and said:
      short, long = sorted((said.split(), wanted.split()), key=len)
      begins = long[: len(short)] == short
      return begins and len(long) - len(short) <= CUT_WORDS
    return said == wanted


def plain(text: str) -> str:
  """Words alone, for comparison: no case, no punctuation."""
  return " ".join(re.findall(r"\w+", text.casefold()))


def listen(log: Log) -> Heard:
  """Finds runs and assigns them.

  Raises:
    errors.UserError: an annotation lacks what its kind asks for.
  """
  directed = chances.directed(log)
  due = chances.of(log, directed=directed)
  said = [tick.agent_text for tick in log.ticks]
  runs = _runs(log.agent, said=said, log=log, due=due)
  nothing = [""] * len(said)  # what they said, no log has
  theirs = _runs(log.recorded_agent, said=nothing, log=log, due=due)
  heard = Heard(
    log,
    runs=tuple(runs),
    replies=(),
    asked=frozenset(),
    directed=directed,
    agent=_sounding(runs, len(log.ticks)),
    recorded=_sounding(theirs, len(log.ticks)),
  )
  replies: list[tuple[Chance, int | None]] = []
  asked: set[int] = set()
  used: dict[Kind, set[int]] = {kind: set() for kind in Kind}
  for chance in due:
    kind = chance.to.kind
    found = heard.onsets(chance.first, chance.last)
    free = [i for i in found if i not in used[kind]]
    run = free[0] if free else None
    if free and chance.nearest:
      run = min(free, key=lambda i: round(abs(runs[i].onset - chance.at), 6))
    replies.append((chance, run))
    used[kind] |= {run} - {None}
    asked |= set(found if kind == Kind.FOLLOW else ())
  asked |= set().union(*used.values())
  heard = dataclasses.replace(heard, asked=frozenset(asked))
  made = [_reply(heard, chance, run=run) for chance, run in replies]
  return dataclasses.replace(heard, replies=tuple(made))


def _reply(heard: Heard, chance: Chance, *, run: int | None) -> Reply:
  """What came of a chance."""
  onset = None if run is None else heard.runs[run].onset
  in_time = onset is not None and (
    chance.earliest - EPSILON <= onset <= chance.latest + EPSILON
  )
  spoiled = False
  if chance.quiet_from is not None:
    until = chance.quiet_until
    if until is None:
      until = chance.at if onset is None else onset
    for other in heard.unasked:
      begun = chance.quiet_from if chance.to.kind == Kind.TURN else 0.0
      spoiled |= (
        other.end > chance.quiet_from + EPSILON
        and begun - EPSILON < other.onset < until - EPSILON
      )
  return Reply(chance.to, chance.at, run, spoiled=spoiled, in_time=in_time)


def _sounding(runs: list[Run], count: int) -> np.ndarray:
  result = np.zeros(count, bool)
  for run in runs:
    result[run.first : run.stop] = True
  return result


def sounds(log: Log) -> list[Run]:
  """Unbroken sound of the agent, no gap closed: for benchmarks of others."""
  found = _parts(log.agent, said=[tick.agent_text for tick in log.ticks])
  return [Run(part.first, part.stop, part.text.strip()) for part in found]


def _parts(active: np.ndarray, *, said: list[str]) -> list[Run]:
  """Rows of true values in [ticks] bool, with what was said since the last."""
  parts, before = [], 0
  for first, stop in speech.runs_of(active):
    parts.append(Run(first, stop, "".join(said[before:stop])))
    before = stop
  return parts


def _runs(
  active: np.ndarray, *, said: list[str], log: Log, due: list[Chance]
) -> list[Run]:
  """Runs of [ticks] bool, gaps closed but where the module says."""
  parts = _parts(active, said=said)
  runs: list[Run] = []
  for i, part in enumerate(parts):
    if runs:
      last = runs[-1]
      if part.first - last.stop <= speech.GAP_TICKS and not (
        _gave_way(last, parts[i - 1 : i + 1], log=log, due=due)
        or _says_what_is_due(parts[i:], due=due)
      ):
        runs[-1] = Run(last.first, part.stop, last.text + part.text)
        continue
    runs.append(part)
  return [Run(run.first, run.stop, run.text.strip()) for run in runs]


def _gave_way(
  run: Run, parts: list[Run], *, log: Log, due: list[Chance]
) -> bool:
  """Whether the user took the floor from a reply, and gave it back.

  `parts` are the last of `run`, and what may go on with it.
  """
  last, following = parts
  was_due = any(c.first - EPSILON <= run.onset <= c.last + EPSILON for c in due)
  return was_due and any(
    last.onset < b.start - EPSILON
    and last.end - GAVE_WAY_SECONDS - EPSILON < b.end
    and b.end < following.onset + EPSILON
    for b in log.of_kind(Kind.BARGE_IN)
  )


def _says_what_is_due(parts: list[Run], *, due: list[Chance]) -> bool:
  """Whether the first of `parts`, with what goes on with it, has its words."""
  wanted = {
    plain(c.to.text)
    for c in due
    if c.first - EPSILON <= parts[0].onset <= c.last + EPSILON
  } - {""}
  said = ""
  for i, part in enumerate(parts if wanted else ()):
    if i and part.first - parts[i - 1].stop > speech.GAP_TICKS:
      break
    said += part.text
    if plain(said) in wanted:
      return True
  return False


def ticks_of(first: float, last: float) -> slice:
  """Of the ticks that touch [first, last)."""
  return slice(clock.TICKS.window_of(first), clock.TICKS.num_windows(last))
