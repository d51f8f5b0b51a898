"""Speech at the right moment: asked times, cues, counts, events, tools.

For: what one log says about them. Not for: sums over logs (`panel`) or the
floor (`floor`). Start reading at `measure`. Times are seconds; a run, its
onset and its chance: see `heard`.

Stand-ins, without a judge, for the evaluations of TML-Interaction-Small and of
the benchmarks that it names:

  timed_error     |onset - due| of TIMED speech that came (TimeSpeak)
  timed_hit_X     of all TIMED: came within X = 0.2, 0.4, 1.0 s of `due`
  timed_miss      of all TIMED: did not come within its chance
  timed_false_fires  unasked runs a minute, in logs with TIMED
  cue_hit         of CUEs: the agent began within the chance (CueSpeak)
  cue_delay       onset - end of the cue, of hits
  cue_false_alarms  unasked runs a minute, in logs with CUE
  count_obo, count_error  RepCount-A: c' is the last number said after the
                  last but one repetition, 0 where none is; 1[|c' - c| <= 1]
                  and |c' - c| / (c + 0.1), as TransRAC's code has it
  activity_iou    Charades: intersection over union of [start, end) and of the
                  time between the two onsets; 0 unless both came
  pauc            ProactiveVideoQA at w = 0.5 (formula of MMDuet2):
                    [(t1 - t0) s0 + (T - t1) S] / ((T - t0) S), S = 2
                  t0 is the event, T = `until` or the log's end, t1 the first
                  onset between (T if there is none). s0 = 0.5, so silence has
                  0.25; s0 = 0 where the agent spoke before the event, as wrong
                  answers do. There a judge grades the answer; here any is
                  right, and `said_right` has the words.
  premature       of SILENT_UNTIL: the agent spoke before the event
  tool_answered   of TOOLs: the agent began within the chance
  tool_latency    onset - arrival of the result
  call_latency    first call after the question - end of the question, heard a
                  tick after it was decided (Full-Duplex-Bench v3)
  talk_through_tool  share of the time that a result is waited for in which
                  the agent speaks
  follow_overlap  FOLLOW: share of the user's speech that the agent speaks in,
                  not counting speech that had begun before
  follow_lag      its first onset - start of the user's speech
  said_right      of replies that came and whose words are known, those with
                  the same words, but for case and punctuation
"""

import collections

import numpy as np

from tml_jax.evals.metrics import heard as heard_lib
from tml_jax.evals.metrics import numbers
from tml_jax.evals.metrics.floor import Series
from tml_jax.evals.metrics.heard import EPSILON, Heard, plain, seconds
from tml_jax.streams import clock
from tml_jax.streams.annotation import Annotation, Kind

TOLERANCES = (0.2, 0.4, 1.0)  # seconds
_SILENCE, _RIGHT = 0.5, 2.0  # scores of PAUC at w = 0.5


def measure(heard: Heard) -> Series:
  """All series of the module; those without an event are not there."""
  result: Series = collections.defaultdict(list)
  _timed(heard, result)
  _cues(heard, result)
  _counts(heard, result)
  _activities(heard, result)
  _silences(heard, result)
  _tools(heard, result)
  _follows(heard, result)
  for reply in heard.replies:
    is_whole = reply.to.kind != Kind.ACTIVITY  # which has two replies
    if reply.run is not None and reply.to.text and is_whole:
      text = heard.text(reply.run)
      if reply.to.kind == Kind.FOLLOW:
        until = reply.to.until
        if until is None:
          until = reply.to.end + heard_lib.FOLLOW_SECONDS
        found = heard.onsets(reply.to.start, until)
        text = " ".join(heard.runs[i].text for i in found)
      right = plain(text) == plain(reply.to.text)
      result["said_right"].append((float(right), 1))
  return dict(result)


def _fires(heard: Heard) -> tuple[float, float]:
  return len(heard.unasked), seconds(len(heard.log.ticks)) / 60


def _timed(heard: Heard, result: Series) -> None:
  replies = heard.of(Kind.TIMED)
  for reply in replies:
    onset = heard.onset(reply)
    error = float("inf") if onset is None else abs(onset - reply.at)
    for limit in TOLERANCES:
      hit = float(error <= limit + EPSILON)
      result[f"timed_hit_{limit}"].append((hit, 1))
    result["timed_miss"].append((float(onset is None), 1))
    if onset is not None:
      result["timed_error"].append((round(error, 6), 1))
  if replies:
    result["timed_false_fires"].append(_fires(heard))


