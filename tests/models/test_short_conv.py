"""The short convolution against a sum over taps, and its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tml_jax.models import short_conv


def plain(x, kernel, segments):
  """Position by position, tap by tap."""
  rows = []
  for b in range(x.shape[0]):
    row = []
    for t in range(x.shape[1]):
      y = x[b, t]
      for tap in range(min(kernel.shape[0], t + 1)):
        if segments[b, t - tap] == segments[b, t]:
          y = y + kernel[tap] * x[b, t - tap]
      row.append(y)
    rows.append(jnp.stack(row))
  return jnp.stack(rows)


@pytest.mark.parametrize(
  "length, dims",
  # Longer and shorter than the taps; channels, and heads of channels.
  [(11, (5,)), (3, (5,)), (1, (5,)), (11, (2, 3))],
)
def test_values_and_gradients_equal_a_sum_over_taps(length, dims):
  rng = np.random.default_rng(0)
  x, kernel, d_out = (
    jnp.asarray(rng.standard_normal(shape), jnp.float32)
    for shape in ((2, length, *dims), (4, *dims), (2, length, *dims))
  )
  segments = np.sort(rng.integers(0, 3, (2, length)), axis=1)

  def fast(x, kernel):
    return short_conv.convolve(
      x, kernel_KD=kernel, segment_ids_BT=jnp.asarray(segments)
    )

  @functools.partial(jax.jit, static_argnums=0)
  def both(convolution, x, kernel, d_out):
    out, pull = jax.vjp(convolution, x, kernel)
    return out, pull(d_out)

  def by_taps(x, kernel):
    return plain(x, kernel, segments)

  out, gradients = both(fast, x, kernel, d_out)
  expected, by_hand = both(by_taps, x, kernel, d_out)
  np.testing.assert_allclose(out, expected, atol=1e-6)
  for ours, theirs in zip(gradients, by_hand, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_keeps_the_dtype_and_sums_in_float32():
  x = jnp.full((1, 4, 1), 1 / 3, jnp.bfloat16)
  kernel = jnp.full((4, 1), 1e-3, jnp.float32)
  segments = jnp.ones((1, 4), jnp.int32)
  out, pull = jax.vjp(
    lambda x, k: short_conv.convolve(x, kernel_KD=k, segment_ids_BT=segments),
    x,
    kernel,
  )
  d_x, d_kernel = pull(jnp.ones_like(out))
  assert out.dtype == d_x.dtype == jnp.bfloat16
  assert d_kernel.dtype == jnp.float32
  third = float(x[0, 0, 0])
  np.testing.assert_allclose(
    d_kernel[:, 0], third * np.arange(4, 0, -1), rtol=1e-6
  )
