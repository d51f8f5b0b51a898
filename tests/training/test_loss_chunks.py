"""Losses of targets in chunks equal losses of all targets at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tml_jax.training import losses


@pytest.mark.parametrize("chunk", [1, 4, 7, 12])
def test_chunks_equal_all_at_once(chunk):
  rng = np.random.default_rng(chunk)
  h = jnp.asarray(rng.standard_normal((3, 12, 8)), jnp.float32)
  kernel = jnp.asarray(rng.standard_normal((8, 20)), jnp.float32)
  targets = jnp.asarray(rng.integers(0, 20, (3, 12)))
  weights = jnp.asarray(rng.random((3, 12)), jnp.float32)

  def chunked(h, kernel):
    entropy, right = losses.score(
      h, targets_BN=targets, logits=lambda h: h @ kernel, chunk=chunk
    )
    return jnp.sum(entropy * weights), (entropy, right)

  def plain(h, kernel):
    log_probs = jax.nn.log_softmax(h @ kernel)
    entropy = -(log_probs * jax.nn.one_hot(targets, 20)).sum(-1)
    right = jnp.argmax(log_probs, axis=-1) == targets
    return jnp.sum(entropy * weights), (entropy, right)

  actual, expected = (
    jax.jit(jax.value_and_grad(each, argnums=(0, 1), has_aux=True))(h, kernel)
    for each in (chunked, plain)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
    actual,
    expected,
  )
  assert 0 < actual[0][1][1].mean() < 1
