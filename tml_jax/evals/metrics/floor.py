"""Who has the floor: replies, yields, interruptions, selectivity, gaps.

For: what one log says about turn-taking. Not for: sums over logs (`panel`) or
speech at given times (`timed`). Start reading at `measure`. Times are seconds;
a run, its onset, what is due and what was asked: see `heard`.

Definitions after the panel of tau-voice (tau2-bench, 200 ms ticks) and
Full-Duplex-Bench (arXiv 2503.04721, v1.5: 2507.23159), and where ours differ:

  responded       R_R: the agent begins within the chance of a TURN, which is
                  over when the user speaks again. tau drops a last turn with
                  no successor; here the log's end is one. A reply that began
                  before the user's end is none: who always talks answers
                  nobody (Full-Duplex-Bench clips such latencies to 0). Nor is
                  one after speech in the user's turn that nobody asked for,
                  which tau counts in I_A alone: on a clock of its own, an
                  agent would answer everybody.
  latency         L_R: onset - end of the user's speech, of responses, to the
                  sample and not to the tick. Only of turns due at most
                  `PROMPT_SECONDS` after their end: not of asked delays.
  late            |onset - due| of responses, in any turn with a `due`.
  yielded         R_Y: of BARGE_INs into the agent's speech, those with a
                  quiet tick that begins within `YIELD_SECONDS` of the user's
                  onset. Where the agent was silent there is nothing to yield.
                  Speech that nobody asked for does not yield, stop or not.
  yield_latency   L_Y: from the user's onset to that tick.
  interruptions   I_A: onsets while the user has spoken to the agent in the
                  tick before and goes on, and nothing was due, per turn of
                  the user (TURN, TIMED, BARGE_IN). May exceed 1.
  selectivity     S_BC, S_VT, S_ND (here SIDE_TALK and BACKGROUND apart): of
                  events, those without error. Where the agent speaks, error =
                  a quiet tick within `KEEP_SECONDS`, or speech that nobody
                  asked for, which tau does not count; where it is silent, an
                  unasked onset during the event or `ANSWER_SECONDS` after it.
                  Where the agent speaks and the recorded one comes to its own
                  end within `KEEP_SECONDS`, an event says nothing.
                  "Within" excludes its end, as tau's ranges of ticks do.
  takeover        of PAUSEs, those in which the agent speaks unasked.
                  Full-Duplex-Bench takes any speech of the whole clip that
                  lasts 1 s or has 4 words; here any, in the pause alone.
  unasked_seconds  seconds of unasked speech a minute: of runs that nobody
                  asked for, and of asked ones what goes on 2 s after the user
                  has begun to ask for something else (`heard`); neither this
                  nor the next of recorded conversations that have no
                  annotations (`recorded`).
  false_fires     unasked runs a minute.
  overlap         share of the user's directed speech that the agent talks in,
                  FOLLOW, which asks for it, left out.
  floor_transfer  onset of the agent - end of the user's last run before it:
                  gaps are positive, overlaps negative (floor transfer offset,
                  Heldner & Edlund 2010). In ticks of 200 ms; the same of the
                  recorded agent, for comparison.

Speech of the agent is its runs, gaps closed (`heard`).
"""

import collections

import numpy as np

from tml_jax.evals.metrics.chances import EPSILON, PROMPT_SECONDS, seconds
from tml_jax.evals.metrics.heard import Heard
from tml_jax.evals.metrics.speech import runs_of
from tml_jax.streams import clock
from tml_jax.streams.annotation import Annotation, Kind

YIELD_SECONDS = 2.0
KEEP_SECONDS = 1.0
ANSWER_SECONDS = 2.0
SELECTIVE = {
  Kind.BACKCHANNEL: "selectivity_backchannel",
  Kind.VOCAL_TIC: "selectivity_vocal_tic",
  Kind.SIDE_TALK: "selectivity_side_talk",
  Kind.BACKGROUND: "selectivity_background",
}
TRANSFER, RECORDED = "floor_transfer", "floor_transfer_recorded"

# (value, weight) of every event, by the name of its series; a ratio is the sum
# of values over the sum of weights.
Series = dict[str, list[tuple[float, float]]]


def measure(heard: Heard) -> Series:
  """All series of the module; those without an event are not there."""
  result: Series = collections.defaultdict(list)
  _responses(heard, result)
  _yields(heard, result)
  _interruptions(heard, result)
  for kind, name in SELECTIVE.items():
    for event in heard.log.of_kind(kind):
      kept = is_kept(heard, event)
      if kept is not None:
        result[name].append((float(kept), 1))
  for pause in heard.log.of_kind(Kind.PAUSE):
    taken = any(
      run.onset < pause.end - EPSILON and run.end > pause.start + EPSILON
      for run in heard.unasked
    )
    result["takeover"].append((float(taken), 1))
  if heard.log.annotations or not heard.log.recorded:
    # Where only a recorded agent says when to speak, nothing is unasked.
    result["false_fires"].append((len(heard.unasked), heard.minutes))
    result["unasked_seconds"].append((heard.unasked_seconds, heard.minutes))
  _overlap(heard, result)
  made = transfers(heard.agent, user=heard.directed)
  result[TRANSFER] += [(t, 1) for t in made]
  result[RECORDED] += [(t, 1) for t in _recorded_transfers(heard)]
  return dict(result)


