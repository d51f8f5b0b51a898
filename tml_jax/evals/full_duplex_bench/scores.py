"""Full-Duplex-Bench: the numbers that need no judge, from tick logs.

For: what one log says by the benchmark's definitions, its traps mended. Not
for: our own panel, which is beside it (`floor`), or the benchmark's files
(`evals.full_duplex_bench.folders`). Start reading at `measure`.

Sources: arXiv 2503.04721 (v1.0), 2507.23159 (v1.5) and the code published with
them. A sound is an unbroken run of ticks in which the agent sounds, W its
words, D its seconds. The benchmark finds words by a recogniser and sounds by
Silero's detector; here both are the agent's own decisions, in steps of 200 ms,
and the user's speech is found by energy (`data.audio.speech_spans`).

TOR, take-over rate: 0 if nothing sounds, or D < 1 s and |W| <= 3, else 1; D is
from the first onset to the last end. There D is from the first word to the
last, and sound without words is nothing.

  fdb_pause_tor            mean TOR of the whole clip, as published: a reply
                           after the user's turn counts, too.
  fdb_pause_tor_inside     of pauses, those that a sound touches which has
                           TOR 1 by itself; not in the benchmark, which never
                           opens pause.json.
  fdb_turn_tor             mean TOR of the whole clip.
  fdb_turn_latency         first onset - timestamp[0], mean where TOR = 1.
                           Negative where the agent began before.
  fdb_turn_early           share of those latencies that are negative.
  fdb_turn_latency_clipped negative ones are 0, as published: who always talks
                           has latency 0.
  fdb_interruption_*       the same after the interruption's end, timestamp[1]:
                           TOR of what sounds from there on. A sound that has
                           begun before keeps its onset.
  fdb_backchannel_tor      a clip has TOR 1 if any sound is longer than 3 s, or
                           lasts 1 s, or has 3 words. As published, sounds
                           after one of 3 s are not looked at, and of those
                           before the last one decides:
                           fdb_backchannel_tor_published.
  fdb_backchannel_rate     sounds of at most 3 s before the first longer one,
                           per second, mean of clips; sounds that take the turn
                           count, too.
  fdb_backchannel_none     share of clips without one.
  fdb_backchannel_jsd      of clips with one: square root of the Jensen-Shannon
                           divergence in nats, 0 to 0.833, of their 200 ms bins
                           to those of human listeners in the same clip.
  fdb_backchannel_jsd_published  1.0 where there is none, as published.

v1.5. Sounds at most 0.5 s apart are joined, speech of the input at most 0.6 s
(the constants; comments beside them say 50 and 300 ms). A stop interval is an
overlap of both, a response interval is from the end of speech to the next
onset; the benchmark lists all of a clip and does not say which one counts.

  fdb_stop_latency      length of the first stop interval that overlaps
                        metadata's timestamps.
  fdb_stopped           of these, those that the agent ended. The others end
                        with the user: no stop at all.
  fdb_response_latency  length of the first response interval that begins
                        behind the start of timestamps.
"""

import collections
import dataclasses

import numpy as np

from tml_jax.evals.full_duplex_bench import folders as bench
from tml_jax.evals.full_duplex_bench.folders import Clip, Task
from tml_jax.evals.metrics import heard, panel
from tml_jax.evals.metrics.floor import Series
from tml_jax.evals.metrics.panel import Better, Metric
from tml_jax.logs.ticks import Log
from tml_jax.streams import clock
from tml_jax.streams.timeline import Span, Word

TURN_SECONDS, TURN_WORDS = 1.0, 3
BACKCHANNEL_SECONDS, BACKCHANNEL_WORDS = 3.0, 2
USER_GAP, MODEL_GAP = 0.6, 0.5
_EPSILON = 1e-6  # seconds; times are sums of decimal ones
_TINY = 1e-10  # in empty bins, as published


def _share(name: str, title: str, better: Better) -> Metric:
  return Metric(name, title, "%", name, better, factor=100)


def _seconds(name: str, title: str, better: Better = Better.LOWER) -> Metric:
  return Metric(name, title, "s, mean", name, better, digits=2)


def _distance(name: str, title: str) -> Metric:
  return Metric(name, title, "0..0.83", name, Better.LOWER, digits=2)


def _after(what: str, title: str) -> tuple[Metric, ...]:
  name = f"fdb_{what}"
  return (
    _share(f"{name}_tor", f"FDB {title}: takes over", Better.HIGHER),
    _seconds(f"{name}_latency", f"FDB {title}: latency"),
    _share(f"{name}_early", f"FDB {title}: began before", Better.LOWER),
    _seconds(f"{name}_latency_clipped", f"FDB {title}: latency, published"),
  )


