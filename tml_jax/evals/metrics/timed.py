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
                  0.25. Where the agent spoke before the event all is 0: it
                  has given its answer. There a judge grades the answer; here
                  any is right, and `right_silent_until` has the words.
  premature       of SILENT_UNTIL: the agent spoke before the event
  tool_called     of TOOLs: the right tool was called with the right arguments,
                  after the question
  tool_answered   of TOOLs: that, and the agent began within the chance
  tool_latency    onset - arrival of the result, of these
  call_latency    that call - end of the question, heard a tick after it was
                  decided (Full-Duplex-Bench v3)
  tool_unjudged   of TOOLs: the item does not say which call is right; the four
                  above leave it out
  talk_through_tool  share of the time that a result is waited for in which
                  the agent speaks
  follow_overlap  FOLLOW: share of the user's speech that the agent speaks in,
                  not counting speech that had begun before
  follow_lag      its first onset - start of the user's speech
  said_right      of replies that came and whose words are known, those with
                  the same words (`Heard.says_right`)
  done            of everything due: it came in time and nothing spoiled it
                  (`chances`, `heard`); an ACTIVITY is one, with both its ends
  right           of everything due whose words are known: that, with these
                  words; of what is cut short or followed, see `says_right`
  done_KIND, right_KIND  the same of each kind, TURN to TOOL

"Came" is never said of a spoiled reply (`heard`): whoever speaks before it is
asked to has missed the time, the cue, the activity, the event.
"""

import collections

import numpy as np

from tml_jax.evals.metrics import chances, numbers
from tml_jax.evals.metrics import heard as heard_lib
from tml_jax.evals.metrics.chances import EPSILON, seconds
from tml_jax.evals.metrics.floor import Series
from tml_jax.evals.metrics.heard import Heard, Reply, plain, ticks_of
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
  _words(heard, result)
  return dict(result)


def _words(heard: Heard, result: Series) -> None:
  """What was done at all, and what of it with the right words."""
  whole: list[tuple[Annotation, bool, bool | None]] = []
  for reply in heard.replies:
    if reply.to.kind == Kind.ACTIVITY:
      continue  # which has two replies
    right = heard.says_right(reply)
    if right is not None:
      result["said_right"].append((float(right), 1))
    whole.append((reply.to, reply.done, right))
  for a, both in _both(heard):
    right = None
    if all(r.run is not None for r in both) and plain(a.text):
      said = " ".join(heard.runs[r.run].text for r in both)
      right = plain(said) == plain(a.text)
      result["said_right"].append((float(right), 1))
    whole.append((a, all(r.done for r in both), right))
  for a, done, right in whole:
    for name in ("done", f"done_{a.kind}"):
      result[name].append((float(done), 1))
    for name in ("right", f"right_{a.kind}") if plain(a.text) else ():
      result[name].append((float(done and bool(right)), 1))


def _both(heard: Heard) -> list[tuple[Annotation, list[Reply]]]:
  """ACTIVITYs with the replies to their start and their end."""
  replies = heard.of(Kind.ACTIVITY)
  return [
    (a, [r for r in replies if r.to == a])
    for a in heard.log.of_kind(Kind.ACTIVITY)
  ]


def _fires(heard: Heard) -> tuple[float, float]:
  return len(heard.unasked), heard.minutes


def _timed(heard: Heard, result: Series) -> None:
  replies = heard.of(Kind.TIMED)
  for reply in replies:
    onset = heard.onset(reply) if reply.came else None
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
    onset = heard.onset(reply) if reply.came else None
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
    # By unbroken sound: a number may go on with the one before.
    said = [
      number
      for sound in heard_lib.sounds(heard.log)
      if since - EPSILON <= sound.onset <= until + EPSILON
      for number in numbers.spoken(sound.text)
    ]
    miss = abs((said[-1] if said else 0) - len(group))
    result["count_obo"].append((float(miss <= 1), 1))
    result["count_error"].append((miss / (len(group) + 0.1), 1))


def _activities(heard: Heard, result: Series) -> None:
  for a, both in _both(heard):
    iou = 0.0
    if all(reply.came for reply in both):
      start, end = (heard.onset(reply) for reply in both)
      shared = max(0.0, min(end, a.end) - max(start, a.start))
      iou = shared / (max(end, a.end) - min(start, a.start))
    result["activity_iou"].append((iou, 1))


def _silences(heard: Heard, result: Series) -> None:
  for reply in heard.of(Kind.SILENT_UNTIL):
    event, last = reply.to.end, reply.to.until
    if last is None:
      last = seconds(len(heard.log.ticks))
    onset = heard.onset(reply)
    onset = last if onset is None else onset
    result["premature"].append((float(reply.spoiled), 1))
    if last <= event + EPSILON:
      continue  # no time in which anything could be said
    area = (onset - event) * _SILENCE + (last - onset) * _RIGHT
    whole = (last - event) * _RIGHT
    result["pauc"].append((0.0 if reply.spoiled else area / whole, 1))


def _tools(heard: Heard, result: Series) -> None:
  right = dict(chances.called(heard.log))
  for reply in heard.of(Kind.TOOL):
    a, onset = reply.to, heard.onset(reply)
    result["tool_unjudged"].append((float(a not in right), 1))
    if a in right:
      called = right[a]
      result["tool_called"].append((float(called.made is not None), 1))
      result["tool_answered"].append((float(onset is not None), 1))
      if onset is not None and called.arrived is not None:
        result["tool_latency"].append((round(onset - called.arrived, 6), 1))
      if called.made is not None:
        result["call_latency"].append((round(called.made - a.start, 6), 1))
    arrived = a.end
    if a in right and right[a].arrived is not None:
      arrived = right[a].arrived
    waiting = heard.agent[
      clock.TICKS.num_windows(a.start) : clock.TICKS.window_of(arrived)
    ]
    if len(waiting):
      result["talk_through_tool"].append((int(waiting.sum()), len(waiting)))


def _follows(heard: Heard, result: Series) -> None:
  asked = np.zeros(len(heard.log.ticks), bool)
  for i in heard.asked:
    asked[heard.runs[i].first : heard.runs[i].stop] = True
  for reply in heard.of(Kind.FOLLOW):
    a, onset = reply.to, heard.onset(reply)
    part = ticks_of(a.start, a.end)
    user = heard.log.user[part]
    if user.any():
      both = int((user & asked[part]).sum())
      result["follow_overlap"].append((both, int(user.sum())))
    if onset is not None:
      result["follow_lag"].append((round(onset - a.start, 6), 1))
