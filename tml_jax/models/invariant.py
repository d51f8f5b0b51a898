"""Attention whose bits do not depend on what else is computed beside it.

For: `numerics = invariant`: a query gets the same bits in a training
sequence, a prefill and a tick. Not for: speed (`cells`, `cached`).
Start at `sequence` (training) and `cached` (ticks); both are `_tile`.

A sum in floating point depends on its order, and a compiler picks the order
by the shape. So a tile of Q query positions of one kv head meets blocks of S
keys, always in these shapes and in the order of the keys' session index. Blocks
are cut at multiples of S of that index: a key falls on the same place of the
same block wherever it is kept ("left-aligned splits"). What a query must not
see weighs exactly 0. The maximum that scores are taken from is found first: it
has no order. For the same reason norms and convolutions run in tiles of rows
(`norm.rowwise`), and dense products need whole multiples of ROWS rows, which
sampling pads to (`rows`).

Legend: B batch, T time, K kv heads, G query heads of a kv head, Q queries of
a tile, S keys of a block (in `cached` also slots), H head dim, R d_rel,
E extent.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from tml_jax.kernels.attention import cells
from tml_jax.models import cache as cache_lib
from tml_jax.models import norm

QUERIES, KEYS = 16, 128  # of a tile and a block

_barrier = jax.lax.optimization_barrier


def rows(size: int, *, batch_size: int) -> int:
  """The next size at which batch_size x size is a multiple of norm.ROWS."""
  step = norm.ROWS // math.gcd(norm.ROWS, batch_size)
  return -(-size // step) * step


def _tile(
  q_GQH: jax.Array,
  r_GQR: jax.Array,
  *,
  profiles_RE: jax.Array,
  index_Q: jax.Array,
  read: Callable[[jax.Array], tuple[jax.Array, ...]],
  count: jax.Array,
) -> jax.Array:
  """Outputs [G, Q, H] over `count` blocks.

  `read` gives the i-th block: keys and values [S, H], the index of each key
  [S] and what is visible [Q, S].
  """
  einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  q_GQH, r_GQR = _barrier((q_GQH, r_GQR))
  extent = profiles_RE.shape[1]
  by_distance = einsum("gqr,re->gqe", r_GQR, profiles_RE.astype(r_GQR.dtype))
  by_distance = _barrier(jnp.pad(by_distance, ((0, 0), (0, 0), (0, 1))))

  def scores(i):
    k_SH, v_SH, index_S, visible_QS = _barrier(read(i))
    distance = index_Q[:, None] - index_S
    column = jnp.clip(distance, 0, extent)[None]
    bias = jnp.take_along_axis(by_distance, column, axis=-1)
    product = _barrier(einsum("gqh,sh->gqs", q_GQH, k_SH))
    return jnp.where(visible_QS, product + bias, cells.MASKED), v_SH

  def highest(i, top):
    return jnp.maximum(top, jnp.max(scores(i)[0], axis=-1, keepdims=True))

  lead = q_GQH.shape[:-1]
  top = jax.lax.fori_loop(
    0, count, highest, jnp.full((*lead, 1), cells.MASKED, jnp.float32)
  )
  top = _barrier(top)

  def add(i, sums):
    out, total = sums
    masked, v_SH = scores(i)
    weights = _barrier(jnp.exp(masked - top))
    part = _barrier(einsum("gqs,sh->gqh", weights.astype(v_SH.dtype), v_SH))
    return out + part, total + jnp.sum(weights, axis=-1, keepdims=True)

  zeros = jnp.zeros(q_GQH.shape, jnp.float32)
  out, total = _barrier(
    jax.lax.fori_loop(0, count, add, (zeros, zeros[..., :1]))
  )
  return _barrier((out / total).astype(q_GQH.dtype))


def _tiles(x_BTNH: jax.Array, kv_heads: int) -> jax.Array:
  """[B, T, N, H] to [B, T // Q, K, G, Q, H], padded to whole tiles."""
  batch, length, heads, width = x_BTNH.shape
  x = jnp.pad(x_BTNH, ((0, 0), (0, -length % QUERIES), (0, 0), (0, 0)))
  x = x.reshape(batch, -1, QUERIES, kv_heads, heads // kv_heads, width)
  return x.transpose(0, 1, 3, 4, 2, 5)


def _untiled(x: jax.Array, *, like: jax.Array) -> jax.Array:
  """The inverse of `_tiles`."""
  batch, length, heads, width = like.shape
  x = x.transpose(0, 1, 4, 2, 3, 5).reshape(batch, -1, heads, width)
  return x[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sequence(
  plain: Callable[..., jax.Array],
  window: int,
  q_BTNH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  r_BTNR: jax.Array,
  profiles_RE: jax.Array,
  segment_ids_BT: jax.Array,
) -> jax.Array:
  """What `plain` computes (`attention.full` or `local`), in tiles and blocks.

  Blocks are cut at multiples of S of the row, so a segment has the bits of a
  session if it begins there. The gradient is that of `plain`.
  """
  del plain
  length, kv_heads = q_BTNH.shape[1], k_BTKH.shape[2]
  padding = ((0, 0), (0, -length % KEYS))
  k, v = (
    jnp.pad(x, (*padding, (0, 0), (0, 0))).swapaxes(1, 2)
    for x in (k_BTKH, v_BTKH)
  )
  segments_BT = jnp.pad(segment_ids_BT + 1, padding)  # 0 matches no query
  tiles = -(-length // QUERIES)

  def each(arguments):
    q, r, row, tile, head = arguments
    index_Q = tile * QUERIES + jnp.arange(QUERIES)
    first = jnp.maximum(index_Q[0] - window + 1, 0) // KEYS
    own_Q = segments_BT[row, index_Q]

    def read(i):
      start = (first + i) * KEYS
      k_SH, v_SH = (
        jax.lax.dynamic_slice(x[row, head], (start, 0), (KEYS, x.shape[-1]))
        for x in (k, v)
      )
      index_S = start + jnp.arange(KEYS)
      distance = index_Q[:, None] - index_S
      visible = (distance >= 0) & (distance < window)
      visible &= own_Q[:, None] == segments_BT[row, index_S]
      return k_SH, v_SH, index_S, visible

    return _tile(
      q,
      r,
      profiles_RE=profiles_RE,
      index_Q=index_Q,
      read=read,
      count=index_Q[-1] // KEYS + 1 - first,
    )

  shape = (q_BTNH.shape[0], tiles, kv_heads)
  places = jnp.meshgrid(*map(jnp.arange, shape), indexing="ij")
  out = _map(
    each, (_tiles(q_BTNH, kv_heads), _tiles(r_BTNR, kv_heads), *places)
  )
  return _untiled(out, like=q_BTNH)


def _map(function, arguments):
  """Over the leading [B, tiles, K], in turn."""
  lead = arguments[-1].shape
  flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), arguments)
  out = jax.lax.map(function, flat)
  return out.reshape(*lead, *out.shape[1:])


def _forward(plain, window, *arrays):
  return sequence(plain, window, *arrays), arrays


def _backward(plain, window, arrays, d_out):
  del window
  *differentiable, segment_ids_BT = arrays

  def run(q, k, v, r, profiles):
    return plain(
      q,
      k_BTKH=k,
      v_BTKH=v,
      r_BTNR=r,
      profiles_RE=profiles,
      segment_ids_BT=segment_ids_BT,
    )

  _, pull = jax.vjp(run, *differentiable)
  return *pull(d_out), None


sequence.defvjp(_forward, _backward)


def cached(
  q_BTNH: jax.Array,
  k_BKHS: jax.Array,
  v_BKSH: jax.Array,
  *,
  r_BTNR: jax.Array,
  profiles_RE: jax.Array,
  query_index_BT: jax.Array,
  key_index_BS: jax.Array,
  ring: cache_lib.Ring,
) -> jax.Array:
  """`cached.attend` in tiles and blocks."""
  kv_heads = v_BKSH.shape[1]
  sink_blocks = -(-ring.sinks // KEYS)
  tiles = -(-q_BTNH.shape[1] // QUERIES)

  def each(arguments):
    q, r, row, tile, head = arguments
    index_Q = query_index_BT[row, 0] + tile * QUERIES + jnp.arange(QUERIES)
    first = jnp.maximum(index_Q[0] - ring.window + 1, 0) // KEYS
    first = jnp.maximum(first, sink_blocks)

    def read(i):
      block = jnp.where(i < sink_blocks, i, first + i - sink_blocks)
      index_S = block * KEYS + jnp.arange(KEYS)
      slot_S = ring.slot(index_S)
      k_SH = k_BKHS[row, head, :, slot_S].astype(q.dtype)
      v_SH = v_BKSH[row, head, slot_S].astype(q.dtype)
      distance = index_Q[:, None] - index_S
      visible = (distance < ring.window) | (index_S < ring.sinks)
      visible &= (distance >= 0) & (key_index_BS[row, slot_S] == index_S)
      return k_SH, v_SH, index_S, visible

    later = jnp.maximum(index_Q[-1] // KEYS + 1 - first, 0)
    return _tile(
      q,
      r,
      profiles_RE=profiles_RE,
      index_Q=index_Q,
      read=read,
      count=sink_blocks + later,
    )

  shape = (q_BTNH.shape[0], tiles, kv_heads)
  places = jnp.meshgrid(*map(jnp.arange, shape), indexing="ij")
  out = _map(
    each, (_tiles(q_BTNH, kv_heads), _tiles(r_BTNR, kv_heads), *places)
  )
  return _untiled(out, like=q_BTNH)
