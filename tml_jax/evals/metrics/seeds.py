"""Numbers of an arm that was trained with several seeds, and of two arms.

For: tables of trained arms. Not for: one evaluation (`statistics`). Start at
`summarise`, then `compare`.

A number of an arm is the mean over its seeds. A resample draws users, the same
for all seeds and both arms (they have met the same ones), and seeds, of each
arm by itself: so an interval says what other users and another training would
give. Of three seeds a bootstrap draws too little spread; it cannot do better
than what was trained. A share has the exact interval of Clopper and Pearson of
as many events as one seed has, too: three seeds that meet the same 38
interruptions are not 114.

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
  """Every metric that all seeds have; `events` are those of all together.

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
    counts = [
      sum(len(statistics.events_of(metric, item)) for item in items)
      for items in arm
    ]
    low, high = statistics.quantile_interval(mean_R[1:])
    value = Value(float(mean_R[0]), low, high, sum(counts))
    if all(statistics.is_share(metric, items) for items in arm):
      total = round(sum(counts) / len(counts))
      low, high = statistics.clopper_pearson(round(value.value * total), total)
      value = dataclasses.replace(
        value,
        low=float(np.fmin(value.low, low)),
        high=float(np.fmax(value.high, high)),
      )
    result[metric.name] = value
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
    apart_R = _means(metric, arm, weights_RI, draws=f"{seed}") - _means(
      metric, other, weights_RI, draws=f"{seed} other"
    )
    if not np.isnan(apart_R[0]):
      result[metric.name] = statistics.difference(apart_R)
  return result


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
