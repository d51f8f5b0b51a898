"""Attention in its plain dense form, to compare the fast ones with."""

import jax
import jax.numpy as jnp
import numpy as np


def dense(q, k, v, r, profiles, *, segments, window):
  """Every score, every bias by its index, one softmax."""
  length, extent = q.shape[1], profiles.shape[1]
  k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
  distance = jnp.arange(length)[:, None] - jnp.arange(length)
  by_distance = jnp.einsum("btnr,re->bnte", r, profiles)
  index = jnp.clip(distance, 0, extent - 1)
  bias = by_distance[:, :, jnp.arange(length)[:, None], index]
  bias = jnp.where((distance >= 0) & (distance < extent), bias, 0)
  scores = jnp.einsum("btnh,bsnh->bnts", q, k) + bias
  mask = (distance >= 0) & (distance < window)
  mask = mask & (segments[:, None, :, None] == segments[:, None, None, :])
  probs = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
  return jnp.einsum("bnts,bsnh->btnh", probs, v)


def draw(seed, *, length, heads=6, kv_heads=2, extent=7):
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)

  arrays = (
    normal(2, length, heads, 8) / 3,
    normal(2, length, kv_heads, 8),
    normal(2, length, kv_heads, 8),
    normal(2, length, heads, 5),
    normal(5, extent),
  )
  # Two segments and padding, at other places in each row.
  cuts = np.sort(rng.integers(0, length + 1, (2, 2)), axis=1)
  index = np.arange(length)
  segments = np.where(
    index < cuts[:, :1], 1, np.where(index < cuts[:, 1:], 2, 0)
  )
  return arrays, jnp.asarray(segments, jnp.int32)


def check(function, *, arrays, segments, window):
  def fast(q, k, v, r, profiles):
    return function(
      q,
      k_BTKH=k,
      v_BTKH=v,
      r_BTNR=r,
      profiles_RE=profiles,
      segment_ids_BT=segments,
    )

  def plain(*arrays):
    return dense(*arrays, segments=segments, window=window)

  @jax.jit
  def both(arrays, d_out):
    results = []
    for each in (fast, plain):
      out, pull = jax.vjp(each, *arrays)
      results.append((out, pull(d_out)))
    return results

  weights = np.random.default_rng(1).standard_normal(arrays[0].shape)
  actual, expected = both(arrays, weights.astype(np.float32))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5, rtol=1e-5),
    actual,
    expected,
  )