METRICS = (
  _share("fdb_pause_tor", "FDB pauses: takes over in the clip", Better.LOWER),
  _share("fdb_pause_tor_inside", "FDB pauses: in a pause", Better.LOWER),
  *_after("turn", "turn"),
  *_after("interruption", "interruption"),
  _share("fdb_backchannel_tor", "FDB backchannel: takes over", Better.LOWER),
  _share(
    "fdb_backchannel_tor_published",
    "FDB backchannel: takes over, published",
    Better.LOWER,
  ),
  Metric(
    "fdb_backchannel_rate",
    "FDB backchannel: short sounds",
    "/s",
    "fdb_backchannel_rate",
    Better.HIGHER,
    digits=3,
  ),
  _share("fdb_backchannel_none", "FDB backchannel: none", Better.LOWER),
  _distance("fdb_backchannel_jsd", "FDB backchannel: distance to humans"),
  dataclasses.replace(
    _distance(
      "fdb_backchannel_jsd_published", "FDB backchannel: distance, published"
    ),
    unit="0..0.83, none 1",
  ),
  _seconds("fdb_stop_latency", "FDB overlap: stop", Better.NEITHER),
  _share("fdb_stopped", "FDB overlap: agent stops first", Better.NEITHER),
  _seconds("fdb_response_latency", "FDB overlap: response", Better.NEITHER),
)
TABLE = (*METRICS, *panel.METRICS)


@dataclasses.dataclass(frozen=True)
class Sound:
  """An unbroken run of the agent's speech; times in seconds."""

  start: float
  end: float
  words: tuple[Word, ...]

  @property
  def duration(self) -> float:
    return round(self.end - self.start, 6)


def sounds(log: Log) -> list[Sound]:
  """The agent's runs, with their text as words.

  A run, with no gap closed, has what was said since the run before. Its words
  share its time in order, each in proportion to its letters; text without sound
  behind it is not heard.
  """
  result = []
  for run in heard.sounds(log):
    start, end = run.onset, min(run.end, log.duration)
    if end - start < _EPSILON:
      continue
    words = run.text.split()
    edges = np.cumsum([0, *map(len, words)])
    times = start + (end - start) * edges / max(edges[-1], 1)
    spans = zip(times[:-1], times[1:], words, strict=True)
    result.append(
      Sound(start, end, tuple(Word(float(s), float(e), w) for s, e, w in spans))
    )
  return result


def words(log: Log) -> list[Word]:
  """All words of `sounds`, for `output.json`."""
  return [word for sound in sounds(log) for word in sound.words]


def takes_turn(found: list[Sound]) -> bool:
  """TOR of these sounds together; see the module."""
  if not found:
    return False
  lasts = round(found[-1].end - found[0].start, 6)
  return lasts >= TURN_SECONDS or _num_words(found) > TURN_WORDS


def _num_words(found: list[Sound]) -> int:
  return sum(len(sound.words) for sound in found)


def measure(log: Log, *, clip: Clip, human: np.ndarray | None = None) -> Series:
  """All series of the module that a clip's task has.

  Args:
    log: of an agent that heard the clip.
    clip: as said.
    human: shares of when human listeners gave backchannels in it.
  """
  found, result = sounds(log), collections.defaultdict(list)
  if clip.task in bench.PAUSES:
    result["fdb_pause_tor"].append((float(takes_turn(found)), 1))
    for pause in clip.events:
      touching = [s for s in found if _overlap(s, pause)]
      taken = any(takes_turn([sound]) for sound in touching)
      result["fdb_pause_tor_inside"].append((float(taken), 1))
  elif clip.task == Task.TURN:
    _after_time(result, "turn", found, at=clip.events[0].start, whole=True)
  elif clip.task == Task.INTERRUPTION:
    _after_time(result, "interruption", found, at=clip.events[0].end)
  elif clip.task == Task.BACKCHANNEL:
    _backchannels(result, found, duration=clip.duration, human=human)
  else:
    _overlaps(result, found, clip=clip)
  return dict(result)


def _overlap(a: Sound | Span, b: Sound | Span) -> bool:
  return min(a.end, b.end) - max(a.start, b.start) > _EPSILON


def _after_time(
  result: Series,
  what: str,
  found: list[Sound],
  *,
  at: float,
  whole: bool = False,
) -> None:
  """TOR and latencies; of the `whole` clip or of what sounds after `at`."""
  name, counted = f"fdb_{what}", found
  if not whole:
    found = [sound for sound in found if sound.end > at + _EPSILON]
    counted = [
      Sound(max(s.start, at), s.end, tuple(bench.after([*s.words], at)))
      for s in found
    ]
  taken = takes_turn(counted)
  result[f"{name}_tor"].append((float(taken), 1))
  if taken:
    latency = round(found[0].start - at, 6)
    result[f"{name}_latency"].append((latency, 1))
    result[f"{name}_early"].append((float(latency < 0), 1))
    result[f"{name}_latency_clipped"].append((max(0.0, latency), 1))


