"""Attention of one block of queries to one block of keys, for all blocks.

For: `attention.py`, training and prefill. Not for: caches. Start at `attend`.
In a cell the last query stands at the last key, so query t and key s are
S - T + t - s apart.

bias[t, s] = (r_t @ profiles)[distance] for 0 <= distance < extent, else 0, is
never gathered: rows of r @ reversed(profiles), S + 1 long, are read back as
rows of S, which shifts row t by t places (the skew of Music Transformer, arXiv
1809.04281, section 3.4).

On a CPU the cells run one after another and the gradient computes the scores
again, so that scores live in a buffer that stays in the cache: fresh pages for
[B, N, T, T] cost more there than the arithmetic (benchmarks/attention.py).
Elsewhere the same function runs block by block for all sequences and heads.

Legend: B batch, C blocks, K kv heads, G query heads of a kv head, T queries,
S keys, H head dim, R d_rel, E extent.
"""

import functools

import flax
import jax
import jax.numpy as jnp
from jax import ad_checkpoint

# Finite, so that a fully masked row would give a mean and not NaN.
MASKED = -1e30


@flax.struct.dataclass
class Cells:
  """What is differentiated, with leading dims [B, C, K] or none."""

  q: jax.Array  # [G, T, H], scaled
  k: jax.Array  # [S, H]
  v: jax.Array  # [S, H]
  r: jax.Array  # [G, T, R], scaled


def attend(
  cells: Cells,
  *,
  profiles_RE: jax.Array,
  query_segments_BCT: jax.Array,
  key_segments_BCS: jax.Array,
  window: int,
) -> jax.Array:
  """Outputs [B, C, K, G, T, H] of causal attention within segments.

  Args:
    cells: with leading dims [B, C, K].
    profiles_RE: bias profiles, E <= S.
    query_segments_BCT: segment of each query.
    key_segments_BCS: segment of each key.
    window: positions seen, self included.
  """
  profiles, segments = prepare(
    cells,
    profiles_RE=profiles_RE,
    query_segments_BCT=query_segments_BCT,
    key_segments_BCS=key_segments_BCS,
  )
  return _attend(window, cells, profiles, segments)


def prepare(
  cells: Cells,
  *,
  profiles_RE: jax.Array,
  query_segments_BCT: jax.Array,
  key_segments_BCS: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """Profiles laid out for the shift, and segments with a dim of kv heads."""
  keys, extent = cells.k.shape[-2], profiles_RE.shape[1]
  # Column S - d holds distance d.
  padding = ((0, 0), (keys + 1 - extent, 0))
  profiles = jnp.pad(profiles_RE[:, ::-1], padding).astype(cells.r.dtype)
  kv_heads = cells.k.shape[2]

  def per_head(segments):
    shape = (*segments.shape[:2], kv_heads, segments.shape[-1])
    return jnp.broadcast_to(segments[:, :, None], shape)

  return profiles, (per_head(query_segments_BCT), per_head(key_segments_BCS))


def saved(out: jax.Array, log_total: jax.Array):
  """Names what remat policies may keep instead of computing it again."""
  return tuple(
    ad_checkpoint.checkpoint_name(array, "attention")
    for array in (out, log_total)
  )


def _each_cell(function, arguments):
  """Maps over the leading [B, C, K], in turn on a CPU.

  Elsewhere over the blocks in turn, else over all at once: the scores of one
  block of every sequence and head are enough to fill a device.
  """

  def in_turn(*arguments):
    lead = arguments[0].q.shape[:3]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), arguments)
    results = jax.lax.map(lambda each: function(*each), flat)
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), results)

  def by_block(*arguments):
    at_once = jax.vmap(jax.vmap(function))
    blocks_first = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), arguments)
    results = jax.lax.map(lambda each: at_once(*each), blocks_first)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), results)

  return jax.lax.platform_dependent(*arguments, cpu=in_turn, default=by_block)


