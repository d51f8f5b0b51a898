"""Eight devices compute what one computes, within 1e-5."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from experiments import topologies
from tests.helpers import small_trunk
from tml_jax import errors
from tml_jax.config import MeshConfig
from tml_jax.parallel import mesh as mesh_lib

CONFIG = small_trunk.config(num_layers=2, attention_pattern="LG")
ONE = MeshConfig(
  data=1, fsdp=1, expert=1, tensor=1, seq=1, rules=topologies.RULES
)
RULES = ONE.axis_rules
MESHES = {
  "data, fsdp, expert": dataclasses.replace(ONE, data=2, fsdp=2, expert=2),
  "fsdp, expert, tensor": dataclasses.replace(ONE, fsdp=2, expert=2, tensor=2),
  "data, seq": dataclasses.replace(ONE, data=2, seq=4),
}


def loss(params, router, batch):
  model = small_trunk.model(CONFIG)
  apply = functools.partial(model.apply, dict(params=params, router=router))
  h, aux = apply(batch, method="hidden")
  entropy = jax.nn.logsumexp(apply(h, method="logits"), axis=-1)
  weights = (batch.segment_ids > 0).astype(jnp.float32)
  return (entropy * weights).sum() / weights.sum(), aux.load_LE


@functools.cache
def inputs():
  model = small_trunk.model(CONFIG)
  rows = [[20], [7, 12], [11], [19], [4, 4, 4], [13], [20], [1, 18]]
  return small_trunk.variables(model), small_trunk.batch(rows, length=20)


@functools.cache
def alone():
  variables, batch = inputs()
  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  return jax.device_get(step(variables["params"], variables["router"], batch))


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_loss_and_gradients_equal_one_device(name):
  variables, batch = inputs()
  mesh = mesh_lib.create(MESHES[name], devices=jax.devices()[:8])
  model, rules = small_trunk.model(CONFIG), MESHES[name].axis_rules
  boxed = jax.eval_shape(model.init, jax.random.key(0), batch)
  shardings = mesh_lib.variable_shardings(boxed, mesh=mesh, rules=rules)
  rows = mesh_lib.batch_sharding(mesh, rules=rules, batch_size=8)
  step = jax.jit(
    jax.value_and_grad(loss, has_aux=True),
    in_shardings=(shardings["params"], shardings["router"], rows),
    out_shardings=(None, shardings["params"]),
  )
  with mesh_lib.use(mesh, rules=rules):
    (value, load), gradients = step(
      *jax.device_put(
        (variables["params"], variables["router"]),
        (shardings["params"], shardings["router"]),
      ),
      jax.device_put(batch, rows),
    )
  sharded = gradients["trunk"]["layer_01"]["mlp"]["gate"]
  assert sharded.sharding.shard_shape(sharded.shape) != sharded.shape
  (one_value, one_load), one_gradients = alone()
  np.testing.assert_allclose(value, one_value, atol=1e-5)
  np.testing.assert_array_equal(load, one_load)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    jax.device_get(gradients),
    one_gradients,
  )


def test_every_parameter_has_a_place_at_full_scale_names():
  """Every logical name of the model is one string per dim."""
  boxed = jax.eval_shape(
    small_trunk.model(small_trunk.config(num_mtp_layers=1)).init,
    jax.random.key(0),
    small_trunk.batch([[3]], length=4),
  )
  leaves = jax.tree.leaves(
    boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
  )
  for leaf in leaves:
    assert isinstance(leaf, nn.LogicallyPartitioned)
    assert len(leaf.names) == leaf.value.ndim
    assert all(isinstance(name, str) for name in leaf.names)


def test_bad_meshes_and_shapes_are_named():
  with pytest.raises(errors.UserError, match="need 64 devices.*are 8"):
    mesh_lib.create(
      dataclasses.replace(ONE, data=64),
      devices=jax.devices()[:8],
    )
  mesh = mesh_lib.create(
    MESHES["fsdp, expert, tensor"], devices=jax.devices()[:8]
  )
  place = functools.partial(
    mesh_lib.sharding, mesh=mesh, rules=RULES, what="trunk/query"
  )
  with pytest.raises(errors.UserError, match="trunk/query.*7.*2"):
    place(("embed", "heads"), shape=(8, 7))
  with pytest.raises(errors.UserError, match="trunk/query.*'fsdp'"):
    place(("embed", "embed"), shape=(8, 8))
