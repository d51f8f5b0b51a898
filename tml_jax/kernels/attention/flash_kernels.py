"""Pallas TPU kernel of attention with a bounded relative bias.

For: `flash.py`, which lays arrays out and cuts them over a mesh. Not for: CPU
and GPU (`cells.py`), except interpreted in tests. Start at `forward`;
`flash_gradient.py` is its gradient, `flash_pairs.py` has the grid and the bias.
The algorithm is FlashAttention's (arXiv 2205.14135).

Legend: B batch, K kv heads, G query heads of a kv head, T time, H head dim, R
d_rel, C blocks of the extent, M positions of a block.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from tml_jax.kernels.attention import flash_pairs as common


def _forward_kernel(
  *refs, static: common.Static, blocks: int, extents: int
):  # tables, inputs, outputs, scratch
  tables, refs = refs[:2], refs[2:]
  q_ref, k_ref, v_ref, r_ref, profiles_ref, rows_ref, keys_ref = refs[:7]
  out_ref, log_ref = refs[7:9]
  top_ref, total_ref, sum_ref, skew_ref, segments_ref = refs[9:]
  pair = common.Pair(
    pl.program_id(2),
    static=static,
    blocks=blocks,
    first_key=0,
    tables=tables,
    extents=extents,
  )
  group = q_ref.shape[2]

  @pl.when(pair.first)
  def _():
    top_ref[...] = jnp.full_like(top_ref, -jnp.inf)
    total_ref[...] = jnp.zeros_like(total_ref)
    sum_ref[...] = jnp.zeros_like(sum_ref)
    segments_ref[...] = common.column(rows_ref[0])
    common.each_head(
      group,
      lambda head: pair.start_bias(
        r_ref[0, 0, head], profiles_ref, skew_ref.at[head]
      ),
    )

  def body(kind):
    def one(head):
      v = v_ref[0, 0]
      scores = pair.scores(
        kind,
        q_ref[0, 0, head],
        k_ref[0, 0],
        r_ref[0, 0, head],
        profiles_ref=profiles_ref,
        skew_ref=skew_ref.at[head],
        mask=pair.mask(kind, segments_ref[...], keys_ref[0]),
      )
      old = top_ref[head]
      top = jnp.maximum(old, jnp.max(scores, axis=1, keepdims=True))
      weights = jnp.exp(scores - top[:, :1])
      shrink = jnp.exp(old - top)
      total_ref[head] = shrink * total_ref[head] + jnp.sum(
        weights, axis=1, keepdims=True
      )
      part = common.dot(weights.astype(v.dtype), v, (1, 0))
      sum_ref[head] = shrink[:, :1] * sum_ref[head] + part
      top_ref[head] = top

    common.each_head(group, one)

  pair.each_kind(body)

  @pl.when(pair.rel == 0)
  def _():
    for head in range(group):
      total = total_ref[head]
      out = sum_ref[head] / total[:, :1]
      out_ref[0, 0, head] = out.astype(out_ref.dtype)
      log_total = (top_ref[head] + jnp.log(total)).T
      log_ref[0, 0, head : head + 1] = log_total[:1]


def forward(
  static: common.Static,
  q_BKGTH: jax.Array,
  *,
  k_BKTH: jax.Array,
  v_BKTH: jax.Array,
  r_BKGRT: jax.Array,
  profiles_CRM: jax.Array,
  segments_B1T: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Outputs [B, K, G, T, H], logs of the softmax's denominators [B, K, G, T].

  Args:
    static: block and window.
    q_BKGTH: scaled queries; T a multiple of the block.
    k_BKTH: keys.
    v_BKTH: values.
    r_BKGRT: scaled, as q.
    profiles_CRM: as `flash.lay_out`.
    segments_B1T: float32 segment of each position.
  """
  batch, kv_heads, group, length, head_dim = q_BKGTH.shape
  block = static.block
  blocks, extents = length // block, profiles_CRM.shape[0]
  tables = common.pairs(
    blocks=blocks, reach=static.reach(blocks), keys=range(blocks)
  )[:2]
  spec = common.specs(q_BKGTH, profiles_CRM, block=block)
  scratch = pltpu.VMEM
  call = pl.pallas_call(
    functools.partial(
      _forward_kernel, static=static, blocks=blocks, extents=extents
    ),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=(batch, kv_heads, len(tables[0])),
      in_specs=[
        spec[name] for name in ("q", "k", "k", "r", "profiles", "rows", "keys")
      ],
      out_specs=[spec["q"], spec["log"]],
      scratch_shapes=[
        scratch((group, block, common.LANES), jnp.float32),
        scratch((group, block, common.LANES), jnp.float32),
        scratch((group, block, head_dim), jnp.float32),
        scratch((group, block, block), jnp.float32),
        scratch((block, common.LANES), jnp.float32),
      ],
    ),
    out_shape=[
      jax.ShapeDtypeStruct(q_BKGTH.shape, q_BKGTH.dtype),
      jax.ShapeDtypeStruct(q_BKGTH.shape[:4], jnp.float32),
    ],
    compiler_params=common.PARAMS,
    cost_estimate=common.cost(
      q_BKGTH,
      profiles_CRM,
      tables,
      block=block,
      products=2,
      skews=1,
      per_query=2,
    ),
    interpret=static.interpret,
    name="attention_forward",
  )
  return call(
    *tables,
    q_BKGTH,
    k_BKTH,
    v_BKTH,
    r_BKGRT,
    profiles_CRM,
    segments_B1T,
    segments_B1T,
  )