def _scores(cell, profiles, segments, window):
  """Masked scores plus bias, float32 [G, T, S]."""
  group, queries, _ = cell.q.shape
  keys = cell.k.shape[0]
  scores = jnp.einsum(
    "gth,sh->gts", cell.q, cell.k, preferred_element_type=jnp.float32
  )
  bias = jnp.einsum(
    "gtr,re->gte", cell.r, profiles, preferred_element_type=jnp.float32
  )
  # The barrier keeps the shift a plain copy; fused into its reader it becomes
  # a division per element.
  bias = jax.lax.optimization_barrier(bias.reshape(group, -1))
  bias = bias[:, queries:].reshape(group, queries, keys)
  query_segments, key_segments = segments
  distance = _distance(queries, keys)
  mask = (distance >= 0) & (distance < window)
  mask &= query_segments[:, None] == key_segments
  return jnp.where(mask, scores + bias, MASKED)


def _distance(queries: int, keys: int) -> jax.Array:
  return keys - queries + jnp.arange(queries)[:, None] - jnp.arange(keys)


def _cell(window, cell, profiles, segments):
  """Output [G, T, H] and log of the softmax's denominator [G, T]."""
  scores = _scores(cell, profiles, segments, window)
  top = jax.lax.optimization_barrier(jnp.max(scores, axis=-1, keepdims=True))
  weights = jax.lax.optimization_barrier(jnp.exp(scores - top))
  total = jnp.sum(weights, axis=-1, keepdims=True)
  out = jnp.einsum(
    "gts,sh->gth",
    weights.astype(cell.v.dtype),
    cell.v,
    preferred_element_type=jnp.float32,
  )
  out = (out / total).astype(cell.v.dtype)
  return out, (top + jnp.log(total))[..., 0]


def _cell_gradient(window, cell, profiles, segments, out, log_total, d_out):
  """Gradients of one cell and of the padded profiles."""
  group, queries, _ = cell.q.shape
  dtype = cell.q.dtype
  einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  scores = _scores(cell, profiles, segments, window)
  probs = jax.lax.optimization_barrier(jnp.exp(scores - log_total[..., None]))
  delta = jnp.sum(d_out.astype(jnp.float32) * out, axis=-1, keepdims=True)
  d_probs = einsum("gth,sh->gts", d_out, cell.v)
  d_scores = (probs * (d_probs - delta)).astype(dtype)
  d_scores = jax.lax.optimization_barrier(d_scores)
  # The skew backwards: rows of S written as rows of S + 1.
  shifted = jnp.pad(d_scores.reshape(group, -1), ((0, 0), (queries, 0)))
  shifted = jax.lax.optimization_barrier(shifted).reshape(group, queries, -1)
  grads = Cells(
    q=einsum("gts,sh->gth", d_scores, cell.k).astype(dtype),
    k=einsum("gts,gth->sh", d_scores, cell.q).astype(dtype),
    v=einsum("gts,gth->sh", probs.astype(dtype), d_out).astype(dtype),
    r=einsum("gte,re->gtr", shifted, profiles).astype(dtype),
  )
  return grads, einsum("gtr,gte->re", cell.r, shifted)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(window, cells, profiles, segments):
  return _attend_forward(window, cells, profiles, segments)[0]


def forward(window, cells, profiles, segments):
  """Outputs and logs of the softmax's denominators."""
  return _each_cell(
    lambda cell, segments: _cell(window, cell, profiles, segments),
    (cells, segments),
  )


def _attend_forward(window, cells, profiles, segments):
  out, log_total = saved(*forward(window, cells, profiles, segments))
  return out, (cells, profiles, segments, out, log_total)


def _attend_backward(window, kept, d_out):
  return *backward(window, *kept, d_out), None


def backward(window, cells, profiles, segments, out, log_total, d_out):
  """Gradients of the cells and of the laid-out profiles.

  `out` and `log_total` may be of a softmax over more keys than the cells'.
  """

  def gradient(cell, segments, out, log_total, d_out):
    return _cell_gradient(
      window, cell, profiles, segments, out, log_total, d_out
    )

  grads, d_profiles = _each_cell(
    gradient, (cells, segments, out, log_total, d_out)
  )
  d_profiles = jnp.sum(d_profiles, axis=(0, 1, 2)).astype(profiles.dtype)
  return grads, d_profiles


_attend.defvjp(_attend_forward, _attend_backward)
