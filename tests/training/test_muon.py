"""Muon against optax's, alone and on a mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from tests.helpers import small_run
from tml_jax.config import PLAIN, Dtype, Optimizer
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import muon, optim
from tml_jax.training import state as state_lib


@functools.cache
def abstract_variables(scan_layers):
  cfg = small_run.config()
  train = dataclasses.replace(
    cfg.train, execution=dataclasses.replace(PLAIN, scan_layers=scan_layers)
  )
  cfg = dataclasses.replace(
    cfg,
    model=dataclasses.replace(cfg.model, num_layers=4, num_dense_layers=2),
    train=train,
  )
  packed = state_lib.example_batch(cfg, batch_size=1).packed
  model = state_lib.create_model(cfg)
  boxed = jax.eval_shape(model.init, jax.random.key(0), packed)["params"]
  return boxed, nn.unbox(boxed)


def draw(shapes, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.standard_normal(x.shape), jnp.float32), shapes
  )


@pytest.mark.parametrize("scan_layers", [False, True])
def test_matrices_have_the_logical_names_of_the_model(scan_layers):
  boxed, shapes = abstract_variables(scan_layers)
  kinds = optim.matrices(shapes)
  flat = jax.tree_util.tree_leaves_with_path(
    boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned)
  )
  found = 0
  for path, box in flat:
    kind = kinds
    for key in path:
      kind = kind[key.key]
    if kind is not None:
      found += 1
      assert box.names[-len(kind.names) :] == kind.names, path
      assert not {*box.names[: -len(kind.names)]} - {"blocks"}, path
  assert found > 20


def test_update_is_that_of_optax():
  _, shapes = abstract_variables(False)
  params = draw(shapes, 0)
  config = dataclasses.replace(
    small_run.config().train.optim, name=Optimizer.MUON, weight_decay=0.1
  )
  ours = optim.create(config, steps=10)

  def axes(params):
    return jax.tree.map(
      lambda kind: (
        kind and optax.contrib.MuonDimensionNumbers(kind.rows, kind.columns)
      ),
      optim.matrices(params),
      is_leaf=lambda kind: kind is None or isinstance(kind, muon.Matrix),
    )

  schedule = functools.partial(optim.schedule, config, steps=10)
  theirs = optax.chain(
    optax.clip_by_global_norm(config.clip_norm),
    optax.contrib.muon(
      schedule(peak=config.muon_learning_rate),
      beta=config.b2,
      weight_decay=config.weight_decay,
      adam_b1=config.b1,
      adam_b2=config.b2,
      adam_learning_rate=schedule(peak=config.learning_rate),
      consistent_rms=0.2,
      muon_weight_dimension_numbers=axes,
    ),
  )

  def run(optimizer):
    @jax.jit
    def two_updates(params, first, second):
      state = optimizer.init(params)
      _, state = optimizer.update(first, state, params)
      return optimizer.update(second, state, params)[0]

    return two_updates(params, draw(shapes, 1), draw(shapes, 2))

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5),
    run(ours),
    run(theirs),
  )


@pytest.mark.parametrize(
  "axes",
  [
    dict(fsdp=4, expert=2),
    pytest.param(dict(data=2, fsdp=2, tensor=2), marks=pytest.mark.slow),
  ],
  ids=str,
)
def test_matrices_dealt_over_a_mesh_come_out_the_same(axes):
  boxed, shapes = abstract_variables(True)
  config = small_run.config(**axes).mesh
  mesh, rules = mesh_lib.create(config), config.axis_rules
  kinds = optim.matrices(shapes)

  def chosen(tree):
    return [
      leaf
      for leaf, kind in zip(
        jax.tree.leaves(tree),
        jax.tree.leaves(kinds, is_leaf=lambda x: x is None or _is_kind(x)),
        strict=True,
      )
      if kind is not None
    ]

  matrices = chosen(draw(shapes, 3))
  places = chosen(mesh_lib.variable_shardings(boxed, mesh=mesh, rules=rules))
  kinds = [x for x in jax.tree.leaves(kinds, is_leaf=_is_kind) if _is_kind(x)]
  expected = jax.jit(lambda x: muon.orthogonal(x, kinds))(matrices)
  with mesh_lib.use(mesh, rules=rules):
    actual = jax.jit(lambda x: muon.orthogonal(x, kinds), out_shardings=places)(
      jax.device_put(matrices, places)
    )
  for a, b in zip(actual, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


def _is_kind(x):
  return isinstance(x, muon.Matrix)


def test_moments_in_bfloat16():
  _, shapes = abstract_variables(True)
  params = draw(shapes, 0)
  for name in Optimizer:
    config = dataclasses.replace(
      small_run.config().train.optim, name=name, moment_dtype=Dtype.BFLOAT16
    )
    optimizer = optim.create(config, steps=10)
    state = jax.eval_shape(optimizer.init, params)
    half = sum(
      leaf.size for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.bfloat16
    )
    assert half == sum(leaf.size for leaf in jax.tree.leaves(params))
    after = jax.eval_shape(optimizer.update, params, state, params)[1]
    jax.tree.map(
      lambda a, b: np.testing.assert_equal(a.dtype, b.dtype), after, state
    )
