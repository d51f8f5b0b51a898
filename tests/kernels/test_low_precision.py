"""Products in 8 bits against qwix's own, and against products of floats."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from flax import linen as nn

from tests.helpers import experts as plain
from tml_jax.config import PLAIN, MoeDispatch, Precision
from tml_jax.kernels import low_precision
from tml_jax.kernels.experts import grouped
from tml_jax.kernels.experts import tiled as tiled_lib

_FORMS = list(low_precision.FORMS.items())
_IDS = [name.value for name, _ in _FORMS]
# Half a step of 8 bits, relative to the largest of a row (integers) or to the
# value itself (floats), over some hundred terms.
_ERROR = {
  Precision.INT8: 0.01,
  Precision.FP8: 0.04,
  Precision.FP8_FIXED: 0.05,
}


def _draw(seed, *, rows=(3, 40), inputs=96, outputs=24):
  rng = np.random.default_rng(seed)
  # Rows of very different sizes: a scale for each.
  size = np.exp(rng.uniform(-2, 2, size=(*rows, 1)))
  x = rng.standard_normal((*rows, inputs)) * size
  weight = rng.standard_normal((inputs, outputs)) * 0.1
  dy = rng.standard_normal((*rows, outputs)) * 1e-6
  return tuple(jnp.asarray(a, jnp.float32) for a in (x, weight, dy))


def _away(actual, expected):
  difference = np.asarray(actual, np.float64) - np.asarray(expected)
  return np.linalg.norm(difference) / np.linalg.norm(expected)


@pytest.mark.parametrize("name, form", _FORMS, ids=_IDS)
def test_near_the_product_of_floats_and_its_gradients(name, form):
  x, weight, dy = _draw(0)
  y, pull = jax.vjp(
    functools.partial(low_precision.product, form=form), x, weight
  )
  want, want_pull = jax.vjp(jnp.matmul, x, weight)
  (dx, d_weight), (want_dx, want_weight) = pull(dy), want_pull(dy)
  assert 0 < _away(y, want) < _ERROR[name]
  # Gradients of floats have two bits behind the point, not three.
  assert 0 < _away(dx, want_dx) < 2 * _ERROR[name]
  # A product of floats.
  assert _away(d_weight, want_weight) < 1e-5


@pytest.mark.parametrize("name, form", _FORMS, ids=_IDS)
def test_equals_what_qwix_trains_with(name, form):
  x, weight, dy = _draw(1)
  layer = nn.Dense(weight.shape[1], use_bias=False)
  rule = qwix.QtRule(
    module_path=".*",
    weight_qtype=form.values,
    act_qtype=form.values,
    act_calibration_method=form.calibration,
    bwd_qtype=form.gradients,
    additional_qt_config=dict(
      drhs_grad_qtype=None, disable_gradient_clipping=True
    ),
  )
  low = qwix.quantize_model(layer, qwix.QtProvider([rule]))

  def theirs(x, weight):
    return low.apply({"params": {"kernel": weight}}, x)

  y, pull = jax.vjp(
    functools.partial(low_precision.product, form=form), x, weight
  )
  want, want_pull = jax.vjp(theirs, x, weight)
  (dx, d_weight), (want_dx, want_weight) = pull(dy), want_pull(dy)
  np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(dx, want_dx, rtol=1e-5, atol=1e-12)
  # They multiply by the rows in 8 bits, we by the rows.
  assert _away(d_weight, want_weight) < _ERROR[name]


def test_rows_of_zeros_stay_zeros():
  x, weight, dy = _draw(2)
  for _, form in _FORMS:
    y, pull = jax.vjp(
      functools.partial(low_precision.product, form=form), 0 * x, weight
    )
    assert not np.asarray(y).any()
    assert all(np.isfinite(each).all() for each in pull(0 * dy))


def test_the_fixed_form_clips():
  form = low_precision.FORMS[Precision.FP8_FIXED]
  y = low_precision.product(jnp.full((1, 1), 1e4), jnp.eye(1), form=form)
  assert float(y[0, 0]) == pytest.approx(224, rel=1e-6)


@pytest.mark.parametrize("rows", [128, 16], ids=["one turn", "many turns"])
@pytest.mark.parametrize("name", [Precision.INT8, Precision.FP8])
def test_experts_for_a_tpu_equal_those_for_a_cpu(name, rows):
  form = low_precision.FORMS[name]
  arrays = plain.draw(3, tokens=33, num_experts=5)
  chosen = plain.choices(3, tokens=33, num_experts=5, skew=1.0)
  forms = {
    "cpu": functools.partial(tiled_lib.tiled, tile=8, form=form),
    "tpu": functools.partial(
      grouped.grouped, rows=rows, form=form, interpret=True
    ),
    "floats": tiled_lib.reference,
  }
  got = {
    key: plain.value_and_gradients(each, *arrays, chosen)
    for key, each in forms.items()
  }
  (y, (dx, d_weights, d_shares)), (want_y, (want_dx, want_weights, want_d)) = (
    got["tpu"],
    got["cpu"],
  )
  # The same 8 bits, but for values that lie between two of them.
  for a, b in (
    (y, want_y),
    (dx, want_dx),
    *zip(
      jax.tree.leaves(d_weights), jax.tree.leaves(want_weights), strict=True
    ),
  ):
    assert _away(a, b) < 0.01
  # Of what came back into an expert, or of what went out of it.
  assert _away(d_shares, want_d) < 2 * _ERROR[name]
  for each in ("cpu", "tpu"):
    for a, b in zip(
      jax.tree.leaves(got[each]), jax.tree.leaves(got["floats"]), strict=True
    ):
      assert 0 < _away(a, b) < 4 * _ERROR[name]


@pytest.mark.parametrize(
  "dispatch, axes",
  [
    (MoeDispatch.ALL_GATHER, dict(fsdp=4, expert=2)),
    (MoeDispatch.ALL_GATHER, dict(fsdp=2, tensor=2)),
    (MoeDispatch.PADDED_ALL_TO_ALL, dict(fsdp=4, expert=2)),
  ],
  ids=["gathered", "cut", "sent"],
)
@pytest.mark.parametrize("name", [Precision.INT8, Precision.FP8])
def test_parts_on_a_mesh_are_rounded_as_the_whole(dispatch, axes, name):
  """Each device has seen a part of every output."""
  form = low_precision.FORMS[name]
  x, weights, shares = plain.draw(7, tokens=64, num_experts=8)
  chosen = plain.choices(7, tokens=64, num_experts=8, skew=1.0)
  whole = functools.partial(tiled_lib.tiled, tile=8, form=form)
  want = plain.value_and_gradients(whole, x, weights, shares, chosen)
  on_mesh = functools.partial(
    tiled_lib.apply,
    tile=8,
    execution=dataclasses.replace(PLAIN, moe_dispatch=dispatch),
    form=form,
  )
  got = plain.on_a_mesh(on_mesh, x, weights, shares, chosen=chosen, axes=axes)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    # A part of the hidden values has a scale of its own.
    assert _away(a, b) < (2 * _ERROR[name] if "tensor" in axes else 0.01)
