"""Sizes on equal data: `--config=experiments/scaling.py:SIZE`.

For: "does interactivity scale?", with `python -m tml_jax.ablate
--config=experiments/scaling.py --rows=all --figure=scaling`. Not for: sizes
to train in earnest (`interaction.py`). Every size sees the same sequences in
the same order: data and batch are those of `interaction.py:interactive`. The
flow head grows with the trunk; experts stay 8, of which 2 and a shared one are
active. On 2 cores a step takes about 0.1, 0.4, 0.7 and 3.3 s (`tiny`'s 0.6 s,
measured, times the FLOPs of `training/flops.py`): an hour a seed, to which
evaluations come. --evaluate_flag=--count=16 keeps these short.
"""

import dataclasses
from typing import Any

from experiments import interaction
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.evals.ablation import Row

BASE = "interactive"  # of interaction.py
_STEPS, _EVALUATE_EVERY = 800, 200  # points of a curve


def _size(
  *,
  d_model: int,
  layers: str,
  heads: int,
  head_dim: int,
  flow_width: int,
  flow_depth: int,
) -> dict[str, Any]:
  """Two query heads a key head; experts as wide as the model, as in `tiny`."""
  changes = {
    "model.d_model": d_model,
    "model.num_layers": len(layers),
    "model.attention_pattern": layers,
    "model.expert_d_ff": d_model,
    "model.d_ff": 3 * d_model,
    "model.flow.width": flow_width,
    "model.flow.depth": flow_depth,
  }
  for prefix in ("model.", "model.swa_"):
    changes |= {
      f"{prefix}num_heads": heads,
      f"{prefix}num_kv_heads": heads // 2,
      f"{prefix}head_dim": head_dim,
    }
  return changes


_QUESTION = "does interactivity scale?"
ROWS: dict[str, Row] = {
  name: Row(question=_QUESTION, changes=changes)
  for name, changes in {
    "active_0.3m": _size(
      d_model=32,
      layers="LG",
      heads=2,
      head_dim=16,
      flow_width=48,
      flow_depth=2,
    ),
    "active_1.4m": _size(
      d_model=96,
      layers="LLLG",
      heads=4,
      head_dim=24,
      flow_width=128,
      flow_depth=2,
    ),
    # The base itself.
    "active_3.2m": _size(
      d_model=128,
      layers="LLLG",
      heads=4,
      head_dim=32,
      flow_width=256,
      flow_depth=3,
    ),
    "active_9.6m": _size(
      d_model=256,
      layers="LLLGLG",
      heads=8,
      head_dim=32,
      flow_width=384,
      flow_depth=3,
    ),
  }.items()
}


def base() -> Config:
  """What all sizes share."""
  config = interaction.get_config(BASE)
  train = dataclasses.replace(
    config.train, steps=_STEPS, evaluate_every=_EVALUATE_EVERY
  )
  return dataclasses.replace(config, train=train)


def get_config(name: str = "active_3.2m") -> Config:
  """The config of a size."""
  return config_flags.config_of_row(
    name,
    changes={row: ROWS[row].changes for row in ROWS},
    base=base(),
    file="experiments/scaling.py",
  )
