"""Global attention without a [T, T] tensor: a biased near band, then the rest.

For: `attention.full` on sequences longer than two blocks. Not for: sliding
windows, which are near bands alone. Start at `attend`.

A block has E queries, E being the extent of the relative bias. Its near band
is its own and the previous block: a cell of `cells.py`, bias included. Keys
further away have no bias. Each pair of a query block and an earlier key block
is computed in turn and joined by the log of the softmax's denominator
(FlashAttention, arXiv 2205.14135), so that scores exist for one pair at a time.
The gradient computes them again, with the joint denominator, which makes it a
sum over near band and pairs (section 3.1 there).

Legend: as `cells.py`; C blocks, T = E queries of a block, S = 2 * T keys of a
near band.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.kernels.attention import cells as cells_lib


def attend(
  cells: cells_lib.Cells,
  *,
  profiles_RE: jax.Array,
  query_segments_BCT: jax.Array,
  key_segments_BCS: jax.Array,
) -> jax.Array:
  """Outputs [B, C, K, G, T, H] of causal attention within segments.

  Args:
    cells: near bands with leading dims [B, C, K], S = 2 * T keys each; the
      second half of a band's keys is the block itself.
    profiles_RE: bias profiles, E = T.
    query_segments_BCT: segment of each query.
    key_segments_BCS: segment of each key of the band.
  """
  profiles, segments = cells_lib.prepare(
    cells,
    profiles_RE=profiles_RE,
    query_segments_BCT=query_segments_BCT,
    key_segments_BCS=key_segments_BCS,
  )
  return _attend(cells, profiles, segments)


def _pairs(blocks: int) -> tuple[np.ndarray, np.ndarray]:
  """Query and key block of every pair outside the near bands."""
  query, key = np.tril_indices(blocks, -2)
  return query.astype(np.int32), key.astype(np.int32)


def _block(array: jax.Array, index) -> jax.Array:
  return jax.lax.dynamic_index_in_dim(array, index, axis=1, keepdims=False)


def _put(array: jax.Array, value: jax.Array, index) -> jax.Array:
  return jax.lax.dynamic_update_index_in_dim(array, value, index, axis=1)


def _einsum(subscripts: str, *arrays: jax.Array) -> jax.Array:
  return jnp.einsum(subscripts, *arrays, preferred_element_type=jnp.float32)


def _own(cells: cells_lib.Cells, segments):
  """Keys, values and segments of the blocks themselves."""
  half = cells.k.shape[-2] // 2
  return cells.k[..., half:, :], cells.v[..., half:, :], segments[1][..., half:]


def _pair_scores(q_BKGTH, k_BKTH, query_BKT, key_BKT):
  scores = _einsum("bkgth,bksh->bkgts", q_BKGTH, k_BKTH)
  same = query_BKT[..., :, None] == key_BKT[..., None, :]
  return jnp.where(same[:, :, None], scores, cells_lib.MASKED)


@jax.custom_vjp
def _attend(cells, profiles, segments):
  return _attend_forward(cells, profiles, segments)[0]


def _attend_forward(cells, profiles, segments):
  near, log_total = cells_lib.forward(
    cells.k.shape[-2], cells, profiles, segments
  )
  k, v, key_segments = _own(cells, segments)

  def step(carry, pair):
    out, log_total = carry
    query, key = pair
    scores = _pair_scores(
      _block(cells.q, query),
      _block(k, key),
      _block(segments[0], query),
      _block(key_segments, key),
    )
    top = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1)
    far = _einsum("bkgts,bksh->bkgth", weights.astype(v.dtype), _block(v, key))
    log_far = top[..., 0] + jnp.log(total)
    old = _block(log_total, query)
    new = jnp.logaddexp(old, log_far)
    joined = _block(out, query) * jnp.exp(old - new)[..., None]
    joined += far * (jnp.exp(log_far - new) / total)[..., None]
    return (_put(out, joined, query), _put(log_total, new, query)), None

  (out, log_total), _ = jax.lax.scan(
    step, (near.astype(jnp.float32), log_total), _pairs(cells.q.shape[1])
  )
  out, log_total = cells_lib.saved(out.astype(v.dtype), log_total)
  return out, (cells, profiles, segments, out, log_total)


def _attend_backward(saved, d_out):
  cells, profiles, segments, out, log_total = saved
  grads, d_profiles = cells_lib.backward(
    cells.k.shape[-2], cells, profiles, segments, out, log_total, d_out
  )
  k, v, key_segments = _own(cells, segments)
  delta = jnp.sum(d_out.astype(jnp.float32) * out, axis=-1)

  def step(carry, pair):
    d_q, d_k, d_v = carry
    query, key = pair
    q, k_key, v_key = _block(cells.q, query), _block(k, key), _block(v, key)
    scores = _pair_scores(
      q, k_key, _block(segments[0], query), _block(key_segments, key)
    )
    probs = jnp.exp(scores - _block(log_total, query)[..., None])
    d_rows = _block(d_out, query)
    d_probs = _einsum("bkgth,bksh->bkgts", d_rows, v_key)
    d_scores = probs * (d_probs - _block(delta, query)[..., None])
    d_scores, probs = d_scores.astype(q.dtype), probs.astype(q.dtype)
    d_q = _put(
      d_q,
      _block(d_q, query) + _einsum("bkgts,bksh->bkgth", d_scores, k_key),
      query,
    )
    d_k = _put(
      d_k, _block(d_k, key) + _einsum("bkgts,bkgth->bksh", d_scores, q), key
    )
    d_v = _put(
      d_v, _block(d_v, key) + _einsum("bkgts,bkgth->bksh", probs, d_rows), key
    )
    return (d_q, d_k, d_v), None

  zeros = functools.partial(jnp.zeros_like, dtype=jnp.float32)
  start = (zeros(cells.q), zeros(k), zeros(v))
  (d_q, d_k, d_v), _ = jax.lax.scan(step, start, _pairs(cells.q.shape[1]))
  half = [(0, 0)] * 3 + [(k.shape[-2], 0), (0, 0)]
  grads = grads.replace(
    q=grads.q + d_q.astype(grads.q.dtype),
    k=grads.k + jnp.pad(d_k, half).astype(grads.k.dtype),
    v=grads.v + jnp.pad(d_v, half).astype(grads.v.dtype),
  )
  return grads, d_profiles, None


_attend.defvjp(_attend_forward, _attend_backward)
