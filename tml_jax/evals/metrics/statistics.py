"""Numbers over many conversations: values, intervals, comparisons.

For: series of items as metrics with intervals; two agents on the same users.
Not for: what a metric is (`panel`). Start at `summarise`, then `compare`.

An interval is that of a bootstrap over conversations, whose events hang
together. A share of yes and no has the exact one of Clopper and Pearson
(Biometrika 26, 1934) as well, and the wider of both counts on either side: a
bootstrap of 38 yields of 38 has no width, and the truth may be 91 %.
Dimensions: R resamples, I items, E events, B bins.
"""

import dataclasses
import functools

import numpy as np
from scipy import stats

from tml_jax.evals.metrics import chances, floor, panel, recorded, score
from tml_jax.evals.metrics.floor import Series
from tml_jax.evals.metrics.panel import Better, Metric, Statistic

RESAMPLES = 1000
COMPARED = 5_000  # of a comparison: `resamples_for`
CONFIDENCE = 0.95
# What summary scores count.
_KINDS = {Statistic.SUMMARY: chances.DUE, Statistic.SHARED: chances.EITHER}
BINS = np.arange(-10, 16)  # ticks of floor transfers; the ends take the rest


@dataclasses.dataclass(frozen=True)
class Value:
  """A metric over items.

  Attributes:
    value: NaN where nothing was measured.
    low: of the confidence interval; NaN where there is none.
    high: of it.
    events: that were counted; of a rate per minute, the logs.
  """

  value: float
  low: float
  high: float
  events: int


@dataclasses.dataclass(frozen=True)
class Difference:
  """One agent less another in a metric, on the same users.

  Attributes:
    value: NaN where one of them has none.
    low: of the interval by paired bootstrap.
    high: of it.
    p: that there is no difference: twice the share of resamples on the other
      side of 0 or at it.
    p_holm: the same for all comparisons together; `holm`.
  """

  value: float
  low: float
  high: float
  p: float
  p_holm: float = float("nan")


def summarise(
  items: list[Series],
  *,
  metrics: tuple[Metric, ...] = panel.METRICS,
  seed: int = 0,
  resamples: int = RESAMPLES,
) -> dict[str, Value]:
  """Every metric over `items`, by name; the intervals depend on `seed`."""
  weights_RI = weights_of(len(items), seed=seed, resamples=resamples)
  found = {m.name: _value(m, items, weights_RI) for m in metrics}
  if resamples:
    found |= {
      m.name: _at_least_exact(found[m.name], m, items=items) for m in metrics
    }
  return found


def sides(items: list[Series]) -> dict[str, float]:
  """The sides of the summary score over `items`; `score.sides`."""
  once = np.ones((1, len(items)))
  shares = {
    name: _ratio(items, name, once) for name in score.series(chances.DUE)
  }
  return {name: float(side[0]) for name, side in score.sides(shares).items()}


def scalars(values: dict[str, Value]) -> dict[str, float]:
  """The values alone."""
  return {name: value.value for name, value in values.items()}


def compare(
  items: list[Series],
  others: list[Series],
  *,
  metrics: tuple[Metric, ...] = panel.METRICS,
  seed: int = 0,
  resamples: int = COMPARED,
) -> dict[str, Difference]:
  """Differences of two agents on the same users, of what both have.

  Args:
    items: series of one agent, a user each.
    others: of the other one, the same users in the same order.
    metrics: to compare.
    seed: of the resamples, which draw users.
    resamples: how many.

  Raises:
    ValueError: other numbers of users.
  """
  if len(items) != len(others):
    raise ValueError(f"{len(items)} users of one agent, {len(others)} of other")
  weights_RI = weights_of(len(items), seed=seed, resamples=resamples)
  result = {}
  for metric in metrics:
    apart_R = resampled(metric, items, weights_RI) - resampled(
      metric, others, weights_RI
    )
    if not np.isnan(apart_R[0]):
      result[metric.name] = difference(apart_R)
  return result


def resamples_for(comparisons: int) -> int:
  """How many a comparison takes that is one of so many.

  No p is below 2 / (R + 1), and Holm's smallest is that times all of them:
  below 0.05 must be within reach.
  """
  return max(COMPARED, 80 * comparisons)


def difference(apart_R: np.ndarray) -> Difference:
  """Of the difference that was found, and those of all resamples."""
  drawn_R = apart_R[1:][np.isfinite(apart_R[1:])]
  p = float("nan")
  if len(drawn_R):
    fewer = min((drawn_R <= 0).sum(), (drawn_R >= 0).sum())
    p = min(1.0, 2 * (fewer + 1) / (len(drawn_R) + 1))
  return Difference(float(apart_R[0]), *quantile_interval(drawn_R), p=float(p))


def lost(metric: Metric, ours: Value, theirs: Value) -> float:
  """How much worse ours is, as a share of the larger one; below 0: better.

  Of shares and rates -1 to 1; `metric` has a better side.
  """
  more = theirs.value - ours.value
  if metric.better is Better.LOWER:
    more = -more
  return more / max(abs(ours.value), abs(theirs.value), 1e-9)