def _backchannels(
  result: Series,
  found: list[Sound],
  *,
  duration: float,
  human: np.ndarray | None,
) -> None:
  taken, short, published = [], [], False
  for sound in found:
    taken.append(
      sound.duration >= TURN_SECONDS or len(sound.words) > BACKCHANNEL_WORDS
    )
  for sound, takes in zip(found, taken, strict=True):
    published = takes
    if sound.duration > BACKCHANNEL_SECONDS:
      break
    short.append(sound)
  name = "fdb_backchannel"
  result[f"{name}_tor"].append((float(any(taken)), 1))
  result[f"{name}_tor_published"].append((float(published), 1))
  result[f"{name}_rate"].append((len(short) / duration, 1))
  result[f"{name}_none"].append((float(not short), 1))
  if human is None:
    return
  distance = 1.0
  if short:
    distance = jsd(histogram(short, duration=duration), human)
    result[f"{name}_jsd"].append((distance, 1))
  result[f"{name}_jsd_published"].append((distance, 1))


def histogram(found: list[Sound], *, duration: float) -> np.ndarray:
  """[bins] of 200 ms: how many of the sounds touch each."""
  result = np.zeros(clock.TICKS.window_of(duration) + 1)
  for sound in found:
    first, stop = (
      clock.TICKS.window_of(sound.start),
      clock.TICKS.num_windows(sound.end),
    )
    result[first:stop] += 1
  return result


def jsd(counts: np.ndarray, human: np.ndarray) -> float:
  """Square root of the Jensen-Shannon divergence, in nats.

  Args:
    counts: [bins] of the agent.
    human: [any] shares, interpolated to as many bins.
  """
  places = np.linspace(0, 1, len(counts))
  q = np.interp(places, np.linspace(0, 1, len(human)), human)
  p = counts + _TINY
  p, q = p / p.sum(), q / q.sum()
  middle, total = (p + q) / 2, 0.0
  for x in (p, q):
    is_there = x > 0
    total += (x[is_there] * np.log(x[is_there] / middle[is_there])).sum()
  return float(np.sqrt(max(total, 0.0) / 2))


def _overlaps(result: Series, found: list[Sound], *, clip: Clip) -> None:
  (event,) = clip.events
  user = joined(clip.spans, gap=USER_GAP)
  model = joined([Span(s.start, s.end) for s in found], gap=MODEL_GAP)
  stops = [s for s in stop_intervals(user, model) if _overlap(s, event)]
  if stops:
    result["fdb_stop_latency"].append((_length(stops[0]), 1))
    ends = [m.end for m in model if _overlap(m, stops[0])]
    stopped = min(ends) <= stops[0].end + _EPSILON
    result["fdb_stopped"].append((float(stopped), 1))
  answers = [
    a for a in response_intervals(user, model) if a.start > event.start
  ]
  if answers:
    result["fdb_response_latency"].append((_length(answers[0]), 1))


def _length(span: Span) -> float:
  return round(span.end - span.start, 6)


def joined(spans: list[Span] | tuple[Span, ...], *, gap: float) -> list[Span]:
  """Spans in order, those at most `gap` seconds apart as one."""
  result: list[Span] = []
  for span in sorted(spans, key=lambda s: s.start):
    if result and span.start - result[-1].end <= gap + _EPSILON:
      result[-1] = Span(result[-1].start, max(result[-1].end, span.end))
    else:
      result.append(span)
  return result


def stop_intervals(user: list[Span], model: list[Span]) -> list[Span]:
  """Where both sound, in order; of those that end together the shortest."""
  by_end: dict[float, Span] = {}
  for u in user:
    for m in model:
      both = Span(max(u.start, m.start), min(u.end, m.end))
      if both.end - both.start <= _EPSILON:
        continue
      key = round(both.end, 3)
      if key not in by_end or _length(both) < _length(by_end[key]):
        by_end[key] = both
  return sorted(by_end.values(), key=lambda span: span.end)


def response_intervals(user: list[Span], model: list[Span]) -> list[Span]:
  """From each end of the user to the next onset, the latest end for each."""
  by_onset: dict[float, Span] = {}
  for u in user:
    onset = next((m.start for m in model if m.start > u.end), None)
    if onset is not None:
      by_onset[round(onset, 3)] = Span(u.end, onset)
  return sorted(by_onset.values(), key=lambda span: span.end)
