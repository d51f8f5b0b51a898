"""Pallas TPU kernel of the gradient of attention with a relative bias.

For: `flash.py`. Not for: the outputs (`flash_kernels.py`). Start at `backward`.

Every pair of blocks is visited once, and its scores are computed again from
the saved denominators. Sums for queries stay in VMEM while their query block
lasts, sums for keys and values in a ring with a slot for each key block in
reach, written out after the last query that sees it. The gradient of a skewed
block of the bias is made up of the d_scores of two pairs, then rotated back and
multiplied. Where the ring would not fit VMEM, the keys come in several calls,
each of which adds to the sums for queries of the one before.

Legend: B batch, K kv heads, G query heads of a kv head, T time, S keys of a
call, H head dim, R d_rel, C blocks of the extent, M positions of a block.
"""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from tml_jax.kernels.attention import flash_pairs as common

# Positions of keys in one call: 16 MiB of float32 sums at head dim 128.
_RING = 16384


@flax.struct.dataclass
class Gradients:
  q_BKGTH: jax.Array
  k_BKTH: jax.Array
  v_BKTH: jax.Array
  r_BKGRT: jax.Array
  profiles_BKCRM: jax.Array  # float32, to be summed over B and K


class _Refs:
  """The kernel's arguments by name."""

  def __init__(self, refs, *, carry: bool):
    self.tables = refs[:4]
    names = "q k v r profiles rows keys out log d_out"
    names += " old_d_q old_d_r" if carry else ""
    names += " d_q d_r d_k d_v d_profiles"
    names += " q_sum r_sum k_sum v_sum skew d_skew segments top delta"
    for name, ref in zip(names.split(), refs[4:], strict=True):
      setattr(self, name, ref)


def _start(refs, pair, *, carry: bool):
  """First pair of a query block."""
  group = refs.q.shape[2]
  refs.segments[...] = common.column(refs.rows[0])
  if carry:
    refs.q_sum[...] = refs.old_d_q[0, 0]
    refs.r_sum[...] = refs.old_d_r[0, 0]
  else:
    refs.q_sum[...] = jnp.zeros_like(refs.q_sum)
    refs.r_sum[...] = jnp.zeros_like(refs.r_sum)
  refs.d_skew[...] = jnp.zeros_like(refs.d_skew)
  for head in range(group):
    product = refs.d_out[0, 0, head].astype(jnp.float32)
    product *= refs.out[0, 0, head].astype(jnp.float32)
    delta = jnp.sum(product, axis=1, keepdims=True)
    refs.delta[head] = jnp.broadcast_to(delta, refs.delta.shape[1:])
    refs.top[head] = common.column(refs.log[0, 0, head : head + 1])
  common.each_head(
    group,
    lambda head: pair.start_bias(
      refs.r[0, 0, head], refs.profiles, refs.skew.at[head]
    ),
  )


def _add_bias(refs, head, d_skew, extent):
  """Gradient of one skewed block to r and the profiles."""
  r = refs.r[0, 0, head]
  d_product = common.unskew(d_skew).astype(r.dtype)
  refs.r_sum[head] += common.dot(refs.profiles[extent], d_product, (1, 1))
  refs.d_profiles[0, 0, extent] += common.dot(r, d_product, (1, 0))


def _bias_gradient(refs, pair, kind, head, d_scores, *, last):
  """Passes d_scores of a pair on to the one or two skewed blocks it has."""
  if kind == "far":
    return
  if kind == "own":
    both = jnp.where(pair.lower, d_scores, refs.d_skew[head])
    _add_bias(refs, head, both, 0)
    return

  @pl.when(pair.rel < pair.extents)
  def _():
    both = jnp.where(pair.lower, d_scores, refs.d_skew[head])
    _add_bias(refs, head, both, pair.rel)

  refs.d_skew[head] = d_scores

  @pl.when(last)  # the pair that has the other part is in another call
  def _():
    _add_bias(refs, head, jnp.where(pair.lower, 0.0, d_scores), pair.rel - 1)


def _kernel(*refs, carry: bool, **keywords):
  refs = _Refs(refs, carry=carry)
  # Calls of one shape: those with fewer pairs rest at the end.
  step = pl.program_id(2)
  pl.when(step < refs.tables[3][1])(
    functools.partial(_step, refs, step, carry=carry, **keywords)
  )


