"""The interactivity panel: timing of conversations as numbers, no judge.

For: which numbers there are, and the series of a log. Not for: definitions
(`floor`, `timed`), sums over logs (`statistics`, `score`) or tables (`show`).
Start reading at `METRICS`; `register` is for a metric of your own. A log gives
series of events, an item is a log's series, a summary is every metric over all
items with the number of its events.

Latency alone rewards an agent that talks all the time, selectivity one that
never does: `HEADLINE` goes together, in every table.
"""

import dataclasses
import enum
import inspect
from collections.abc import Callable

from tml_jax import errors, registry
from tml_jax.evals.metrics import chances, floor, heard, recorded, timed
from tml_jax.evals.metrics.floor import Series
from tml_jax.logs.ticks import Log
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

MODEL = "model"  # the agent with weights, beside those of `dummies`
ALL = "all"  # families together
FEW_EVENTS = 10  # fewer are marked; tau-voice does not publish them


class Statistic(enum.Enum):
  """How a series becomes a number."""

  RATIO = "ratio"  # sum of values over sum of weights
  QUANTILE = "quantile"  # a value that was measured, no interpolation
  DISTANCE = "distance"  # Jensen-Shannon, of floor transfers to the recorded
  SUMMARY = "summary"  # of many series: `score`
  AGREEMENT = "agreement"  # of several series: `recorded`
  SHARED = "shared"  # the same, of what does not need duplex


class Better(enum.Enum):
  """Which way a number is better; behind its title, an arrow."""

  HIGHER = " ↑"
  LOWER = " ↓"
  NEITHER = ""

  def __str__(self) -> str:
    return self.value


class Reach(enum.Enum):
  """Who can have what a row counts."""

  EITHER = "an interaction model, and one behind a turn detector"
  DUPLEX = "by definition, no agent that speaks when a turn is over"


@dataclasses.dataclass(frozen=True)
class Metric:
  """A row of the panel.

  Attributes:
    name: in JSON files and in the metrics of training.
    title: for people.
    unit: of what is shown, the value times `factor`.
    series: of `floor`, `timed` or `recorded`, where it is defined, or of the
      function that it is registered over; "" for content and the summary.
    better: which way.
    statistic: of the series.
    quantile: where the statistic is one.
    factor: as said.
    digits: that are shown.
    reach: who can have it; rows of one arm alone stand apart.
  """

  name: str
  title: str
  unit: str
  series: str
  better: Better
  statistic: Statistic = Statistic.RATIO
  quantile: float = 0.5
  factor: float = 1.0
  digits: int = 1
  reach: Reach = Reach.EITHER

  @property
  def needs_duplex(self) -> bool:
    return self.reach is Reach.DUPLEX


def _share(name: str, title: str, better: Better = Better.HIGHER) -> Metric:
  return Metric(name, title, "%", name, better, factor=100)


def _quantile(name: str, title: str, series: str, q: float) -> Metric:
  return Metric(
    name,
    title,
    "s",
    series,
    Better.LOWER,
    Statistic.QUANTILE,
    quantile=q,
    digits=2,
  )


def _rate(name: str, title: str) -> Metric:
  return Metric(name, title, "/min", name, Better.LOWER, digits=2)


# What is due of each kind, in words.
_KINDS = {
  Kind.TURN: "turns",
  Kind.TIMED: "asked times",
  Kind.CUE: "cues",
  Kind.FOLLOW: "following",
  Kind.REPETITION: "repetitions",
  Kind.ACTIVITY: "start to stop",
  Kind.SILENT_UNTIL: "silent until",
  Kind.TOOL: "results of tools",
}
SUMMARY = Metric(
  "summary_score",
  "summary score",
  "0..100",
  "",
  Better.HIGHER,
  Statistic.SUMMARY,
)
SHARED = Metric(
  "summary_shared",
  "summary score, without what needs duplex",
  "0..100",
  "",
  Better.HIGHER,
  Statistic.SHARED,
)


def _duplex(*rows: Metric) -> tuple[Metric, ...]:
  """These, marked."""
  return tuple(dataclasses.replace(row, reach=Reach.DUPLEX) for row in rows)


def _reach(kind: Kind) -> Reach:
  return Reach.DUPLEX if kind in chances.NEEDS_DUPLEX else Reach.EITHER


