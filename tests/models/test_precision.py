"""Rules name products; what they name is multiplied in 8 bits, nothing else."""

import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import small_run, small_trunk
from tml_jax import errors
from tml_jax.config import Precision
from tml_jax.kernels import low_precision
from tml_jax.models import precision
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import program as step_program

_INT8 = low_precision.FORMS[Precision.INT8]


def _jaxpr(rules=()):
  """Of hidden states of a small model, as text."""
  model = small_trunk.model(small_trunk.config(), precision=rules)
  packed = small_trunk.batch([[6, 5]], length=12)
  variables = jax.eval_shape(model.init, jax.random.key(0), packed)
  return str(jax.make_jaxpr(model.apply)(variables, packed))


def _in_8_bits(text: str) -> int:
  return len(re.findall(r":i32\[[\d,]+\] = dot_general", text))


def test_the_first_rule_that_matches_the_whole_name():
  rules = (("trunk/.*/key", Precision.FP8), ("trunk/.*", Precision.INT8))
  execution = dataclasses.replace(small_trunk.EXECUTION, precision=rules)
  attention = ("trunk", "layer_00", "attention")

  def of(product, path=attention, **changes):
    changed = dataclasses.replace(execution, **changes)
    module = types.SimpleNamespace(execution=changed, path=path)
    return precision.form_of(module, product)

  assert of("key") == low_precision.FORMS[Precision.FP8]
  assert of("query") == _INT8
  assert of("key", path=("mtp", "layer")) is None
  assert of("query", path=("attention",)) is None
  assert of("query", path=("attention",), within=attention[:2]) == _INT8
  assert of("key", precision=()) is None


def test_names_are_those_of_the_model():
  model = small_trunk.model(small_trunk.config())
  packed = small_trunk.batch([[6, 5]], length=12)
  variables = jax.eval_shape(model.init, jax.random.key(0), packed)
  names = precision.products(variables["params"])
  layer = [f"attention/{name}" for name in precision.ATTENTION]
  assert sorted(names) == sorted(
    [f"trunk/layer_00/{n}" for n in (*layer, "mlp/gate", "mlp/up", "mlp/down")]
    + [
      f"trunk/layer_0{i}/{n}"
      for i in (1, 2)
      for n in (*layer, "mlp/experts", "mlp/shared")
    ]
  )


@pytest.mark.parametrize(
  "regex, products",
  [
    ("trunk/layer_00/mlp/up", 1),
    ("trunk/.*/query", 3),
    ("trunk/.*/attention/.*", 12),
    ("trunk/.*/shared", 6),
    # Everything that can be: 3 x 4 of attention, 3 dense, 2 x 3 shared; those
    # of experts are a loop over floats on a CPU.
    (".*", 21),
  ],
)
def test_as_many_products_are_in_8_bits_as_are_named(regex, products):
  assert _in_8_bits(_jaxpr()) == 0
  assert _in_8_bits(_jaxpr(((regex, Precision.INT8),))) == products


def test_a_model_in_8_bits_is_near_the_one_in_floats():
  config = small_trunk.config()
  packed = small_trunk.batch([[6, 5], [11]], length=12)
  variables = small_trunk.variables(small_trunk.model(config))

  def of(rules):
    model = small_trunk.model(config, precision=rules)
    out = jax.jit(model.apply)(variables, packed)
    return np.asarray(jax.tree.leaves(out)[0], np.float64)

  floats = of(())
  for name, most in ((Precision.INT8, 0.05), (Precision.FP8, 0.15)):
    low = of(((".*", name),))
    away = np.linalg.norm(low - floats) / np.linalg.norm(floats)
    assert 0 < away < most, name


def _program(rules):
  config = small_run.config()
  train = dataclasses.replace(config.train, low_precision=rules)
  config = dataclasses.replace(config, train=train)
  mesh = mesh_lib.create(config.mesh, devices=jax.devices()[:1])
  return step_program.create(config, mesh=mesh)


def test_a_rule_that_names_nothing_is_told_the_names():
  with pytest.raises(errors.UserError, match="names no product.*mlp/experts"):
    _program(("trunk/.*/router=int8",))
  _program(("trunk/.*/experts=int8",))


@pytest.mark.parametrize(
  "rule, message",
  [
    ("trunk/.*=fp4", "one of int8, fp8, fp8_fixed"),
    ("fp8", "REGEX=PRECISION"),
    ("trunk/(=fp8", "no regular expression"),
  ],
)
def test_bad_rules(rule, message):
  config = small_run.config()
  with pytest.raises(errors.UserError, match=message):
    dataclasses.replace(config.train, low_precision=(rule,))


def test_a_session_multiplies_in_floats():
  execution = dataclasses.replace(
    small_trunk.EXECUTION, precision=((".*", Precision.INT8),)
  )
  assert execution.on_one_device().precision == ()


def test_gradients_reach_what_is_in_8_bits():
  x = jnp.ones((2, 3, 4, 5))
  weight = jnp.ones((4, 5, 6))
  gradient = jax.grad(
    lambda w: precision.times(x, w, form=_INT8, inputs=2).sum()
  )(weight)
  np.testing.assert_allclose(gradient, np.full((4, 5, 6), 6.0))