def _step(
  refs,
  step,
  *,
  static: common.Static,
  blocks: int,
  extents: int,
  size: int,
  carry: bool,
):
  first_key = refs.tables[3][0]
  pair = common.Pair(
    step,
    static=static,
    blocks=blocks,
    first_key=first_key,
    tables=refs.tables,
    extents=extents,
  )
  group = refs.q.shape[2]
  slot = jax.lax.rem(pair.key, refs.k_sum.shape[0])
  last = pair.key == jnp.minimum(pair.query, first_key + size - 1)

  @pl.when(step == 0)
  def _():
    refs.d_profiles[...] = jnp.zeros_like(refs.d_profiles)

  pl.when(pair.first)(functools.partial(_start, refs, pair, carry=carry))

  @pl.when(pair.rel == 0)
  def _():
    refs.k_sum[slot] = jnp.zeros(refs.k_sum.shape[1:], jnp.float32)
    refs.v_sum[slot] = jnp.zeros(refs.v_sum.shape[1:], jnp.float32)

  def body(kind):
    def one(head):
      k, v = refs.k[0, 0], refs.v[0, 0]
      q, d_out = refs.q[0, 0, head], refs.d_out[0, 0, head]
      scores = pair.scores(
        kind,
        q,
        k,
        refs.r[0, 0, head],
        profiles_ref=refs.profiles,
        skew_ref=refs.skew.at[head],
        mask=pair.mask(kind, refs.segments[...], refs.keys[0]),
      )
      probs = jnp.exp(scores - refs.top[head][:, :1])
      d_probs = common.dot(d_out, v, (1, 1))
      d_scores = probs * (d_probs - refs.delta[head][:, :1])
      refs.v_sum[slot] += common.dot(probs.astype(v.dtype), d_out, (0, 0))
      _bias_gradient(refs, pair, kind, head, d_scores, last=last)
      d_scores = d_scores.astype(q.dtype)
      refs.k_sum[slot] += common.dot(d_scores, q, (0, 0))
      refs.q_sum[head] += common.dot(d_scores, k, (1, 0))

    common.each_head(group, one)

  pair.each_kind(body)

  @pl.when(last)
  def _():
    refs.d_q[0, 0] = refs.q_sum[...].astype(refs.d_q.dtype)
    refs.d_r[0, 0] = refs.r_sum[...].astype(refs.d_r.dtype)

  @pl.when(pair.query == jnp.minimum(pair.key + pair.reach, blocks - 1))
  def _():
    refs.d_k[0, 0] = refs.k_sum[slot].astype(refs.d_k.dtype)
    refs.d_v[0, 0] = refs.v_sum[slot].astype(refs.d_v.dtype)


def _tables(static, *, blocks: int, size: int) -> list[tuple[np.ndarray, ...]]:
  """Of each call: those of `flash_pairs.pairs`, then (first key, pairs)."""
  reach = static.reach(blocks)
  calls = []
  for start in range(0, blocks, size):
    keys = range(start, min(start + size, blocks))
    tables = common.pairs(blocks=blocks, reach=reach, keys=keys)
    calls.append((*tables, np.asarray([start, len(tables[0])], np.int32)))
  longest = max(len(tables[0]) for tables in calls)
  return [
    tuple(
      np.pad(table, (0, longest - len(table)), mode="edge")
      for table in tables[:3]
    )
    + tables[3:]
    for tables in calls
  ]