METRICS = (
  SUMMARY,
  SHARED,
  _share("done", "done in time"),
  _share("right", "done in time, with the right words"),
  Metric(
    "unasked_seconds",
    "unasked speech, seconds",
    "s/min",
    "unasked_seconds",
    Better.LOWER,
  ),
  _rate("false_fires", "unasked speech, runs"),
  _share("responded", "turns answered"),
  _quantile("latency_p10", "response latency, p10", "latency", 0.1),
  _quantile("latency_p50", "response latency, median", "latency", 0.5),
  _quantile("latency_p90", "response latency, p90", "latency", 0.9),
  _share("yielded", "yields to a barge-in"),
  _quantile("yield_latency_p50", "yield latency, median", "yield_latency", 0.5),
  _quantile("yield_latency_p90", "yield latency, p90", "yield_latency", 0.9),
  _share("selectivity_backchannel", "unmoved by backchannels"),
  _share("selectivity_vocal_tic", "unmoved by vocal tics"),
  _share("selectivity_side_talk", "unmoved by side talk"),
  _share("selectivity_background", "unmoved by background"),
  Metric(
    "interruptions",
    "interruptions by the agent",
    "/turn",
    "interruptions",
    Better.LOWER,
    digits=2,
  ),
  _share("takeover", "takes over in a pause", Better.LOWER),
  _share("overlap", "talks while the user does", Better.LOWER),
  _quantile("late_p50", "|onset - recorded onset|, median", "late", 0.5),
  Metric(
    "floor_transfer_p50",
    "floor transfer offset, median",
    "s",
    floor.TRANSFER,
    Better.NEITHER,
    Statistic.QUANTILE,
    factor=0.2,
  ),
  Metric(
    "floor_transfer_js",
    "floor transfers, distance to recorded",
    "0..1",
    floor.TRANSFER,
    Better.LOWER,
    Statistic.DISTANCE,
    digits=2,
  ),
  _quantile(
    "timed_error_p50", "asked time, |error|, median", "timed_error", 0.5
  ),
  *(
    _share(f"timed_hit_{x}", f"asked time, within {x} s")
    for x in timed.TOLERANCES
  ),
  _share("timed_miss", "asked time, missed", Better.LOWER),
  _rate("timed_false_fires", "asked time, unasked speech"),
  *_duplex(
    _share("cue_hit", "cues hit"),
    _quantile("cue_delay_p50", "delay after a cue, median", "cue_delay", 0.5),
  ),
  _rate("cue_false_alarms", "false alarms beside cues"),
  *_duplex(
    _share("count_obo", "repetitions counted, off by one at most"),
    Metric(
      "count_mae",
      "repetitions, error / count",
      "",
      "count_error",
      Better.LOWER,
      digits=2,
    ),
    Metric(
      "activity_iou",
      "start to stop, IoU",
      "0..1",
      "activity_iou",
      Better.HIGHER,
      digits=2,
    ),
    _share("pauc", "silent until (PAUC, silence = 25)"),
  ),
  _share("premature", "silent until, speaks before", Better.LOWER),
  _share("tool_called", "right calls of tools"),
  _share("tool_answered", "results of right calls said"),
  _quantile(
    "tool_latency_p50", "result to speech, median", "tool_latency", 0.5
  ),
  _quantile(
    "call_latency_p50", "question to call, median", "call_latency", 0.5
  ),
  Metric(
    "talk_through_tool",
    "talks while a tool works",
    "% of time",
    "talk_through_tool",
    Better.NEITHER,
    factor=100,
  ),
  *_duplex(
    _share("follow_overlap", "follows: share of user speech overlapped"),
    _quantile("follow_lag_p50", "follows: lag, median", "follow_lag", 0.5),
  ),
  _share("said_right", "of what came, says the right words"),
  *(
    dataclasses.replace(
      _share(f"{name}_{k}", f"{title}: {_KINDS[k]}"), reach=_reach(k)
    )
    for name, title in (
      ("done", "done in time"),
      ("right", "in time, right words"),
    )
    for k in chances.DUE
  ),
  _share("tool_unjudged", "results whose call nobody knows", Better.NEITHER),
  # Of recorded conversations without annotations.
  Metric(
    "call_score",
    "agreement with the recorded agent",
    "0..100",
    recorded.ONSETS,
    Better.HIGHER,
    Statistic.AGREEMENT,
  ),
  _share("onset_f1", "onsets within 0.4 s of the recorded, F1"),
  _share("took_floor", "takes the floor where the recorded agent does"),
  _quantile(
    "offset_error_p50", "|onset - recorded onset| there", "offset_error", 0.5
  ),
  _share("extra_floor", "takes the floor where it does not", Better.LOWER),
  *_duplex(
    _share("overlapped", "changes of floor before the end", Better.NEITHER),
    Metric(
      "backchannels",
      "backchannels of the agent",
      "/min",
      "backchannels",
      Better.NEITHER,
      digits=2,
    ),
  ),
  _share("talk_share", "time in which it speaks", Better.NEITHER),
  Metric(
    "speech_iou",
    "speech, IoU with the recorded",
    "0..1",
    "speech_iou",
    Better.HIGHER,
    digits=2,
  ),
)
# Beside the panel: of forced predictions, defined by `sums.Sums.scalars`.
CONTENT = (
  Metric(
    "text_accuracy", "text tokens right", "%", "", Better.HIGHER, factor=100
  ),
  Metric(
    "message_accuracy",
    "message tokens right",
    "%",
    "",
    Better.HIGHER,
    factor=100,
  ),
  Metric("text_loss", "text loss", "nats a token", "", Better.LOWER, digits=2),
  *(
    Metric(f"{name}_loss", f"{title} loss", "nats", "", Better.LOWER, digits=3)
    for name, title in (
      ("message", "message"),
      ("silence", "stays silent,"),
      ("onset", "begins to speak,"),
      ("going_on", "goes on speaking,"),
      ("stop", "stops speaking,"),
    )
  ),
  Metric("mel_db", "mel error, sampled", "dB RMS", "", Better.LOWER, digits=2),
  Metric(
    "mel_expected_db",
    "mel error, expected mel",
    "dB RMS",
    "",
    Better.LOWER,
    digits=2,
  ),
  Metric(
    "mel_mean_db",
    "mel error of the mean",
    "dB RMS",
    "",
    Better.NEITHER,
    digits=2,
  ),
)
# Read together or not at all.
HEADLINE = (
  "summary_score",
  "done",
  "right",
  "unasked_seconds",
  "false_fires",
  "responded",
  "latency_p50",
  "yielded",
  "selectivity_backchannel",
  "selectivity_side_talk",
)
# The same of recorded conversations.
CALLS = ("call_score",)
# What an item is ranked by: all of these, and how they count.
GOOD = ("done", "yielded", *floor.SELECTIVE.values(), "took_floor")
BAD = ("takeover", "premature", "extra_floor")


