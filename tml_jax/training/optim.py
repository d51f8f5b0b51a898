"""Optimizers: AdamW, or Muon for the trunk's matrices; learning-rate curves.

For: `optax` transformations from the config. Not for: applying them (`step`).
Start reading at `create`.
"""

import jax
import optax

from tml_jax.config import OptimConfig, Optimizer, Schedule
from tml_jax.models import layers

# Matrices that map hidden to hidden, with the dims they sum over and give,
# counted from the last; the others are batch dims (experts, scanned blocks).
# Embeddings, the router, convolutions
# and relative-bias profiles keep AdamW: they are tables, not maps
# (K. Jordan, Muon, 2024). The dMel bag is a map: 80 of its rows add up to a
# token. AdamW moves all of them the same way, and after 800 steps of `tiny`
# every sound looked the same (their mean held 84 % of the power, 36 % at the
# start); a digit that logistic regression tells apart stayed unheard.
_FROM_HIDDEN = optax.contrib.MuonDimensionNumbers(-3, (-2, -1))  # [D, N, H]
_TO_HIDDEN = optax.contrib.MuonDimensionNumbers((-3, -2), -1)  # [N, H, D]
_LAST_TWO = optax.contrib.MuonDimensionNumbers(-2, -1)  # [D, F], [E, D, F]
_SHARED_IN = optax.contrib.MuonDimensionNumbers(-3, -1)  # [D, S, F]
_MATRICES = {
  ("dmel", "table"): _LAST_TWO,
  ("attention", "query"): _FROM_HIDDEN,
  ("attention", "key"): _FROM_HIDDEN,
  ("attention", "value"): _FROM_HIDDEN,
  ("attention", "relative"): _FROM_HIDDEN,
  ("attention", "output"): _TO_HIDDEN,
  ("mlp", "gate"): _LAST_TWO,
  ("mlp", "up"): _LAST_TWO,
  ("mlp", "down"): _LAST_TWO,
  ("mlp", "shared_gate"): _SHARED_IN,
  ("mlp", "shared_up"): _SHARED_IN,
  ("mlp", "shared_down"): _LAST_TWO,
}


def create(config: OptimConfig, *, steps: int) -> optax.GradientTransformation:
  """The optimizer of a run of `steps` steps, with clipping and schedule."""
  if config.name == Optimizer.ADAMW:
    update = optax.adamw(
      schedule(config, peak=config.learning_rate, steps=steps),
      b1=config.b1,
      b2=config.b2,
      eps=config.eps,
      weight_decay=config.weight_decay,
      mask=_decayed,
    )
  else:
    update = optax.contrib.muon(
      schedule(config, peak=config.muon_learning_rate, steps=steps),
      beta=config.b2,
      weight_decay=config.weight_decay,
      adam_b1=config.b1,
      adam_b2=config.b2,
      adam_learning_rate=schedule(
        config, peak=config.learning_rate, steps=steps
      ),
      # Updates with AdamW's RMS whatever the shape (arXiv 2502.16982).
      consistent_rms=0.2,
      muon_weight_dimension_numbers=matrices,
    )
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), update)


def schedule(config: OptimConfig, *, peak: float, steps: int) -> optax.Schedule:
  """Linear warm-up to `peak`, then the named curve down to the final ratio."""
  decay_steps = max(1, steps - config.warmup_steps)
  final = peak * config.final_learning_rate_ratio
  curves = {
    Schedule.CONSTANT: optax.constant_schedule(peak),
    Schedule.COSINE: optax.cosine_decay_schedule(
      peak, decay_steps, config.final_learning_rate_ratio
    ),
    Schedule.LINEAR: optax.linear_schedule(peak, final, decay_steps),
  }
  warmup = optax.linear_schedule(0.0, peak, max(1, config.warmup_steps))
  return optax.join_schedules(
    [warmup, curves[config.schedule]], [config.warmup_steps]
  )


def matrices(params):
  """Muon's view of the parameters: axes of a matrix, or None for AdamW."""

  def axes(path, _):
    return _MATRICES.get(tuple(key.key for key in path[-2:]))

  return jax.tree_util.tree_map_with_path(axes, params)


def _decayed(params):
  """Weight decay applies to matrices, not to gains and biases."""

  def decayed(path, leaf):
    stacked = any(key.key == layers.BLOCKS for key in path)
    return leaf.ndim - stacked >= 2

  return jax.tree_util.tree_map_with_path(decayed, params)
