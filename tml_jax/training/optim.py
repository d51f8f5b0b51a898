"""Optimizers: AdamW, or Muon for the trunk's matrices; learning-rate curves.

For: `optax` transformations from the config. Not for: applying them (`step`).
Start reading at `create`.
"""

import jax
import optax

from tml_jax.config import OptimConfig, Optimizer, Schedule
from tml_jax.models import stacking
from tml_jax.training import muon

# Matrices that map hidden to hidden: logical names, the dims they sum over and
# the dims they give, counted from the last; other dims are batch dims (experts,
# scanned blocks). Embeddings, the router, convolutions and relative-bias
# profiles keep AdamW: they are tables, not maps (K. Jordan, Muon, 2024). The
# dMel bag is a map: 80 of its rows add up to a token. AdamW moves all of them
# the same way, and after 800 steps of `tiny` every sound looked the same (their
# mean held 84 % of the power, 36 % at the start); a digit that logistic
# regression tells apart stayed unheard.
_QUERY = muon.Matrix(("embed", "heads", "head_dim"), (-3,), (-2, -1))
_KEY = muon.Matrix(("embed", "kv_heads", "head_dim"), (-3,), (-2, -1))
_IN = muon.Matrix(("embed", "mlp"), (-2,), (-1,))
_OUT = muon.Matrix(("mlp", "embed"), (-2,), (-1,))
_EXPERTS_IN = muon.Matrix(("experts", "embed", "mlp"), (-2,), (-1,))
_EXPERTS_OUT = muon.Matrix(("experts", "expert_mlp", "model"), (-2,), (-1,))
_MATRICES = {
  ("dmel", "table"): muon.Matrix(("levels", "embed"), (-2,), (-1,)),
  ("attention", "query"): _QUERY,
  ("attention", "key"): _KEY,
  ("attention", "value"): _KEY,
  ("attention", "relative"): muon.Matrix(
    ("embed", "heads", "d_rel"), (-3,), (-2, -1)
  ),
  ("attention", "output"): muon.Matrix(
    ("heads", "head_dim", "embed"), (-3, -2), (-1,)
  ),
  ("mlp", "gate"): _IN,
  ("mlp", "up"): _IN,
  ("mlp", "down"): _OUT,
  ("mlp", "shared_gate"): muon.Matrix(("embed", "shared", "mlp"), (-3,), (-1,)),
  ("mlp", "shared_up"): muon.Matrix(("embed", "shared", "mlp"), (-3,), (-1,)),
  ("mlp", "shared_down"): muon.Matrix(("shared", "mlp", "embed"), (-2,), (-1,)),
}
_EXPERTS = {
  ("mlp", "gate"): _EXPERTS_IN,
  ("mlp", "up"): _EXPERTS_IN,
  ("mlp", "down"): _EXPERTS_OUT,
}


def create(config: OptimConfig, *, steps: int) -> optax.GradientTransformation:
  """The optimizer of a run of `steps` steps, with clipping and schedule."""
  if config.name == Optimizer.ADAMW:
    update = _scoped(
      "adam",
      optax.adamw(
        schedule(config, peak=config.learning_rate, steps=steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        mu_dtype=str(config.moment_dtype),
        weight_decay=config.weight_decay,
        mask=_decayed,
      ),
    )
  else:
    update = optax.partition(
      {
        "muon": _scoped(
          "muon",
          optax.chain(
            muon.scale_by_muon(
              matrices, beta=config.b2, dtype=str(config.moment_dtype)
            ),
            optax.add_decayed_weights(config.weight_decay),
            optax.scale_by_learning_rate(
              schedule(config, peak=config.muon_learning_rate, steps=steps)
            ),
          ),
        ),
        "adam": _scoped(
          "adam",
          optax.nadamw(
            schedule(config, peak=config.learning_rate, steps=steps),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=0.0,
            mu_dtype=str(config.moment_dtype),
          ),
        ),
      },
      lambda params: jax.tree.map(
        lambda kind: "adam" if kind is None else "muon",
        matrices(params),
        is_leaf=lambda kind: kind is None,
      ),
    )
  clip = optax.clip_by_global_norm(config.clip_norm)
  return optax.chain(_scoped("clip", clip), update)


def _scoped(
  name: str, inner: optax.GradientTransformation
) -> optax.GradientTransformation:
  """The same, named in profiles."""
  return optax.GradientTransformation(
    inner.init, jax.named_scope(name)(inner.update)
  )


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


def rates(config: OptimConfig, *, step: int, steps: int) -> dict[str, float]:
  """Learning rates of the step with this number, from 1, as metrics."""
  peaks = {"learning_rate": config.learning_rate}
  if config.name == Optimizer.MUON:
    peaks["learning_rate/muon"] = config.muon_learning_rate
  return {
    name: float(schedule(config, peak=peak, steps=steps)(step - 1))
    for name, peak in peaks.items()
  }


def matrices(params):
  """Muon's view of the parameters: a `muon.Matrix`, or None for AdamW."""

  def kind(path, leaf):
    names = tuple(key.key for key in path[-2:])
    # A dense layer's matrices have the names of an expert's.
    stacked = stacking.stacked_dims([key.key for key in path])
    is_experts = names in _EXPERTS and leaf.ndim - stacked > 2
    return _EXPERTS[names] if is_experts else _MATRICES.get(names)

  return jax.tree_util.tree_map_with_path(kind, params)


def _decayed(params):
  """Weight decay applies to matrices, not to gains and biases."""

  def decayed(path, leaf):
    stacked = stacking.stacked_dims([key.key for key in path])
    return leaf.ndim - stacked >= 2

  return jax.tree_util.tree_map_with_path(decayed, params)
