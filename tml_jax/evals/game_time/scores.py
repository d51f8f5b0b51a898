"""Game-Time: what of it needs no judge, from tick logs.

For: the time and tempo that an instruction asks for, by the agent's activity.
Not for: whether the right things were said, which the benchmark asks a language
model (`suite` writes what that judge reads). Start at `measure`.

Source: table 1 and section 3.2 of arXiv 2509.26388, whose constraints are
predicates: a duration below or above so many seconds, a silence of so many, so
many between words. The paper gives them to a judge, as a rule is too strict
where an agent says "okay, here I go" first. So it is here: such an agent fails.
A sound is an unbroken run of ticks in which the agent sounds; times are whole
ticks of 200 ms. "After" is from the end of the user's last word on. EARLY is a
sound that begins before, unless the agent is to speak while the user does.

  gt_responds   of instructions 1 to 6 and A to E: something sounds after.
  gt_early      of these: something is EARLY. What is below fails then.
  gt_latency    seconds from the end of the instruction to the first sound, mean
                of those without EARLY; not of C, which asks for silence.
  gt_unread     of A to E: the words say no number of seconds (E: have no row of
                three that are set apart). What is below does not count them.
  gt_fast       A: first onset to last end lasts at most the seconds asked for.
  gt_slow       B: it lasts at least so long.
  gt_silence    C: the first onset is within 0.4 s of the time asked for.
  gt_silence_error   mean of how far it is from that, of those that respond.
  gt_interval   D: three sounds or more, and the median silence between two is
                within 0.4 s of what is asked for.
  gt_interval_error  mean of how far that median is.
  gt_adhere, gt_adhere_error   E: the same of onset to onset, and the median of
                the user's example.
  gt_shadow     F: from the agent's first onset to the user's last word, the
                ticks of the user's speech in which it sounds. Who always talks
                has all of them; so beside it:
  gt_shadow_words  of the words it wrote, those that the user said, in order.
  gt_cue        G: it sounds in the user's last word, with an onset at most
                0.4 s before that begins.

A tempo of three words a second is beyond ticks of 200 ms: silence between words
is no tick then, and the agent has one sound.
"""

import collections

import numpy as np

from tml_jax.evals.game_time.folders import GAPS, Clip, Family
from tml_jax.evals.metrics import heard, panel
from tml_jax.evals.metrics.floor import Series
from tml_jax.evals.metrics.panel import Better, Metric
from tml_jax.logs import observe
from tml_jax.logs.ticks import Log
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline

NEAR = 0.4  # seconds: two ticks, as of asked times in our panel
FEWEST = 3  # sounds that have a tempo
_EPSILON = 1e-6


def _share(name: str, title: str, better: Better = Better.HIGHER) -> Metric:
  return Metric(name, f"GT {title}", "%", name, better, factor=100)


def _seconds(name: str, title: str) -> Metric:
  return Metric(name, f"GT {title}", "s, mean", name, Better.LOWER, digits=2)


METRICS = (
  _share("gt_responds", "responds"),
  _share("gt_early", "speaks in the instruction", Better.LOWER),
  _seconds("gt_latency", "latency"),
  _share("gt_unread", "no number of seconds", Better.NEITHER),
  _share("gt_fast", "time-fast: in time"),
  _share("gt_slow", "time-slow: long enough"),
  _share("gt_silence", "time-silence: silence asked for"),
  _seconds("gt_silence_error", "time-silence: off by"),
  _share("gt_interval", "tempo-interval: silence between words"),
  _seconds("gt_interval_error", "tempo-interval: off by"),
  _share("gt_adhere", "tempo-adhere: tempo of the example"),
  _seconds("gt_adhere_error", "tempo-adhere: off by"),
  _share("gt_shadow", "shadow: speaks with the user"),
  _share("gt_shadow_words", "shadow: words of the user"),
  _share("gt_cue", "cue: on the user's last word"),
)
TABLE = (*METRICS, *panel.METRICS)


def measure(log: Log, *, clip: Clip) -> Series:
  """All series of the module that a clip's family has."""
  result: Series = collections.defaultdict(list)
  found = [s for s in heard.sounds(log) if s.stop > s.first]
  if clip.family == Family.SHADOW:
    _shadow(result, found, log=log, clip=clip)
  elif clip.family == Family.CUE:
    _cue(result, found, clip=clip)
  else:
    _after(result, found, clip=clip)
  return dict(result)


