"""A step of scanned layers changes the state as a step of single ones."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.helpers import small_run
from tml_jax.config import PLAIN, Optimizer
from tml_jax.models import stacking as layers_lib
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import optim
from tml_jax.training import state as state_lib
from tml_jax.training import step as step_lib


def _config(*, scan_layers, name):
  cfg = small_run.config()
  train = dataclasses.replace(
    cfg.train,
    global_batch_size=4,
    execution=dataclasses.replace(PLAIN, scan_layers=scan_layers),
    optim=dataclasses.replace(
      cfg.train.optim, name=name, weight_decay=0.5, clip_norm=1e-2
    ),
  )
  model = dataclasses.replace(cfg.model, num_layers=4)
  return dataclasses.replace(cfg, train=train, model=model)


def _step(cfg, state_of):
  mesh = mesh_lib.create(cfg.mesh, devices=jax.devices()[:1])
  model = state_lib.create_model(cfg)
  optimizer = optim.create(cfg.train.optim, steps=100)
  params, router = state_of(model)
  state = state_lib.TrainState(
    step=np.int32(3),
    params=params,
    router=router,
    opt_state=optimizer.init(params),
    ema=params,
  )
  batch = small_run.batch(cfg, seed=0)
  with mesh_lib.use(mesh, rules=cfg.mesh.axis_rules):
    step = jax.jit(step_lib.create(cfg, model=model, optimizer=optimizer))
    return step(state, batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(Optimizer))
def test_a_scanned_step_equals_an_unrolled_one(name):
  plain = _config(scan_layers=False, name=name)
  scanned = _config(scan_layers=True, name=name)
  layout = layers_lib.Layout.of(plain.model, scan_layers=True)
  assert layout.blocks == 2
  shapes = state_lib.abstract(
    plain,
    model=state_lib.create_model(plain),
    optimizer=optim.create(plain.train.optim, steps=100),
    mesh=mesh_lib.create(plain.mesh, devices=jax.devices()[:1]),
  ).state
  rng = np.random.default_rng(0)
  params, router = jax.tree.map(
    lambda x: (0.2 * rng.standard_normal(x.shape)).astype(np.float32),
    (shapes.params, shapes.router),
  )

  def stacked(tree):
    return layers_lib.stack(tree, layout=layout)

  state, values = _step(plain, lambda _: (params, router))
  other, other_values = _step(
    scanned, lambda _: (stacked(params), stacked(router))
  )
  np.testing.assert_allclose(other_values["loss"], values["loss"], atol=1e-5)
  np.testing.assert_array_equal(
    other_values["sums"].load_KLE, values["sums"].load_KLE
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    state_lib.unrolled(
      dict(params=other.params, router=other.router), config=scanned
    ),
    dict(params=state.params, router=state.router),
  )