def holm(found: dict[str, dict[str, Difference]]) -> dict[str, dict]:
  """Every comparison with its p for all of them together.

  Holm (Scand. J. Stat. 6, 1979): the i-th smallest of m is multiplied by
  m - i + 1, and none is smaller than the one before.
  """
  known = sorted(
    (d.p, agent, name)
    for agent, differences in found.items()
    for name, d in differences.items()
    if not np.isnan(d.p)
  )
  result = {agent: dict(differences) for agent, differences in found.items()}
  largest = 0.0
  for i, (p, agent, name) in enumerate(known):
    largest = max(largest, min(1.0, (len(known) - i) * p))
    result[agent][name] = dataclasses.replace(
      result[agent][name], p_holm=largest
    )
  return result


def clopper_pearson(count: int, total: int) -> tuple[float, float]:
  """Exact interval of a share, `count` of `total` events."""
  tail = (1 - CONFIDENCE) / 2
  low = stats.beta.ppf(tail, count, total - count + 1) if count else 0.0
  high = 1.0
  if count < total:
    high = stats.beta.ppf(1 - tail, count + 1, total - count)
  return float(low), float(high)


@functools.lru_cache(maxsize=2)  # all agents of a report have the same
def weights_of(count: int, *, seed: int, resamples: int) -> np.ndarray:
  """[1 + R, I] how often every item is drawn; first, once each."""
  weights_RI = np.ones((1, count))
  if count > 1:
    random = np.random.default_rng(seed)
    drawn = random.multinomial(count, np.full(count, 1 / count), resamples)
    weights_RI = np.concatenate([weights_RI, drawn])
  return weights_RI


def _value(
  metric: Metric, items: list[Series], weights_RI: np.ndarray
) -> Value:
  """The metric of I items, with an interval where there are resamples."""
  found_R = resampled(metric, items, weights_RI)
  count = sum(len(events_of(metric, item)) for item in items)
  low, high = quantile_interval(found_R[1:])
  return Value(float(found_R[0]), low, high, count)


def _at_least_exact(
  value: Value, metric: Metric, *, items: list[Series]
) -> Value:
  """No narrower than the exact interval, where there is one."""
  if not is_share(metric, items):
    return value
  events = [e for item in items for e in events_of(metric, item)]
  low, high = clopper_pearson(int(sum(v for v, _ in events)), len(events))
  return dataclasses.replace(
    value,
    low=float(np.fmin(value.low, low)),
    high=float(np.fmax(value.high, high)),
  )


def is_share(metric: Metric, items: list[Series]) -> bool:
  """Whether a metric counts events that are yes or no, and there are some."""
  events = {e for item in items for e in events_of(metric, item)}
  return metric.unit == "%" and bool(events) and events <= {(0, 1), (1, 1)}


def events_of(metric: Metric, item: Series) -> list[tuple[float, float]]:
  """What a metric counts in an item."""
  if metric.statistic in _KINDS:
    names = score.events(_KINDS[metric.statistic])
    return [e for name in names for e in item.get(name, ())]
  return item.get(metric.series, [])


def quantile_interval(found_R: np.ndarray) -> tuple[float, float]:
  """Of resamples; NaN without any."""
  finite = found_R[np.isfinite(found_R)]
  if not len(finite):
    return float("nan"), float("nan")
  tail = (1 - CONFIDENCE) / 2
  low, high = np.quantile(finite, [tail, 1 - tail])
  return float(low), float(high)


def resampled(
  metric: Metric, items: list[Series], weights_RI: np.ndarray
) -> np.ndarray:
  """[R] the metric of every resample, NaN where it has no event.

  Args:
    metric: as said.
    items: I series.
    weights_RI: `weights_of`.
  """
  if metric.statistic in _KINDS:
    kinds = _KINDS[metric.statistic]
    return score.summary(
      {n: _ratio(items, n, weights_RI) for n in score.series(kinds)},
      kinds=kinds,
    )
  if metric.statistic == Statistic.AGREEMENT:
    names = (*recorded.SOUNDS, recorded.ONSETS)
    return recorded.agreement(
      {name: _ratio(items, name, weights_RI) for name in names}
    )
  if metric.statistic == Statistic.RATIO:
    return _ratio(items, metric.series, weights_RI)
  if metric.statistic == Statistic.QUANTILE:
    item_E, value_E, _ = _events(items, metric.series)
    if not len(value_E):
      return np.full(len(weights_RI), np.nan)
    return _quantiles(value_E, weights_RI[:, item_E], metric.quantile)
  if not items:
    return np.full(len(weights_RI), np.nan)
  made_RB, recorded_RB = (
    weights_RI @ np.stack([histogram(item.get(s, [])) for item in items])
    for s in (metric.series, floor.RECORDED)
  )
  return _js_distance(made_RB, recorded_RB)


def _events(
  items: list[Series], series: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """[E] the item, value and weight of every event."""
  found = [item.get(series, []) for item in items]
  item_E = np.repeat(np.arange(len(items)), [len(s) for s in found])
  pairs = np.array([e for s in found for e in s], float).reshape(-1, 2)
  return item_E.astype(int), pairs[:, 0], pairs[:, 1]


def _ratio(
  items: list[Series], series: str, weights_RI: np.ndarray
) -> np.ndarray:
  """[R] sum of values over sum of weights."""
  item_E, value_E, weight_E = _events(items, series)
  if not len(value_E):
    return np.full(len(weights_RI), np.nan)
  value_I, weight_I = (
    np.bincount(item_E, of_E, minlength=len(items))
    for of_E in (value_E, weight_E)
  )
  with np.errstate(invalid="ignore", divide="ignore"):
    return (weights_RI @ value_I) / (weights_RI @ weight_I)


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