def _after(result: Series, found: list[heard.Run], *, clip: Clip) -> None:
  after = [s for s in found if s.onset >= clip.end - _EPSILON]
  early = len(after) < len(found)
  result["gt_responds"].append((float(bool(after)), 1))
  result["gt_early"].append((float(early), 1))
  if after and not early and clip.family != Family.TIME_SILENCE:
    result["gt_latency"].append((after[0].onset - clip.end, 1))
  if clip.family not in _NAMES:
    return
  asked = clip.asked
  result["gt_unread"].append((float(asked is None), 1))
  if asked is None:
    return
  off, kept = None, False
  if after:
    lasts = after[-1].end - after[0].onset
    if clip.family == Family.TIME_FAST:
      kept = lasts <= asked + _EPSILON
    elif clip.family == Family.TIME_SLOW:
      kept = lasts >= asked - _EPSILON
    else:
      off = _off(after, asked=asked, clip=clip)
      kept = off is not None and off <= NEAR + _EPSILON
  name = f"gt_{_NAMES[clip.family]}"
  result[name].append((float(kept and not early), 1))
  if off is not None:
    result[f"{name}_error"].append((off, 1))


_NAMES = {
  Family.TIME_FAST: "fast",
  Family.TIME_SLOW: "slow",
  Family.TIME_SILENCE: "silence",
  Family.TEMPO_INTERVAL: "interval",
  Family.TEMPO_ADHERE: "adhere",
}


def _off(after: list[heard.Run], *, asked: float, clip: Clip) -> float | None:
  """Seconds from what is asked for; None for too few sounds to have a tempo."""
  if clip.family == Family.TIME_SILENCE:
    return abs(after[0].onset - clip.end - asked)
  if len(after) < FEWEST:
    return None
  pairs = list(zip(after[:-1], after[1:], strict=True))
  if clip.family == Family.TEMPO_INTERVAL:
    gaps = [b.onset - a.end for a, b in pairs]
  else:
    gaps = [b.onset - a.onset for a, b in pairs]
  return abs(float(np.median(gaps)) - asked)


def _shadow(
  result: Series, found: list[heard.Run], *, log: Log, clip: Clip
) -> None:
  last = clock.TICKS.num_windows(clip.end)
  first = min((s.first for s in found), default=last)
  speaks = log.user[first:last]
  with_user = log.agent[first:last] & speaks
  result["gt_shadow"].append(
    (float(with_user.sum() / speaks.sum()) if speaks.any() else 0.0, 1)
  )
  said = heard.plain(" ".join(s.text for s in found)).split()
  if said:
    theirs = heard.plain(" ".join(w.text for w in clip.words)).split()
    shared = common(said, theirs)
    result["gt_shadow_words"].append((float(shared), len(said)))


def _cue(result: Series, found: list[heard.Run], *, clip: Clip) -> None:
  word = clip.words[-1]
  hits = any(
    s.onset >= word.start - NEAR - _EPSILON
    and s.onset < word.end - _EPSILON
    and s.end > word.start + _EPSILON
    for s in found
  )
  result["gt_cue"].append((float(hits), 1))


def common(one: list[str], other: list[str]) -> int:
  """Length of the longest common subsequence."""
  best = [0] * (len(other) + 1)
  for word in one:
    row = [0]
    for k, theirs in enumerate(other):
      row.append(best[k] + 1 if word == theirs else max(row[k], best[k + 1]))
    best = row
  return best[-1]


def ideal(timeline: Timeline, *, clip: Clip) -> Log:
  """Keeps the time that is asked for, without words: what can be had."""
  agent = np.zeros(clock.TICKS.num_windows(timeline.duration), bool)
  end = clock.TICKS.num_windows(clip.end)
  asked = 1.0 if clip.asked is None else clip.asked
  ticks = max(1, round(asked / clock.TICKS.seconds))
  match clip.family:
    case Family.TIME_FAST:
      agent[end : end + min(ticks, 10)] = True
    case Family.TIME_SLOW:
      agent[end : end + ticks + 1] = True
    case Family.TIME_SILENCE:
      agent[end + ticks : end + ticks + 5] = True
    case Family.TEMPO_INTERVAL:
      agent[end : end + GAPS * (ticks + 1) + 1 : ticks + 1] = True
    case Family.TEMPO_ADHERE:
      agent[end : end + GAPS * ticks + 1 : ticks] = True
    case Family.SHADOW:
      for word in clip.words:
        first = clock.TICKS.window_of(word.start)
        agent[first : clock.TICKS.num_windows(word.end)] = True
    case Family.CUE:
      word = clip.words[-1]
      agent[clock.TICKS.window_of(word.start) : end] = True
    case _:
      agent[end : end + 10] = True
  return observe.from_activity(timeline, agent=agent)