def _recorded_transfers(heard: Heard) -> list[int]:
  """`transfers` of the recorded agent, who kept nobody waiting.

  A user who waits for this agent moves what the recorded one says behind the
  wait: there, what was due tells when it spoke.
  """
  due = {
    clock.TICKS.window_of(a.end - EPSILON): clock.TICKS.window_of(a.due)
    for a in heard.log.annotations
    if a.due is not None and a.due >= a.end  # FOLLOW: both at once
  }
  return [
    min(onset, due.get(stop - 1, onset)) - stop
    for (_, stop), onset in changes(heard.recorded, user=heard.directed).items()
  ]


def _responses(heard: Heard, result: Series) -> None:
  for reply in heard.of(Kind.TURN):
    onset = heard.onset(reply)
    result["responded"].append((float(reply.came), 1))
    if onset is None or reply.spoiled:
      continue
    due = reply.to.due
    if due is None or due - reply.to.end <= PROMPT_SECONDS + EPSILON:
      result["latency"].append((round(onset - reply.to.end, 6), 1))
    if due is not None:
      result["late"].append((round(abs(onset - due), 6), 1))


def _yields(heard: Heard, result: Series) -> None:
  for event in heard.log.of_kind(Kind.BARGE_IN):
    run = heard.at(clock.TICKS.window_of(event.start))
    if run is None:
      continue
    quiet = None
    if run in heard.asked:
      quiet = _quiet_after(heard, event, within=YIELD_SECONDS)
    result["yielded"].append((float(quiet is not None), 1))
    if quiet is not None:
      result["yield_latency"].append((round(quiet - event.start, 6), 1))


def _quiet_after(
  heard: Heard, event: Annotation, *, within: float
) -> float | None:
  """When the first quiet tick after the event's start begins."""
  agent = heard.agent
  for tick in range(clock.TICKS.window_of(event.start) + 1, len(agent)):
    if seconds(tick) - event.start > within - EPSILON:
      return None
    if not agent[tick]:
      return seconds(tick)
  return None


def _interruptions(heard: Heard, result: Series) -> None:
  kinds = (Kind.TURN, Kind.TIMED, Kind.BARGE_IN)
  turns = {(a.start, a.end) for a in heard.log.of_kind(*kinds)}
  directed = heard.directed
  onsets = [
    run.onset
    for i, run in enumerate(heard.runs)
    if i not in heard.asked
    and run.first > 0
    and directed[run.first - 1]
    and directed[run.first]
  ]
  for start, end in sorted(turns):
    count = sum(start + EPSILON < onset < end - EPSILON for onset in onsets)
    result["interruptions"].append((count, 1))


def is_kept(heard: Heard, event: Annotation) -> bool | None:
  """Whether the agent did as it would have done without the event.

  None where it speaks and would have come to its end anyway.
  """
  tick = clock.TICKS.window_of(event.start)
  run = heard.at(tick)
  if run is None:
    later = heard.onsets(
      event.start + 2 * EPSILON, event.end + ANSWER_SECONDS - 2 * EPSILON
    )
    unasked = heard.unasked
    return not any(heard.runs[i] in unasked for i in later)
  if run not in heard.asked:
    return False
  until = event.start + KEEP_SECONDS
  for first, stop in runs_of(heard.recorded):
    over = seconds(stop)
    if first <= tick < stop and over < until - EPSILON:
      return None
  return _quiet_after(heard, event, within=KEEP_SECONDS) is None


def _overlap(heard: Heard, result: Series) -> None:
  spoken = heard.directed & ~heard.log.covered(Kind.FOLLOW)
  if spoken.any():
    both = int((spoken & heard.agent).sum())
    result["overlap"].append((both, int(spoken.sum())))


def transfers(agent: np.ndarray, *, user: np.ndarray) -> list[int]:
  """Ticks from the user's end to the agent's onset, at every change of floor.

  Both are [ticks] bool.
  """
  return [
    onset - stop for (_, stop), onset in changes(agent, user=user).items()
  ]


def changes(
  agent: np.ndarray, *, user: np.ndarray
) -> dict[tuple[int, int], int]:
  """The agent's onset at every change of floor, by the user's run before it.

  A run of the agent within one of the user is no change. Both are [ticks]
  bool; all are ticks.
  """
  result: dict[tuple[int, int], int] = {}
  for first, stop in runs_of(agent):
    before = [run for run in runs_of(user) if run[0] < first]
    if not before or before[-1] in result:
      continue  # nobody spoke, or the agent goes on
    if before[-1][1] >= stop:
      continue
    result[before[-1]] = first
  return result
