"""Causal depthwise short convolution with its own residual, in float32.

y_t = x_t + sum_j w_j * x_(t-j), j = 0..K-1, taps outside the segment being
zero. Formula: Inkling's, as in Hugging Face transformers 5.23. For: keys,
values and both residual branches of a layer. Not for: anything with a stride or
an activation. Start at `convolve`; `extend` is the same with a cache.

Legend: B batch, T time, S chunk, K taps, D channels (any number of dims).
"""

import jax
import jax.numpy as jnp

from tml_jax.config import Numerics
from tml_jax.models import norm


@jax.named_scope("short_conv")
def convolve(
  x_BTD: jax.Array,
  *,
  kernel_KD: jax.Array,
  segment_ids_BT: jax.Array,
  numerics: Numerics = Numerics.DEFAULT,
) -> jax.Array:
  """Convolves packed sequences; taps never cross a segment boundary.

  `kernel_KD[j]` multiplies the input j positions earlier.
  """
  if numerics is Numerics.DEFAULT:
    return _convolve(x_BTD, kernel_KD, segment_ids_BT)
  x32 = x_BTD.astype(jnp.float32)
  earlier = []
  for tap in range(1, kernel_KD.shape[0]):
    same = _same(segment_ids_BT, tap, like=x_BTD)
    earlier.append(jnp.where(same, _moved(x32, tap), 0.0))
  y = _sum(x32, *earlier, kernel_KD=kernel_KD, numerics=numerics)
  return y.astype(x_BTD.dtype)


def _sum(*taps_BTD: jax.Array, kernel_KD: jax.Array, numerics: Numerics):
  """Inputs 0, 1, .. positions earlier, weighed and added in this order."""

  def add(x, *earlier):
    y = x * (1.0 + kernel_KD[0])
    for tap, each in enumerate(earlier, start=1):
      y = y + each * kernel_KD[tap]
    return y

  return norm.rowwise(add, *taps_BTD, numerics=numerics)


def _moved(x_BTD: jax.Array, by: int) -> jax.Array:
  """What lies `by` positions earlier (later if negative), zeros beyond."""
  padding = [(0, 0, 0), (by, -by, 0)] + [(0, 0, 0)] * (x_BTD.ndim - 2)
  return jax.lax.pad(x_BTD, jnp.zeros([], x_BTD.dtype), padding)


def _same(segment_ids_BT: jax.Array, tap: int, *, like: jax.Array) -> jax.Array:
  """Whether `tap` positions earlier lies the same segment, [B, T, 1, ...]."""
  inside = jnp.arange(segment_ids_BT.shape[1]) >= tap
  same_BT = inside & (segment_ids_BT == _moved(segment_ids_BT, tap))
  return same_BT[(..., *(None,) * (like.ndim - 2))]


def _taps(x_BTD: jax.Array, kernel_KD: jax.Array) -> range:
  return range(1, min(kernel_KD.shape[0], x_BTD.shape[1]))


# By hand, so that each direction is one pass over memory: the derivative of
# slices and masks is a pass for every tap.
@jax.custom_vjp
def _convolve(x_BTD, kernel_KD, segment_ids_BT):
  y = x_BTD.astype(jnp.float32) * (1.0 + kernel_KD[0])
  for tap in _taps(x_BTD, kernel_KD):
    same = _same(segment_ids_BT, tap, like=x_BTD)
    earlier = _moved(x_BTD, tap).astype(jnp.float32)
    y = y + jnp.where(same, earlier, 0.0) * kernel_KD[tap]
  return y.astype(x_BTD.dtype)


def _forward(x_BTD, kernel_KD, segment_ids_BT):
  y_BTD = _convolve(x_BTD, kernel_KD, segment_ids_BT)
  return y_BTD, (x_BTD, kernel_KD, segment_ids_BT)


def _backward(saved, dy_BTD):
  x_BTD, kernel_KD, segment_ids_BT = saved
  dy = dy_BTD.astype(jnp.float32)
  dx = dy * (1.0 + kernel_KD[0])
  d_kernel = [jnp.sum(dy * x_BTD.astype(jnp.float32), axis=(0, 1))]
  for tap in _taps(x_BTD, kernel_KD):
    same = _same(segment_ids_BT, tap, like=x_BTD)
    earlier = _moved(x_BTD, tap).astype(jnp.float32)
    d_kernel.append(jnp.sum(dy * jnp.where(same, earlier, 0.0), axis=(0, 1)))
    later = _moved(dy_BTD, -tap).astype(jnp.float32)
    dx = dx + jnp.where(_moved(same, -tap), later, 0.0) * kernel_KD[tap]
  unused = kernel_KD.shape[0] - len(d_kernel)  # taps longer than the sequence
  d_kernel += [jnp.zeros_like(d_kernel[0])] * unused
  return dx.astype(x_BTD.dtype), jnp.stack(d_kernel), None


_convolve.defvjp(_forward, _backward)


@jax.named_scope("short_conv")
def extend(
  x_BSD: jax.Array,
  *,
  kernel_KD: jax.Array,
  state_BKD: jax.Array,
  numerics: Numerics = Numerics.DEFAULT,
) -> tuple[jax.Array, jax.Array]:
  """The same over a chunk of a session.

  Args:
    x_BSD: inputs of the chunk.
    kernel_KD: taps.
    state_BKD: the last K-1 valid inputs before the chunk, zeros at the start
      of a session; float32.
    numerics: of the model.

  Returns:
    outputs (those beyond the valid prefix are meaningless) and the history, of
    which `after` makes the new state.
  """
  chunk = x_BSD.shape[1]
  taps = kernel_KD.shape[0]
  x32 = x_BSD.astype(jnp.float32)
  history_BXD = jnp.concatenate([state_BKD, x32], axis=1)
  starts = range(taps - 1, -1, -1)
  inputs = [history_BXD[:, start : start + chunk] for start in starts]
  y = _sum(*inputs, kernel_KD=kernel_KD, numerics=numerics)
  return y.astype(x_BSD.dtype), history_BXD


def after(
  history_BXD: jax.Array, *, lengths_B: jax.Array, chunk: int
) -> jax.Array:
  """The state when the first `lengths_B` positions of a chunk are kept.

  Args:
    history_BXD: of `extend`: the state before, then `chunk` inputs.
    lengths_B: 0..chunk.
    chunk: positions.
  """
  kept = history_BXD.shape[1] - chunk
  return jax.vmap(
    lambda rows, start: jax.lax.dynamic_slice_in_dim(rows, start, kept)
  )(history_BXD, lengths_B)
