"""Grouped matmul and the exchange on a mesh against every expert everywhere."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests.helpers import experts as plain
from tml_jax.config import PLAIN, MoeDispatch
from tml_jax.kernels.experts import grouped
from tml_jax.kernels.experts import tiled as tiled_lib

GATHERED = dataclasses.replace(PLAIN, moe_dispatch=MoeDispatch.ALL_GATHER)


def close(actual, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
    actual,
    expected,
  )


@pytest.mark.parametrize(
  "rows, skew",
  # One turn with room to spare; many turns; everything on one expert.
  [(128, 0.0), (16, 0.0), (16, 9.0)],
)
def test_grouped_equals_reference(rows, skew):
  arrays = plain.draw(rows, tokens=33, num_experts=5)
  chosen = plain.choices(rows, tokens=33, num_experts=5, skew=skew)

  def fast(x, **keywords):
    return grouped.grouped(x, rows=rows, interpret=True, **keywords)

  close(
    plain.value_and_gradients(fast, *arrays, chosen),
    plain.value_and_gradients(tiled_lib.reference, *arrays, chosen),
  )


@pytest.mark.parametrize("form", ["tiled", "grouped"])
def test_a_choice_of_no_expert_counts_for_nothing(form):
  x, weights, shares = plain.draw(4, tokens=20, num_experts=3)
  chosen = plain.choices(4, tokens=20, num_experts=4, skew=0.0)
  form = {
    "tiled": functools.partial(tiled_lib.tiled, tile=8),
    "grouped": functools.partial(grouped.grouped, rows=24, interpret=True),
  }[form]
  # The reference's one-hot of 3 in 0..2 is zero.
  close(
    plain.value_and_gradients(form, x, weights, shares, chosen),
    plain.value_and_gradients(tiled_lib.reference, x, weights, shares, chosen),
  )


@pytest.mark.parametrize(
  "axes",
  [
    dict(data=2, fsdp=2, expert=2),
    dict(expert=4, tensor=2),
    pytest.param(dict(expert=2, seq=2, fsdp=2), marks=pytest.mark.slow),
    pytest.param(dict(fsdp=4, tensor=2), marks=pytest.mark.slow),
  ],
  ids=lambda axes: "-".join(f"{k}{v}" for k, v in axes.items()),
)
def test_the_exchange_on_a_mesh_changes_nothing(axes):
  x, weights, shares = plain.draw(7, tokens=64, num_experts=8)
  chosen = plain.choices(7, tokens=64, num_experts=8, skew=1.0)
  expected = plain.value_and_gradients(
    tiled_lib.reference, x, weights, shares, chosen
  )
  form = functools.partial(tiled_lib.apply, tile=8, execution=GATHERED)
  close(
    plain.on_a_mesh(form, x, weights, shares, chosen=chosen, axes=axes),
    expected,
  )


def test_the_exchange_needs_a_mesh():
  x, weights, shares = plain.draw(7, tokens=4, num_experts=8)
  chosen = plain.choices(7, tokens=4, num_experts=8, skew=1.0)
  with pytest.raises(ValueError, match="parallel.mesh.use"):
    tiled_lib.apply(
      x[None],
      weights=weights,
      experts_BTk=chosen[None],
      shares_BTk=shares[None],
      tile=8,
      execution=GATHERED,
    )