Events = list[tuple[float, float]]  # of one series: (value, weight)


@dataclasses.dataclass(frozen=True)
class Registered:
  """Metrics of one series that stand beside `METRICS`.

  Attributes:
    rows: the metrics.
    events: of the series, by what was heard in a log.
    definition: of the series, with its source.
  """

  rows: tuple[Metric, ...]
  events: Callable[[heard.Heard], Events]
  definition: str


REGISTERED: registry.Registry[Registered] = registry.Registry("series")


def register(*rows: Metric) -> Callable:
  """Decorator of the function that gives the events of a series, for `rows`.

  The function takes a `heard.Heard` and returns [(value, weight)] of one log,
  [] where the log says nothing. Its docstring is the definition, with the
  source, and stands in every report.

  Raises:
    errors.UserError: no docstring, rows of several series, or a name that is
      taken.
  """

  def decorator(function: Callable[[heard.Heard], Events]):
    where = registry.file_of(function.__module__)
    definition = inspect.getdoc(function)
    if not definition:
      raise errors.UserError(
        f"{where}: {function.__name__} has no docstring: write what the metric"
        " counts, and where that is from"
      )
    series = {row.series for row in rows}
    if len(series) != 1:
      raise errors.UserError(
        f"{where}: {function.__name__} gives one series, and its metrics name"
        f" {len(series)}: {', '.join(sorted(series))}"
      )
    for row in rows:
      if row.name in {m.name for m in (*metrics(), *CONTENT)}:
        raise errors.UserError(
          f"{where}: another metric is named {row.name!r}; give this one a name"
          " of its own"
        )
    (name,) = series
    if name in {m.series for m in METRICS} | {floor.RECORDED}:
      raise errors.UserError(
        f"{where}: {name!r} is a series of the panel; give this one a name of"
        " its own"
      )
    REGISTERED.add(
      name,
      thing=Registered(rows, function, definition),
      module=function.__module__,
    )
    return function

  return decorator


def metrics() -> tuple[Metric, ...]:
  """`METRICS`, and those that are registered."""
  added = (row for name in REGISTERED for row in REGISTERED[name].rows)
  return (*METRICS, *added)


def definitions() -> dict[str, str]:
  """Of the registered series, by title of their metrics."""
  return {
    row.title: REGISTERED[name].definition
    for name in REGISTERED
    for row in REGISTERED[name].rows
  }


def measure(log: Log) -> Series:
  """All series of one log.

  Raises:
    errors.UserError: it does not reach to the end of its conversation, or an
      annotation lacks what its kind asks for.
  """
  wanted = clock.TICKS.num_windows(log.duration)
  if len(log.ticks) < wanted - 1:  # the last one may be a rounding
    raise errors.UserError(
      f"the log of {log.id} has {len(log.ticks)} of {wanted} ticks: the agent"
      " decided nothing in the others; delete the log and hold it again"
    )
  found = heard.listen(log)
  series = floor.measure(found) | timed.measure(found)
  series |= recorded.measure(found)
  return series | {name: _registered(name, found) for name in REGISTERED}


def _registered(name: str, found: heard.Heard) -> Events:
  """The events of a registered series, checked."""
  function = REGISTERED[name].events
  events = function(found)
  if not all(isinstance(e, tuple) and len(e) == 2 for e in events):
    where = registry.file_of(function.__module__)
    raise errors.UserError(
      f"{where}: {function.__name__} must return [(value, weight), ...], not"
      f" {events!r:.80}"
    )
  return events


def score(item: Series) -> float:
  """What an item is ranked by: the share of events that went well, 0 to 1.

  Every unasked run counts as one that did not. NaN where nothing was asked.
  """
  good = [v / w for name in GOOD for v, w in item.get(name, ())]
  good += [1 - v for name in BAD for v, _ in item.get(name, ())]
  fires = sum(v for v, _ in item.get("false_fires", ()))
  return sum(good) / (len(good) + fires) if good else float("nan")
