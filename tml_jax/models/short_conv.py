"""Causal depthwise short convolution with its own residual, in float32.

y_t = x_t + sum_j w_j * x_(t-j), j = 0..K-1, taps outside the segment being
zero. Formula: reference/interaction_models.md section 1.9. For: keys, values
and both residual branches of a layer. Not for: anything with a stride or an
activation. Start at `convolve`; `extend` is the same with a cache.

Legend: B batch, T time, S chunk, K taps, D channels (any number of dims).
"""

import jax
import jax.numpy as jnp


@jax.named_scope("short_conv")
def convolve(
  x_BTD: jax.Array, *, kernel_KD: jax.Array, segment_ids_BT: jax.Array
) -> jax.Array:
  """Convolves packed sequences; taps never cross a segment boundary.

  `kernel_KD[j]` multiplies the input j positions earlier.
  """
  x32 = x_BTD.astype(jnp.float32)
  y = x32 * (1.0 + kernel_KD[0])
  length = x_BTD.shape[1]
  trailing = (None,) * (x_BTD.ndim - 2)
  for tap in range(1, min(kernel_KD.shape[0], length)):
    same = segment_ids_BT[:, tap:] == segment_ids_BT[:, :-tap]
    kept = jnp.where(same[(..., *trailing)], x32[:, :-tap], 0.0)
    padding = [(0, 0), (tap, 0)] + [(0, 0)] * (x_BTD.ndim - 2)
    y = y + jnp.pad(kept, padding) * kernel_KD[tap]
  return y.astype(x_BTD.dtype)


@jax.named_scope("short_conv")
def extend(
  x_BSD: jax.Array,
  *,
  kernel_KD: jax.Array,
  state_BKD: jax.Array,
  lengths_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """The same over a chunk whose first `lengths_B` positions are valid.

  Args:
    x_BSD: inputs of the chunk.
    kernel_KD: taps.
    state_BKD: the last K-1 valid inputs before the chunk, zeros at the start
      of a session; float32.
    lengths_B: valid positions of each row, 0..S.

  Returns:
    outputs (those beyond the valid prefix are meaningless) and the new state.
  """
  chunk = x_BSD.shape[1]
  taps = kernel_KD.shape[0]
  x32 = x_BSD.astype(jnp.float32)
  history = jnp.concatenate([state_BKD, x32], axis=1)
  y = x32
  for tap in range(taps):
    start = taps - 1 - tap
    y = y + history[:, start : start + chunk] * kernel_KD[tap]
  new_state = jax.vmap(
    lambda rows, start: jax.lax.dynamic_slice_in_dim(rows, start, taps - 1)
  )(history, lengths_B)
  return y.astype(x_BSD.dtype), new_state
