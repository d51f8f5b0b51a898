"""A scripted conversation cut into what its user does, and what for.

For: `reacting`, which plays it to an agent that does as it likes. Not for:
composing scripts (`data.scenarios`). Start at `plan_of`. Windows are of
`clock.TICKS`, on the clock of the script.

A move is speech, or typed text, around which the user is silent for a window;
what one annotation covers is one move. All is read off the annotations and the
recorded agent, by four rules:

  REPLY_END       what was due last is a reply, and the recorded agent has said
                  it: the user speaks when the agent has been silent as long as
                  there. So does the end of the conversation.
  WHILE_SPEAKING  a backchannel into the recorded agent's speech: dropped where
                  the agent is silent.
  REPLY_ONSET     anything else into that speech, as a barge-in: so long after
                  the reply began, as `Ask` holds all that comes after it.
  PLANNED         everything else: the user goes on talking, whatever is said.

Where a reply is due the user has an `Ask`: the script waits until it begins.
"""

import dataclasses
import enum

import numpy as np

from tml_jax.streams import annotation, clock, framing
from tml_jax.streams.annotation import Annotation, Kind
from tml_jax.streams.timeline import Role, Timeline

ASK_AGAIN = 1  # times, when no reply comes
INTERRUPT_AGAIN = 2  # times, while the agent talks on
# Annotations of speech by the user.
SPOKEN = (
  Kind.TURN,
  Kind.TIMED,
  Kind.BARGE_IN,
  Kind.CUE,
  Kind.FOLLOW,
  Kind.PAUSE,
  Kind.BACKCHANNEL,
  Kind.VOCAL_TIC,
)
REPLIES = (Kind.TURN, Kind.TIMED, Kind.TOOL)  # what the user waits for


class Trigger(enum.StrEnum):
  """What a move waits for; the module says when each is meant."""

  PLANNED = "planned"
  REPLY_ONSET = "reply onset"
  REPLY_END = "reply end"
  WHILE_SPEAKING = "while speaking"


@dataclasses.dataclass(frozen=True)
class Move:
  """Something that the user does in the windows [first, stop).

  Attributes:
    first: window; that of the end, after the last move, where it is empty.
    stop: window.
    trigger: what it waits for.
    gap: of REPLY_END, windows of silence of the agent before it.
  """

  first: int
  stop: int
  trigger: Trigger
  gap: int = 0


@dataclasses.dataclass(frozen=True)
class Ask:
  """A reply that the user waits for.

  Attributes:
    at: the window in which the recorded agent begins it.
    asked: the first window after the user's words.
    since: the window from which the user says them again.
    again: how often, at most.
    interrupts: the window in which these words interrupt the agent, else None.
  """

  at: int
  asked: int
  since: int
  again: int
  interrupts: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
  """Of one script; all in order of time.

  Attributes:
    windows: of it.
    moves: of the user, the end of the conversation being the last.
    asks: what the user waits for.
    quiet: [windows] bool, the user is silent.
  """

  windows: int
  moves: tuple[Move, ...]
  asks: tuple[Ask, ...]
  quiet: np.ndarray


def plan_of(script: Timeline) -> Plan:
  """The moves of a script's user.

  Raises:
    ValueError: its annotations cannot be read.
  """
  found = annotation.of(script)
  windows = clock.TICKS.num_windows(script.duration)
  user = _active(script, Role.USER, windows=windows)
  for a in found:
    if a.kind in SPOKEN:
      user[clock.TICKS.window_of(a.start) : _stop(a.start, a.end)] = True
  agent = _active(script, Role.AGENT, windows=windows)
  rows = [*_rows(user), (windows, windows)]
  moves = [
    _move(row, before=before, script=script, found=found, agent=agent)
    for before, row in zip([(0, 0), *rows], rows, strict=False)
  ]
  asks = [_ask(a, found=found, user=user, agent=agent) for a in _awaited(found)]
  return Plan(
    windows,
    moves=tuple(moves),
    asks=tuple(
      sorted(
        (ask for ask in asks if ask and not _splits_a_sound(script, ask.at)),
        key=lambda ask: (ask.at, ask.asked),
      )
    ),
    quiet=~user,
  )


def as_planned(script: Timeline) -> Plan:
  """The plan of a user who waits for nothing."""
  windows = clock.TICKS.num_windows(script.duration)
  end = Move(windows, windows, Trigger.PLANNED)
  return Plan(windows, (end,), (), np.zeros(windows, bool))


