"""Attention of a chunk to the cache, for ticks.

For: `Attention.extend`. Not for: whole sequences (`cells.py`, `flash.py`), nor
invariant numerics (`invariant.cached`).

Legend: B batch, T time, S keys, N query heads, K kv heads, H head dim, R d_rel,
E extent of the bias.
"""

import jax
import jax.numpy as jnp

from tml_jax.models import cache as cache_lib
from tml_jax.models import cells


@jax.named_scope("cached")
def attend(
  q_BTNH: jax.Array,
  k_BKSH: jax.Array,
  v_BKSH: jax.Array,
  *,
  r_BTNR: jax.Array,
  profiles_RE: jax.Array,
  query_index_BT: jax.Array,
  key_index_BS: jax.Array,
  ring: cache_lib.Ring,
) -> jax.Array:
  """Attention of a few queries to cached keys, each with its session index.

  A negative index marks an empty slot; `ring` says what a query sees. The
  bias is gathered here: T is a chunk, so [T, S] is small.
  """
  batch, chunk, heads, head_dim = q_BTNH.shape
  kv_heads, keys = k_BKSH.shape[1:3]
  group = heads // kv_heads
  extent = profiles_RE.shape[1]
  q = q_BTNH.reshape(batch, chunk, kv_heads, group, head_dim)
  scores = jnp.einsum(
    "btkgh,bksh->bkgts",
    q,
    k_BKSH.astype(q.dtype),
    preferred_element_type=jnp.float32,
  )
  by_distance = jnp.einsum(
    "btnr,re->bnte",
    r_BTNR,
    profiles_RE.astype(r_BTNR.dtype),
    preferred_element_type=jnp.float32,
  )
  # Distance E stands for all without a bias.
  by_distance = jnp.pad(by_distance, ((0, 0), (0, 0), (0, 0), (0, 1)))
  index_BTS = key_index_BS[:, None, :]
  distance = query_index_BT[:, :, None] - index_BTS
  column = jnp.clip(distance, 0, extent)[:, None]
  bias = jnp.take_along_axis(by_distance, column, axis=-1)
  mask = (index_BTS >= 0) & (distance >= 0)
  mask &= (distance < ring.window) | (index_BTS < ring.sinks)
  scores += bias.reshape(batch, kv_heads, group, chunk, keys)
  scores = jnp.where(mask[:, None, None], scores, cells.MASKED)
  probs = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
  out = jnp.einsum("bkgts,bksh->btkgh", probs, v_BKSH.astype(q.dtype))
  return out.reshape(q_BTNH.shape)
