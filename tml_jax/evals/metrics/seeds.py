"""Numbers of an arm that was trained with several seeds, and of two arms.

For: tables of trained arms. Not for: one evaluation (`statistics`). Start at
`summarise`, then `compare`.

A number of an arm is the mean over its seeds. Another training would give
another number, and so would other users. With several seeds of each arm the
variance of a mean is that over resampled users (the same for all seeds and both
arms: they have met the same ones) plus that of its seeds over their number, and
intervals and p are those of Student's t with the degrees of freedom of Welch
and Satterthwaite (Biometrika 34, 1947): of three seeds two to four, so wide. A
bootstrap of three seeds draws too little: where there is no difference it calls
a quarter of them significant at 5 %. One seed says nothing of another training:
its intervals are those of other users alone.

A share has the exact interval of Clopper and Pearson of as many events as one
seed has, too: three seeds that meet the same 38 interruptions are not 114. A
difference of shares is at least as uncertain as both are together (Newcombe,
Statist. Med. 17, 1998, method 10, with exact intervals): a bootstrap of 100 %
less 0 % has no width.

Dimensions: S seeds, R resamples, I items.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from tml_jax.evals.metrics import statistics
from tml_jax.evals.metrics.floor import Series
from tml_jax.evals.metrics.panel import Metric
from tml_jax.evals.metrics.statistics import Difference, Value

Arm = Sequence[list[Series]]  # of each seed, the same users in the same order


def summarise(
  arm: Arm,
  *,
  metrics: tuple[Metric, ...],
  seed: int = 0,
  resamples: int = statistics.RESAMPLES,
) -> dict[str, Value]:
  """Every metric that all seeds have; `events` are of the seed with fewest.

  Args:
    arm: series.
    metrics: as said.
    seed: of the resamples.
    resamples: how many.

  Raises:
    ValueError: other numbers of users, or no seed.
  """
  weights_RI = _users([arm], seed=seed, resamples=resamples)
  result = {}
  for metric in metrics:
    found_SR = _found(metric, arm, weights_RI)
    mean = float(found_SR[:, 0].mean())
    if np.isnan(mean):
      continue
    spread = _difference(found_SR)
    least, most = _bounds(metric, arm)
    low, high = max(spread.low, least), min(spread.high, most)
    exact_low, exact_high = _exact(metric, arm, mean=mean)
    result[metric.name] = Value(
      mean,
      low=float(np.fmin(low, exact_low)),
      high=float(np.fmax(high, exact_high)),
      events=_events(metric, arm),
    )
  return result


def compare(
  arm: Arm,
  other: Arm,
  *,
  metrics: tuple[Metric, ...],
  seed: int = 0,
  resamples: int = statistics.COMPARED,
) -> dict[str, Difference]:
  """One arm less the other in every metric that all seeds of both have.

  Args:
    arm: series.
    other: of the other one; the same users in the same order.
    metrics: as said.
    seed: of the resamples.
    resamples: how many.

  Raises:
    ValueError: other numbers of users, or no seed.
  """
  weights_RI = _users([arm, other], seed=seed, resamples=resamples)
  result = {}
  for metric in metrics:
    ours_SR = _found(metric, arm, weights_RI)
    theirs_SR = _found(metric, other, weights_RI)
    found = _difference(ours_SR, theirs_SR)
    if np.isnan(found.value):
      continue
    ours, theirs = float(ours_SR[:, 0].mean()), float(theirs_SR[:, 0].mean())
    own_low, own_high = _exact(metric, arm, mean=ours)
    other_low, other_high = _exact(metric, other, mean=theirs)
    low = np.fmin(
      found.low, found.value - np.hypot(ours - own_low, other_high - theirs)
    )
    high = np.fmax(
      found.high, found.value + np.hypot(own_high - ours, theirs - other_low)
    )
    least, most = _bounds(metric, arm)
    apart = most - least  # no two values are further
    result[metric.name] = dataclasses.replace(
      found, low=float(max(low, -apart)), high=float(min(high, apart))
    )
  return result


def _events(metric: Metric, arm: Arm) -> int:
  """Of the seed that has fewest."""
  return min(
    sum(len(statistics.events_of(metric, item)) for item in items)
    for items in arm
  )


def _exact(metric: Metric, arm: Arm, *, mean: float) -> tuple[float, float]:
  """Exact interval of a share, with the events of one seed; else NaN."""
  if not all(statistics.is_share(metric, items) for items in arm):
    return float("nan"), float("nan")
  total = _events(metric, arm)
  return statistics.clopper_pearson(round(mean * total), total)


def _users(arms: Sequence[Arm], *, seed: int, resamples: int) -> np.ndarray:
  """[1 + R, I] how often every user is drawn."""
  counts = {len(items) for arm in arms for items in arm}
  if len(counts) != 1 or not all(arms):
    raise ValueError(f"arms of {sorted(counts)} users, or one without a seed")
  return statistics.weights_of(counts.pop(), seed=seed, resamples=resamples)


def _found(metric: Metric, arm: Arm, weights_RI: np.ndarray) -> np.ndarray:
  """[S, 1 + R] the metric of each seed; first of all users, once each."""
  return np.stack(
    [statistics.resampled(metric, items, weights_RI) for items in arm]
  )


def _difference(
  ours_SR: np.ndarray, theirs_SR: np.ndarray | None = None
) -> Difference:
  """Of the mean over seeds, less that of another arm if there is one."""
  arms, apart_R = [ours_SR], ours_SR.mean(axis=0)
  if theirs_SR is not None:
    arms, apart_R = [ours_SR, theirs_SR], apart_R - theirs_SR.mean(axis=0)
  found = statistics.difference(apart_R)
  if min(map(len, arms)) == 1 or np.isnan(found.value):
    return found
  drawn_R = apart_R[1:][np.isfinite(apart_R[1:])]
  if not len(drawn_R):
    return found
  of_seeds = [x[:, 0].var(ddof=1) / len(x) for x in arms]
  variance = drawn_R.var(ddof=1) + sum(of_seeds)
  if not variance:  # all seeds and users agree: no t, so that of the resamples
    return found
  freedom = np.inf
  if any(of_seeds):
    freedom = variance**2 / sum(
      v**2 / (len(x) - 1) for v, x in zip(of_seeds, arms, strict=True)
    )
  error = np.sqrt(variance)
  tail = (1 - statistics.CONFIDENCE) / 2
  reach = stats.t.isf(tail, freedom) * error
  return Difference(
    found.value,
    low=float(found.value - reach),
    high=float(found.value + reach),
    p=float(2 * stats.t.sf(abs(found.value) / error, freedom)),
  )


def _bounds(metric: Metric, arm: Arm) -> tuple[float, float]:
  """What a metric cannot be below or above."""
  most = {"%": 1.0, "0..1": 1.0, "0..100": 100.0}.get(metric.unit, np.inf)
  events = (
    value
    for items in arm
    for item in items
    for value, _ in statistics.events_of(metric, item)
  )
  return (0.0 if min(events, default=-1.0) >= 0 else -np.inf), most
