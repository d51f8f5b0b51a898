"""Rotary position by time: the published alternative to the relative bias.

For: `attention.py` with `model.position=time_rope`. Not for: saying what time
a position has (`embed.times`). Start at `turn`.

Dims i and i + H / 2 of a query or key at time t are turned by the angle
t * BASE ** (-2 i / H) (RoFormer, arXiv 2104.09864, section 3.4.2), so that a
score depends on how far apart in time the two are. As in TMRoPE (Qwen2.5-Omni,
arXiv 2503.20215, section 2.1) t counts stretches of time, not tokens: there
40 ms, here 50, one dMel token; what sounds at once, here both sides, has the
same t. TMRoPE turns a third of the dims each by time, row and column; patches
here have their time alone, and the order of tokens of one time is left to the
short convolutions.

Legend: B batch, T time, N heads, H head dim.
"""

import jax
import jax.numpy as jnp
import numpy as np

BASE = 10_000.0


def turn(x_BTNH: jax.Array, times_BT: jax.Array) -> jax.Array:
  """Queries or keys turned by their times, computed in float32."""
  half = x_BTNH.shape[-1] // 2
  rates = np.power(BASE, -np.arange(half) / half).astype(np.float32)
  angle = times_BT[..., None, None].astype(jnp.float32) * rates
  sin, cos = jnp.sin(angle), jnp.cos(angle)
  first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  turned = [first * cos - second * sin, first * sin + second * cos]
  return jnp.concatenate(turned, axis=-1).astype(x_BTNH.dtype)
