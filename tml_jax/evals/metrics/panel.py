"""The interactivity panel: timing of conversations as numbers, no judge.

For: what logs of sessions say together, with intervals. Not for: definitions
(`floor`, `timed`) or tables (`show`). Start reading at `METRICS`, then
`summarise`; `register` is for a metric of your own. A log gives series of
events, an item is a log's series, a summary is every metric over all items
with the number of its events.

Latency alone rewards an agent that talks all the time, selectivity one that
never does: `HEADLINE` goes together, in every table.
"""

import dataclasses
import enum
import inspect
from collections.abc import Callable

import numpy as np

from tml_jax import errors, registry
from tml_jax.evals.metrics import floor, heard, recorded, timed
from tml_jax.evals.metrics.floor import Series
from tml_jax.logs.ticks import Log

MODEL = "model"  # the agent with weights, beside those of `dummies`
ALL = "all"  # families together
FEW_EVENTS = 10  # fewer are marked; tau-voice does not publish them
RESAMPLES = 1000
CONFIDENCE = 0.95
BINS = np.arange(-10, 16)  # ticks of floor transfers; the ends take the rest


class Statistic(enum.Enum):
  """How a series becomes a number."""

  RATIO = "ratio"  # sum of values over sum of weights
  QUANTILE = "quantile"  # a value that was measured, no interpolation
  DISTANCE = "distance"  # Jensen-Shannon, of floor transfers to the recorded


class Better(enum.Enum):
  """Which way a number is better; behind its title, an arrow."""

  HIGHER = " ↑"
  LOWER = " ↓"
  NEITHER = ""

  def __str__(self) -> str:
    return self.value