def _call(static, arrays, *, tables, size: int, cost, old):
  """Gradients from the pairs in `tables`, added to `old` for queries."""
  q, k, v, r, profiles = arrays[:5]
  batch, kv_heads, group, length, head_dim = q.shape
  extents, d_rel, block = profiles.shape
  blocks = length // block
  spec = common.specs(q, profiles, block=block)
  inputs = "q k k r profiles rows keys q log q".split()
  inputs += ["q", "r"] if old else []
  written = pl.BlockSpec(
    (1, 1, block, head_dim),
    lambda b, k, step, query, key, following, _: (b, k, following[step], 0),
  )
  whole = pl.BlockSpec(
    (1, 1, *profiles.shape), lambda b, k, *_: (b, k, 0, 0, 0)
  )
  slots = min(static.reach(blocks) + 1, size)
  shapes = jax.ShapeDtypeStruct
  key_shape = (batch, kv_heads, size * block, head_dim)
  scratch = functools.partial(pltpu.VMEM, dtype=jnp.float32)
  call = pl.pallas_call(
    functools.partial(
      _kernel,
      static=static,
      blocks=blocks,
      extents=extents,
      size=size,
      carry=bool(old),
    ),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=4,
      grid=(batch, kv_heads, len(tables[0])),
      in_specs=[spec[name] for name in inputs],
      out_specs=[spec["q"], spec["r"], written, written, whole],
      scratch_shapes=[
        scratch((group, block, head_dim)),
        scratch((group, d_rel, block)),
        scratch((slots, block, head_dim)),
        scratch((slots, block, head_dim)),
        scratch((group, block, block)),
        scratch((group, block, block)),
        scratch((block, common.LANES)),
        scratch((group, block, common.LANES)),
        scratch((group, block, common.LANES)),
      ],
    ),
    out_shape=[
      shapes(q.shape, jnp.float32 if old else q.dtype),
      shapes(r.shape, jnp.float32 if old else r.dtype),
      shapes(key_shape, k.dtype),
      shapes(key_shape, v.dtype),
      shapes((batch, kv_heads, *profiles.shape), jnp.float32),
    ],
    input_output_aliases={14: 0, 15: 1} if old else {},
    compiler_params=common.PARAMS,
    cost_estimate=cost,
    interpret=static.interpret,
    name="attention_gradient",
  )
  return call(*tables, *arrays, *old)


def backward(
  static: common.Static,
  q_BKGTH: jax.Array,
  *,
  k_BKTH: jax.Array,
  v_BKTH: jax.Array,
  r_BKGRT: jax.Array,
  profiles_CRM: jax.Array,
  segments_B1T: jax.Array,
  out_BKGTH: jax.Array,
  log_BKGT: jax.Array,
  d_out_BKGTH: jax.Array,
) -> Gradients:
  """Gradients of what `flash_kernels.forward` takes.

  Args:
    static: block and window.
    q_BKGTH: as the following six, what went in.
    k_BKTH: keys.
    v_BKTH: values.
    r_BKGRT: scaled.
    profiles_CRM: as `flash.lay_out`.
    segments_B1T: float32 segments.
    out_BKGTH: what came out.
    log_BKGT: logs of the denominators.
    d_out_BKGTH: gradient of the outputs.
  """
  arrays = (q_BKGTH, k_BKTH, v_BKTH, r_BKGRT, profiles_CRM)
  arrays += (segments_B1T, segments_B1T, out_BKGTH, log_BKGT, d_out_BKGTH)
  length, block = q_BKGTH.shape[3], static.block
  blocks, ring = length // block, max(1, _RING // block)
  # A ring that holds all key blocks in reach takes them all in one call.
  in_one = static.reach(blocks) < ring
  size = blocks if in_one else ring
  calls = _tables(static, blocks=blocks, size=size)
  run = functools.partial(
    _call,
    static,
    arrays,
    size=size,
    cost=common.cost(
      q_BKGTH,
      profiles_CRM,
      # Of the mean call: a loop's kernel has one estimate.
      [np.concatenate([t[i][: t[3][1]] for t in calls]) for i in (0, 1)],
      calls=len(calls),
      block=block,
      products=5,
      skews=3,
      per_query=4 if in_one else 8,
    ),
  )
  if in_one:
    d_q, d_r, d_k, d_v, d_profiles = run(tables=calls[0], old=())
  else:
    zeros = tuple(
      jnp.zeros(each.shape, jnp.float32) for each in (q_BKGTH, r_BKGRT)
    )

    def body(old, tables):
      d_q, d_r, *parts = run(tables=tables, old=old)
      return (d_q, d_r), parts

    stacked = [np.stack(table) for table in zip(*calls, strict=True)]
    (d_q, d_r), (d_k, d_v, d_profiles) = jax.lax.scan(body, zeros, stacked)
    d_profiles = d_profiles.sum(axis=0)
    d_k, d_v = (
      jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], -1, x.shape[-1])
      for x in (d_k, d_v)
    )
  return Gradients(
    q_BKGTH=d_q.astype(q_BKGTH.dtype),
    k_BKTH=d_k[:, :, :length],
    v_BKTH=d_v[:, :, :length],
    r_BKGRT=d_r.astype(r_BKGRT.dtype),
    profiles_BKCRM=d_profiles,
  )
