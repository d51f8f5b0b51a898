"""Experts in 8 bits: every form against the weights they stand for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.experts import choices, draw
from tml_jax.kernels.experts import grouped, quantized
from tml_jax.kernels.experts import tiled as tiled_lib

_TOKENS, _EXPERTS = 40, 5


def _in_8_bits(weights):
  """And the float32 weights that these are."""
  low = jax.tree.map(quantized.quantize, weights)
  every = jnp.arange(_EXPERTS)
  whole = [getattr(low, f.name)[every] for f in dataclasses.fields(low)]
  return low, tiled_lib.Weights(*whole)


def test_the_nearest_of_255_levels_of_each_expert_and_output():
  _, weights, _ = draw(0, tokens=1, num_experts=_EXPERTS)
  weight = np.asarray(weights.gate_EDF)
  low = quantized.quantize(weight)
  assert low.values_EIO.dtype == jnp.int8
  largest = np.abs(weight).max(axis=1, keepdims=True)
  np.testing.assert_allclose(low.scales_E1O, largest / 127, rtol=1e-2)
  error = np.abs(low[jnp.arange(_EXPERTS)] - weight)
  assert (error <= 0.501 * np.asarray(low.scales_E1O)).all()


@pytest.mark.parametrize("form", ["tiled", "gathered", "grouped"])
@pytest.mark.parametrize("skew", [0.0, 9.0])
def test_every_form_multiplies_by_the_same_weights(form, skew):
  x, weights, shares = draw(1, tokens=_TOKENS, num_experts=_EXPERTS)
  chosen = choices(1, tokens=_TOKENS, num_experts=_EXPERTS, skew=skew)
  low, whole = _in_8_bits(weights)
  keywords = dict(experts_Nk=chosen, shares_Nk=shares)
  run = {
    "tiled": lambda: tiled_lib.tiled(x, weights=low, tile=8, **keywords),
    "gathered": lambda: tiled_lib.gathered(x, weights=low, **keywords),
    # Fewer rows than choices: some come in further turns.
    "grouped": lambda: grouped.grouped(x, weights=low, rows=32, **keywords),
  }[form]
  np.testing.assert_allclose(
    jax.jit(run)(),
    tiled_lib.reference(x, weights=whole, **keywords),
    atol=1e-4,
    rtol=1e-4,
  )


def test_products_come_in_the_dtype_of_the_tokens():
  x, weights, shares = draw(2, tokens=_TOKENS, num_experts=_EXPERTS)
  chosen = choices(2, tokens=_TOKENS, num_experts=_EXPERTS, skew=0.0)
  low, whole = _in_8_bits(weights)
  got = tiled_lib.apply(
    x.astype(jnp.bfloat16),
    weights=low.astype(jnp.bfloat16),
    experts_BTk=chosen,
    shares_BTk=shares,
    tile=8,
  )
  assert got.dtype == jnp.bfloat16
  expected = tiled_lib.reference(
    x, weights=whole, experts_Nk=chosen, shares_Nk=shares
  )
  error = np.abs(got.astype(np.float32) - expected).max()
  assert error < 0.03 * np.abs(expected).max()