@dataclasses.dataclass(frozen=True)
class Metric:
  """A row of the panel.

  Attributes:
    name: in JSON files and in the metrics of training.
    title: for people.
    unit: of what is shown, the value times `factor`.
    series: of `floor`, `timed` or `recorded`, where it is defined, or of the
      function that it is registered over; "" for content.
    better: which way.
    statistic: of the series.
    quantile: where the statistic is one.
    factor: as said.
    digits: that are shown.
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


METRICS = (
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
  _rate("false_fires", "unasked speech"),
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
  _share("cue_hit", "cues hit"),
  _quantile("cue_delay_p50", "delay after a cue, median", "cue_delay", 0.5),
  _rate("cue_false_alarms", "false alarms beside cues"),
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
  _share("premature", "silent until, speaks before", Better.LOWER),
  _share("tool_answered", "results said"),
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
  _share("follow_overlap", "follows: share of user speech overlapped"),
  _quantile("follow_lag_p50", "follows: lag, median", "follow_lag", 0.5),
  _share("said_right", "says the right words"),
  # Of recorded conversations without annotations.
  _share("took_floor", "takes the floor where the recorded agent does"),
  _quantile(
    "offset_error_p50", "|onset - recorded onset| there", "offset_error", 0.5
  ),
  _share("extra_floor", "takes the floor where it does not", Better.LOWER),
  _share("overlapped", "changes of floor before the end", Better.NEITHER),
  Metric(
    "backchannels",
    "backchannels of the agent",
    "/min",
    "backchannels",
    Better.NEITHER,
    digits=2,
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
# Beside the panel: of forced predictions, defined by `content.Sums.scalars`.
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
  "responded",
  "latency_p50",
  "yielded",
  "selectivity_backchannel",
  "selectivity_side_talk",
  "false_fires",
)
# What an item is ranked by: all of these, and how they count.
GOOD = (
  "responded",
  "yielded",
  *floor.SELECTIVE.values(),
  "timed_hit_0.4",
  "cue_hit",
  "count_obo",
  "activity_iou",
  "pauc",
  "tool_answered",
  "follow_overlap",
  "took_floor",
)
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


@dataclasses.dataclass(frozen=True)
class Value:
  """A metric over items.

  Attributes:
    value: NaN where nothing was measured.
    low: of the confidence interval, by bootstrap over items; NaN too.
    high: of it.
    events: that were counted; of a rate per minute, the logs.
  """

  value: float
  low: float
  high: float
  events: int


def measure(log: Log) -> Series:
  """All series of one log."""
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


def summarise(
  items: list[Series],
  *,
  metrics: tuple[Metric, ...] = METRICS,
  seed: int = 0,
  resamples: int = RESAMPLES,
) -> dict[str, Value]:
  """Every metric over `items`, by name; the intervals depend on `seed`."""
  random = np.random.default_rng(seed)
  count = len(items)
  weights_RI = np.ones((1, count))  # the first row is the sample itself
  if count > 1:
    drawn = random.multinomial(count, np.full(count, 1 / count), resamples)
    weights_RI = np.concatenate([weights_RI, drawn])
  return {m.name: _value(m, items, weights_RI) for m in metrics}


def scalars(values: dict[str, Value]) -> dict[str, float]:
  """The values alone."""
  return {name: value.value for name, value in values.items()}


def _value(
  metric: Metric, items: list[Series], weights_RI: np.ndarray
) -> Value:
  """R resamples of I items; E events."""
  series = [item.get(metric.series, []) for item in items]
  item_E = np.repeat(np.arange(len(items)), [len(s) for s in series])
  value_E, weight_E = np.array([e for s in series for e in s]).reshape(-1, 2).T
  if not len(value_E):
    return Value(float("nan"), float("nan"), float("nan"), 0)
  count_RE = weights_RI[:, item_E]
  if metric.statistic == Statistic.RATIO:
    with np.errstate(invalid="ignore", divide="ignore"):
      found_R = (count_RE @ value_E) / (count_RE @ weight_E)
  elif metric.statistic == Statistic.QUANTILE:
    found_R = _quantiles(value_E, count_RE, metric.quantile)
  else:
    recorded = [item.get(floor.RECORDED, []) for item in items]
    if not any(recorded):
      return Value(float("nan"), float("nan"), float("nan"), len(value_E))
    found_R = _js_distance(
      weights_RI @ np.stack([histogram(s) for s in series]),
      weights_RI @ np.stack([histogram(s) for s in recorded]),
    )
  resampled = found_R[1:][np.isfinite(found_R[1:])]
  low = high = float("nan")  # of one item there is no interval
  if len(resampled):
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
  return Value(float(found_R[0]), float(low), float(high), len(value_E))


def _quantiles(
  value_E: np.ndarray, count_RE: np.ndarray, q: float
) -> np.ndarray:
  """[R]: the smallest value that a share q of the events does not exceed."""
  order = np.argsort(value_E, kind="stable")
  total_RE = np.cumsum(count_RE[:, order], axis=1)
  wanted_R1 = np.maximum(q * total_RE[:, -1:], 1e-9)
  found_R = value_E[order][np.argmax(total_RE >= wanted_R1 - 1e-9, axis=1)]
  return np.where(total_RE[:, -1] > 0, found_R, np.nan)


def histogram(series: list[tuple[float, float]]) -> np.ndarray:
  """[`BINS`] counts of floor transfers in ticks."""
  ticks = np.array([value for value, _ in series], int)
  clipped = np.clip(ticks, BINS[0], BINS[-1])
  return np.array([(clipped == b).sum() for b in BINS], float)


def _js_distance(a_RB: np.ndarray, b_RB: np.ndarray) -> np.ndarray:
  """[R] square root of the Jensen-Shannon divergence in bits, 0 to 1.

  Full-Duplex-Bench takes nats, so its most is 0.833, and 1 where an agent has
  no event; here that is NaN.
  """
  with np.errstate(invalid="ignore", divide="ignore"):
    p_RB = a_RB / a_RB.sum(axis=1, keepdims=True)
    q_RB = b_RB / b_RB.sum(axis=1, keepdims=True)
    middle_RB = (p_RB + q_RB) / 2

    def divergence(x_RB):
      terms = np.where(x_RB > 0, x_RB * np.log2(x_RB / middle_RB), 0.0)
      return terms.sum(axis=1)

    result = np.sqrt(np.maximum(divergence(p_RB) + divergence(q_RB), 0) / 2)
  empty = (a_RB.sum(axis=1) == 0) | (b_RB.sum(axis=1) == 0)
  return np.where(empty, np.nan, result)