def _move(
  row: tuple[int, int],
  *,
  before: tuple[int, int],
  script: Timeline,
  found: tuple[Annotation, ...],
  agent: np.ndarray,
) -> Move:
  """What the user does in the windows of `row`, after those of `before`."""
  first, stop = row
  into_speech = first < stop and agent[first] and agent[: first + 1][-2:].all()
  if into_speech:
    if _is_backchannel(row, script=script, found=found):
      return Move(first, stop, Trigger.WHILE_SPEAKING)
    return Move(first, stop, Trigger.REPLY_ONSET)
  spoken = np.flatnonzero(agent[before[1] : first]) + before[1]
  due = [
    a
    for a in found
    if a.due is not None and clock.TICKS.window_of(a.due) < first
  ]
  last = max(due, key=lambda a: a.due or 0.0, default=None)
  if (
    not len(spoken)
    or last is None
    or last.kind not in REPLIES
    or _splits_a_sound(script, first)
  ):
    return Move(first, stop, Trigger.PLANNED)
  return Move(first, stop, Trigger.REPLY_END, gap=first - 1 - int(spoken[-1]))


def _is_backchannel(
  row: tuple[int, int], *, script: Timeline, found: tuple[Annotation, ...]
) -> bool:
  """Whether a move is nothing but backchannels."""
  own = [a for a in found if a.kind == Kind.BACKCHANNEL]
  track = script.track(Role.USER)
  spans = [
    s
    for s in (track.spans if track else ())
    if row[0] <= clock.TICKS.window_of(s.start) < row[1]
  ]
  return bool(spans) and all(
    any(a.start - 1e-3 <= s.start and s.end <= a.end + 1e-3 for a in own)
    for s in spans
  )


def _awaited(found: tuple[Annotation, ...]) -> list[Annotation]:
  """Replies that the user waits for; a reminder comes by the clock."""
  groups = [a.group for a in found if a.kind == Kind.TIMED and a.group]
  return [
    a
    for a in found
    if a.kind in REPLIES
    and a.due is not None
    and not (a.kind == Kind.TIMED and groups.count(a.group) > 1)
  ]


def _ask(
  a: Annotation,
  *,
  found: tuple[Annotation, ...],
  user: np.ndarray,
  agent: np.ndarray,
) -> Ask | None:
  """Of an annotation; None where the user speaks when the reply is due."""
  due = clock.TICKS.window_of(a.due or 0.0)
  later = np.flatnonzero(agent[due:])
  at = due + (int(later[0]) if len(later) else 0)
  # A question whose result is waited for ends where its annotation starts.
  words_end = a.start if a.kind == Kind.TOOL else a.end
  asked = _stop(a.start, words_end)
  if not asked <= at < len(user) or (user[at] and user[at - 1]):
    return None
  start = clock.TICKS.window_of(a.start if a.since is None else a.since)
  before = np.flatnonzero(~user[: start + 1])
  since = int(before[-1]) + 1 if len(before) else 0
  again, interrupts = ASK_AGAIN, None
  if any(b.kind == Kind.BARGE_IN and b.start == a.start for b in found):
    again, interrupts = INTERRUPT_AGAIN, clock.TICKS.window_of(a.start)
  if a.kind == Kind.TOOL or user[asked:at].any():
    again = 0  # the user has gone on since
  return Ask(at, asked, since=since, again=again, interrupts=interrupts)


def _splits_a_sound(script: Timeline, window: int) -> bool:
  """Whether something else is heard when a window begins."""
  time = window * clock.TICKS.seconds
  track = script.track(Role.ENVIRONMENT)
  return any(s.start < time < s.end for s in (track.spans if track else ()))


def _active(script: Timeline, role: Role, *, windows: int) -> np.ndarray:
  """[windows] bool: where a track has speech."""
  result = np.zeros(windows, bool)
  found = framing.speech_windows(script.track(role), grid=clock.TICKS)
  result[[k for k in found if k < windows]] = True
  return result


def _stop(start: float, end: float) -> int:
  """The first window after [start, end), which holds one at least."""
  first = clock.TICKS.window_of(start)
  return max(first + 1, clock.TICKS.num_windows(end))


def _rows(active: np.ndarray) -> list[tuple[int, int]]:
  """[first, stop) of every row of true values."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], active, [0]])))
  return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
