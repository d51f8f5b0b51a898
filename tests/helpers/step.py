"""A fresh state on a mesh, and the gradient of one batch there."""

import jax

from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import losses, optim
from tml_jax.training import state as state_lib
from tml_jax.training import step as step_lib


def fresh(cfg, devices):
  mesh = mesh_lib.create(cfg.mesh, devices=devices)
  model = state_lib.create_model(cfg)
  optimizer = optim.create(cfg.train.optim, steps=100)
  with mesh_lib.use(mesh, rules=cfg.mesh.axis_rules):
    abstract = state_lib.abstract(
      cfg, model=model, optimizer=optimizer, mesh=mesh
    )
    state = state_lib.create(abstract, seed=0)
  return mesh, model, optimizer, state


def gradient_of(cfg, devices, batch):
  """Loss, sums and gradient of one global batch on a mesh."""
  mesh, model, _, state = fresh(cfg, devices)
  batch = jax.device_put(
    batch,
    mesh_lib.batch_sharding(
      mesh,
      rules=cfg.mesh.axis_rules,
      batch_size=cfg.train.global_batch_size,
    ),
  )
  with mesh_lib.use(mesh, rules=cfg.mesh.axis_rules):
    run = jax.jit(
      lambda s, b: step_lib.accumulate(
        s, b, config=cfg, model=model, objective=losses.PRETRAINING
      )
    )
    return jax.device_get(run(state, batch))
