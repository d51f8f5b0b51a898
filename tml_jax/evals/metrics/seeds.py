"""Numbers of an arm that was trained with several seeds, and of two arms.

For: tables of trained arms. Not for: one evaluation (`statistics`). Start at
`summarise`, then `compare`.

A number of an arm is the mean over its seeds. A resample draws users, the same
for all seeds and both arms (they have met the same ones), and seeds, of each
arm by itself: so an interval says what other users and another training would
give. Of three seeds a bootstrap draws too little spread; it cannot do better
than what was trained. A share has the exact interval of Clopper and Pearson of
as many events as one seed has, too: three seeds that meet the same 38
interruptions are not 114. A difference of shares is at least as uncertain as
both are together (Newcombe, Statist. Med. 17, 1998, method 10, with exact
intervals): a bootstrap of 100 % less 0 % has no width.

Dimensions: S seeds, R resamples, I items.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

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
    mean_R = _means(metric, arm, weights_RI, draws=f"{seed}")
    if np.isnan(mean_R[0]):
      continue
    mean = float(mean_R[0])
    low, high = statistics.quantile_interval(mean_R[1:])
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
    ours_R = _means(metric, arm, weights_RI, draws=f"{seed}")
    theirs_R = _means(metric, other, weights_RI, draws=f"{seed} other")
    found = statistics.difference(ours_R - theirs_R)
    if np.isnan(found.value):
      continue
    ours, theirs = float(ours_R[0]), float(theirs_R[0])
    low, high = _exact(metric, arm, mean=ours)
    other_low, other_high = _exact(metric, other, mean=theirs)
    result[metric.name] = dataclasses.replace(
      found,
      low=float(
        np.fmin(
          found.low, found.value - np.hypot(ours - low, other_high - theirs)
        )
      ),
      high=float(
        np.fmax(
          found.high, found.value + np.hypot(high - ours, theirs - other_low)
        )
      ),
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


def _means(
  metric: Metric, arm: Arm, weights_RI: np.ndarray, *, draws: str
) -> np.ndarray:
  """[1 + R] means over seeds, which are drawn as `draws` decides."""
  found_SR = np.stack(
    [statistics.resampled(metric, items, weights_RI) for items in arm]
  )
  count, resamples = found_SR.shape
  random = np.random.default_rng([*draws.encode()])
  drawn_SR = random.integers(count, size=found_SR.shape)
  drawn_SR[:, 0] = np.arange(count)  # first, once each
  return found_SR[drawn_SR, np.arange(resamples)].mean(axis=0)