def _cues(heard: Heard, result: Series) -> None:
  replies = heard.of(Kind.CUE)
  for reply in replies:
    onset = heard.onset(reply)
    result["cue_hit"].append((float(onset is not None), 1))
    if onset is not None:
      result["cue_delay"].append((round(onset - reply.to.end, 6), 1))
  if replies:
    result["cue_false_alarms"].append(_fires(heard))


def _counts(heard: Heard, result: Series) -> None:
  groups: dict[str, list[Annotation]] = collections.defaultdict(list)
  for a in heard.log.of_kind(Kind.REPETITION):
    groups[a.group].append(a)
  starts = [group[0].start for group in groups.values()]
  for group in groups.values():
    since = group[-2].end if len(group) > 1 else group[0].start
    later = [s for s in starts if s > group[-1].end]
    until = min(later, default=seconds(len(heard.log.ticks)))
    said = [
      number
      for i in heard.onsets(since, until)
      for number in numbers.spoken(heard.runs[i].text)
    ]
    miss = abs((said[-1] if said else 0) - len(group))
    result["count_obo"].append((float(miss <= 1), 1))
    result["count_error"].append((miss / (len(group) + 0.1), 1))


def _activities(heard: Heard, result: Series) -> None:
  replies = heard.of(Kind.ACTIVITY)
  for a in heard.log.of_kind(Kind.ACTIVITY):
    onsets = [heard.onset(r) for r in replies if r.to == a]
    iou = 0.0
    if None not in onsets:
      start, end = onsets
      shared = max(0.0, min(end, a.end) - max(start, a.start))
      iou = shared / (max(end, a.end) - min(start, a.start))
    result["activity_iou"].append((iou, 1))


def _silences(heard: Heard, result: Series) -> None:
  for reply in heard.of(Kind.SILENT_UNTIL):
    a = reply.to
    begin, event = clock.TICKS.window_of(a.start), a.end
    premature = any(
      i not in heard.asked and run.stop > begin and run.onset < event - EPSILON
      for i, run in enumerate(heard.runs)
    )
    last = a.until
    if last is None:
      last = seconds(len(heard.log.ticks))
    onset = heard.onset(reply)
    onset = last if onset is None else onset
    result["premature"].append((float(premature), 1))
    if last <= event + EPSILON:
      continue  # no time in which anything could be said
    area = (onset - event) * (0.0 if premature else _SILENCE)
    area += (last - onset) * _RIGHT
    result["pauc"].append((area / ((last - event) * _RIGHT), 1))


def _tools(heard: Heard, result: Series) -> None:
  log = heard.log
  calls = [seconds(k) for k, tick in enumerate(log.ticks) if tick.calls]
  for reply in heard.of(Kind.TOOL):
    a, onset = reply.to, heard.onset(reply)
    result["tool_answered"].append((float(onset is not None), 1))
    if onset is not None:
      result["tool_latency"].append((round(onset - a.end, 6), 1))
    made = [t for t in calls if a.start - EPSILON <= t <= a.end + EPSILON]
    if made:
      result["call_latency"].append((round(made[0] - a.start, 6), 1))
    waiting = log.agent[
      clock.TICKS.num_windows(a.start) : clock.TICKS.window_of(a.end)
    ]
    if len(waiting):
      result["talk_through_tool"].append((int(waiting.sum()), len(waiting)))


def _follows(heard: Heard, result: Series) -> None:
  asked = np.zeros(len(heard.log.ticks), bool)
  for i in heard.asked:
    asked[heard.runs[i].first : heard.runs[i].stop] = True
  for reply in heard.of(Kind.FOLLOW):
    a, onset = reply.to, heard.onset(reply)
    part = slice(clock.TICKS.window_of(a.start), clock.TICKS.num_windows(a.end))
    user = heard.log.user[part]
    if user.any():
      both = int((user & asked[part]).sum())
      result["follow_overlap"].append((both, int(user.sum())))
    if onset is not None:
      result["follow_lag"].append((round(onset - a.start, 6), 1))
