"""Attention of a chunk to the cache, for ticks.

For: `Attention.extend`. Not for: whole sequences (`cells.py`, `flash.py`), nor
invariant numerics (`invariant.cached`).

Legend: B batch, T time, S keys, N query heads, K kv heads, H head dim, Q
queries of a kv head (those of its heads, one head after the other), R d_rel, E
extent of the bias.
"""

import jax
import jax.numpy as jnp

from tml_jax.kernels.attention import cells
from tml_jax.models import cache as cache_lib


@jax.named_scope("cached")
def attend(
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
  """Attention of a few queries to cached keys, each with its session index.

  A negative index marks an empty slot; `ring` says what a query sees. The
  bias is gathered here: T is a chunk, so [T, S] is small. Queries of a kv head
  are folded into rows Q, group first: on a CPU XLA is up to five times faster
  with plain batched products than with the dims apart, and with keys that need
  no transposing.
  """
  batch, chunk, heads, head_dim = q_BTNH.shape
  kv_heads, keys = v_BKSH.shape[1:3]
  extent = profiles_RE.shape[1]
  rows = (batch, kv_heads, heads // kv_heads * chunk)
  q_BKQH = q_BTNH.swapaxes(1, 2).reshape(*rows, head_dim)
  scores = jnp.einsum(
    "bkqh,bkhs->bkqs",
    q_BKQH,
    k_BKHS.astype(q_BKQH.dtype),
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
  scores = scores.reshape(bias.shape) + bias  # [B, N, T, S]
  scores = jnp.where(mask[:, None], scores, cells.MASKED)
  probs = jax.nn.softmax(scores, axis=-1).astype(q_BKQH.dtype)
  out_BKQH = jnp.einsum(
    "bkqs,bksh->bkqh",
    probs.reshape(*rows, keys),
    v_BKSH.astype(q_BKQH.dtype),
  )
  return out_BKQH.reshape(batch, heads, chunk, head_dim).swapaxes(1, 2)
