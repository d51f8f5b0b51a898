"""Where a size runs: `--config=experiments/interaction.py:NAME@TOPOLOGY`.

For: the table of sharding rules, and for each size and topology that we have
compiled the sizes of the mesh axes and how the step is cut. Not for: what is
learned; a row changes that only where memory forces it, and says so. Start
reading at `RULES`, then `ROWS`. TOPOLOGY is
FAMILY:AxBxC as Google names slices (v5p:8x8x8), with :N behind it for N slices
(v5p:8x8x8:2).
"""

import dataclasses
from typing import Any

from launch import xla_flags
from tml_jax import errors
from tml_jax.config import (
  AttentionForm,
  Config,
  Dtype,
  MoeDispatch,
  MoeMatmul,
  RematPolicy,
)
from tml_jax.config import mesh as mesh_config
from tml_jax.config import text as config_text
from tml_jax.parallel import chips

# Logical name of a dim -> mesh axes; a name without a rule is not sharded. One
# table serves all families: they differ in the sizes of the axes.
RULES = (
  "batch:data+fsdp+expert",  # every chip has sequences of its own
  "time:seq",
  "embed:fsdp+seq",  # weights are dealt out over pieces of sequences too
  "vocab:tensor",
  "heads:tensor",
  "kv_heads:tensor",
  "mlp:tensor",
  "flow:tensor",
  "experts:expert",
  "expert_mlp:tensor+fsdp+seq",
)
# "cpu" is for GPUs as well: no torus, the compiler divides the work.
FAMILIES = ("cpu", *chips.CHIPS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One size on one topology, with the reason in a comment beside it."""

  axes: dict[str, int]  # sizes; axes that are not named have 1
  fields: dict[str, Any]  # of Config: how it is cut and compiled
  flag_sets: tuple[str, ...] = ()  # names in launch/xla_flags.py


# For sizes whose own rows are for GPUs; all experts are on every chip.
_KERNELS = {
  "train.execution.attention": AttentionForm.PALLAS,
  "train.execution.moe_dispatch": MoeDispatch.ALL_GATHER,
  "train.execution.moe_matmul": MoeMatmul.MEGABLOX,
}
# 95 GiB a device: two sequences at once, and no expert runs twice.
_WHOLE_BATCH = {
  "train.accumulation_steps": 1,
  "train.remat_policy": RematPolicy.SAVE_EXPERTS,
}
# A sequence over a ring of 8 chips: 16,384 positions a chip, as above.
_LONG = dict(fsdp=8, expert=8, seq=8)
# Most exchanges go on beside the products, in them or on SparseCores.
_EXCHANGE_BESIDE_PRODUCTS = (
  "async_collective_fusion",
  "sparsecore_beside_fusion",
)
ROWS: dict[tuple[str, str], Row] = {
  # Experts over one ring of 8, everything else over the other two: with few
  # choices per token, gathering the tokens of a ring is 3.4 times cheaper
  # than sending each token to its experts over it.
  ("tml_interaction_small", "v5p:8x8x8"): Row(
    axes=dict(fsdp=64, expert=8),
    fields=_WHOLE_BATCH,
    flag_sets=_EXCHANGE_BESIDE_PRODUCTS,
  ),
  ("tml_interaction_small", "v5p:8x8x8:2"): Row(
    axes=dict(data=2, fsdp=64, expert=8),
    fields=_WHOLE_BATCH,
    flag_sets=(*_EXCHANGE_BESIDE_PRODUCTS, "data_parallel_overlap"),
  ),
  ("tml_interaction_small_32k", "v5p:8x8x8"): Row(
    axes=_LONG, fields=_WHOLE_BATCH, flag_sets=_EXCHANGE_BESIDE_PRODUCTS
  ),
  ("tml_interaction_small_128k", "v5p:8x8x8"): Row(
    axes=_LONG, fields=_WHOLE_BATCH, flag_sets=_EXCHANGE_BESIDE_PRODUCTS
  ),
  # 31.25 GiB of HBM: a sequence of a chip and no more, so 2.1 M tokens a step
  # (a second gradient to add to is 5.6 GiB); half the momentum; no average of
  # the weights (make one of checkpoints). Moments wait in the host: in their
  # room all exchanges go on beside the products.
  ("tml_interaction_small", "v6e:16x16"): Row(
    axes=dict(fsdp=16, expert=16),
    fields={
      "train.global_batch_size": 256,
      "train.accumulation_steps": 1,
      "train.execution.loss_chunk": 512,
      "train.optim.moment_dtype": Dtype.BFLOAT16,
      "train.optim.offload_moments": True,
      "train.optim.ema_decay": 0.0,
    },
    flag_sets=_EXCHANGE_BESIDE_PRODUCTS,
  ),
  # A device is a core: 512 of them, and SparseCores exchange beside it. Experts
  # over the two cores of a chip: over links, tokens would take longer than the
  # products. Weights are gathered over all chips, whatever the tokens: so there
  # are many, 82 thousand a chip and 21 M a step.
  ("tml_interaction_small", "tpu7x:4x8x8"): Row(
    axes=dict(fsdp=256, expert=2),
    fields={
      "train.global_batch_size": 2560,
      "train.accumulation_steps": 1,
      "train.remat_policy": RematPolicy.SAVE_OUTPUTS,
    },
  ),
  # The tiles of `medium`'s own rows are for GPUs: left to the compiler they do
  # not fit. Eight sequences of a chip at a time, or two in 31.25 GiB.
  ("medium", "v5p:2x2x2"): Row(
    axes=dict(fsdp=8), fields=_KERNELS | {"train.accumulation_steps": 4}
  ),
  ("medium", "v6e:2x4"): Row(
    axes=dict(fsdp=8), fields=_KERNELS | {"train.accumulation_steps": 16}
  ),
}


def on(config: Config, *, topology: str) -> Config:
  """`config` with the mesh of `topology`.

  A size without a row keeps its own axis sizes, to be set with
  --config.mesh.AXIS=SIZE.

  Raises:
    errors.UserError: no such family, the number of slices is none, or the row
      names a set of XLA flags that there is not.
  """
  family, _, rest = topology.partition(":")
  size, _, count = rest.partition(":")
  slices = int(count) if count.isdecimal() else 1
  if count not in ("", str(slices)) or slices < 1:
    raise errors.UserError(
      f"topology {topology!r}: {count!r} is no number of slices; write"
      f" {family}:{size} or {family}:{size}:2"
    )
  if family not in FAMILIES:
    raise errors.UserError(
      f"topology {topology!r}: experiments/topologies.py has no rules for"
      f" {family!r}; write one of {', '.join(FAMILIES)}, for instance v5p:8x8x8"
    )
  mesh = dataclasses.replace(config.mesh, rules=RULES, slices=slices)
  row = ROWS.get((config.name, topology))
  if row is not None:
    sizes = dict.fromkeys(mesh_config.AXES, 1) | row.axes
    options = xla_flags.resolve(row.flag_sets)
    mesh = dataclasses.replace(mesh, **sizes, compiler_options=options)
    config = config_text.with_fields(config, row.fields)
  return dataclasses.replace(config, mesh=mesh)
