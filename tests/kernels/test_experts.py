"""Routed experts: the fast forms against every expert on every token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.experts import choices, draw, value_and_gradients
from tml_jax.kernels.experts import tiled as tiled_lib
from tml_jax.models import moe


@settings(max_examples=8, deadline=None)
@given(
  seed=st.integers(0, 99),
  tokens=st.sampled_from([1, 5, 33]),
  num_experts=st.sampled_from([2, 7]),
  tile=st.sampled_from([1, 8, 64]),
  skew=st.sampled_from([0.0, 9.0]),
)
def test_tiled_equals_reference(seed, tokens, num_experts, tile, skew):
  arrays = draw(seed, tokens=tokens, num_experts=num_experts)
  chosen = choices(seed, tokens=tokens, num_experts=num_experts, skew=skew)

  @jax.jit
  def both(arrays, chosen):
    def fast(x, **keywords):
      return tiled_lib.tiled(x, tile=tile, **keywords)

    return [
      value_and_gradients(form, *arrays, chosen)
      for form in (fast, tiled_lib.reference)
    ]

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
    *both(arrays, chosen),
  )


@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_apply_takes_any_number_of_tokens(tokens):
  x, weights, shares = draw(1, tokens=tokens, num_experts=4)
  chosen = choices(1, tokens=tokens, num_experts=4, skew=0.0)
  keywords = dict(weights=weights, experts_Nk=chosen, shares_Nk=shares)
  np.testing.assert_allclose(
    tiled_lib.apply(
      x, weights=weights, experts_BTk=chosen, shares_BTk=shares, tile=32
    ),
    tiled_lib.reference(x, **keywords),
    atol=1e-5,
  )


@pytest.mark.parametrize("tokens", [1, 7, 16, 40])
def test_gathered_equals_reference(tokens):
  arrays = draw(3, tokens=tokens, num_experts=5)
  chosen = choices(3, tokens=tokens, num_experts=5, skew=0.5)
  actual, expected = (
    value_and_gradients(form, *arrays, chosen)
    for form in (tiled_lib.gathered, tiled_lib.reference)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
    actual,
    expected,
  )


def test_bfloat16_stays_near_float32():
  x, weights, shares = draw(2, tokens=40, num_experts=4)
  chosen = choices(2, tokens=40, num_experts=4, skew=1.0)
  exact = value_and_gradients(tiled_lib.reference, x, weights, shares, chosen)

  def low(x, **keywords):
    return tiled_lib.tiled(x, tile=8, **keywords)

  half = value_and_gradients(
    low, x.astype("bfloat16"), weights.astype("bfloat16"), shares, chosen
  )
  for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(exact), strict=True):
    error = np.abs(a.astype(np.float32) - b).max() / np.abs(b).max()
    assert error < 0.03


def test_choose_is_top_k_and_ties_go_left():
  scores = np.random.default_rng(0).standard_normal((50, 9))
  chosen = moe.choose(jnp.asarray(scores), count=4)
  np.testing.assert_array_equal(chosen, np.argsort(-scores, axis=1)[:, :4])
  chosen = moe.choose(jnp.zeros((1, 5)), count=3)
  np.testing.assert_array_equal(chosen, [[0, 1, 2]])


def test_shares_sum_to_scale_and_bias_only_selects():
  logits = jnp.asarray(np.random.default_rng(0).standard_normal((30, 10)))
  keywords = dict(scale=jnp.float32(5.0), experts_per_token=3)
  plain = moe.route(logits, bias_E=jnp.zeros(8), **keywords)
  total = plain.shares_Nk.sum(-1) + plain.shared_shares_NS.sum(-1)
  np.testing.assert_allclose(total, 5.0, rtol=1e-5)
  # A bias that is the same for all changes nothing at all.
  same = moe.route(logits, bias_E=jnp.full(8, 0.7), **keywords)
  jax.tree.map(np.testing.assert_array_equal, plain, same)
  pushed = moe.route(logits, bias_E=jnp.eye(8)[2] * 9, **keywords)
  assert (pushed.experts_Nk == 2).any(-1).all()
  sigmoids = jax.nn.sigmoid(logits)
  all_chosen = jnp.concatenate(
    [
      jnp.take_along_axis(sigmoids, pushed.experts_Nk, axis=1),
      sigmoids[:, 8:],
    ],
    axis=1,
  )
  expected = 5 * all_chosen / all_chosen.sum(-1, keepdims=True)
  np.testing.assert_allclose(pushed.shares_Nk, expected[:, :3], rtol=1e-4)
