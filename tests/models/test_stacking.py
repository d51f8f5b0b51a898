"""Scanned layers compute what the same layers compute one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.helpers import small_trunk
from tml_jax.config import RematPolicy
from tml_jax.models import interaction, moe
from tml_jax.models import stacking as layers_lib

# A dense period, two scanned blocks of a run and a layer, a rest of one layer.
CONFIG = small_trunk.config(
  num_layers=10, attention_pattern="LLG", num_dense_layers=1, d_ff=16
)
LAYOUT = layers_lib.Layout.of(CONFIG, scan_layers=True)


def _stacked(variables):
  return {
    name: layers_lib.stack(collection, layout=LAYOUT)
    for name, collection in variables.items()
  }


def test_layout_of_the_sizes():
  for layers, dense, pattern, expected in (
    (42, 0, "LLLLLG", (0, 42, 7)),
    (42, 2, "LLLLLG", (6, 42, 6)),
    (24, 0, "LLLLLG", (0, 24, 4)),
    (7, 1, "LG", (2, 6, 2)),
    (3, 0, "LLLLLG", (3, 3, 0)),
    (4, 4, "LG", (4, 4, 0)),
  ):
    config = small_trunk.config(
      num_layers=layers, num_dense_layers=dense, attention_pattern=pattern
    )
    layout = layers_lib.Layout.of(config, scan_layers=True)
    assert (layout.first, layout.end, layout.blocks) == expected
    places = [layout.place(layer) for layer in range(layers)]
    assert len(set(places)) == layers
    off = layers_lib.Layout.of(config, scan_layers=False)
    assert off.blocks == 0 and off.unrolled == tuple(range(layers))


def test_runs_of_equal_layers_lie_together():
  layout = layers_lib.Layout.of(
    small_trunk.config(
      num_layers=12, attention_pattern="LLLLLG", num_dense_layers=0
    ),
    scan_layers=True,
  )
  assert [run.name for run in layout.runs] == ["layers_0_4", "layer_5"]
  assert layout.place(9) == (("blocks", "layers_0_4"), (1, 3))
  assert layout.place(11) == (("blocks", "layer_5"), (1,))


@pytest.mark.slow
def test_stack_and_unstack_are_inverse():
  variables = small_trunk.variables(small_trunk.model(CONFIG))
  for collection in variables.values():
    stacked = layers_lib.stack(collection, layout=LAYOUT)
    again = layers_lib.unstack(stacked, layout=LAYOUT)
    jax.tree.map(np.testing.assert_array_equal, again, collection)


@pytest.mark.slow
@pytest.mark.parametrize("policy", RematPolicy)
def test_scanned_equals_unrolled(policy):
  plain = small_trunk.model(CONFIG)
  scanned = small_trunk.model(CONFIG, scan_layers=True, remat_policy=policy)
  variables = small_trunk.variables(plain)
  stacked = _stacked(variables)
  batch = small_trunk.batch([[13, 4], [11]], length=20)
  # The layout is the one that init makes.
  shapes = jax.eval_shape(scanned.init, jax.random.key(0), batch)
  jax.tree.map(
    lambda made, ours: np.testing.assert_equal(made.shape, ours.shape),
    nn.unbox(shapes),
    stacked,
  )

  def gradient(model: interaction.InteractionModel, variables):
    @jax.jit
    def run(params):
      def loss(params):
        all_variables = dict(params=params, router=variables["router"])
        h, aux = model.apply(all_variables, batch, method="hidden")
        return jnp.mean(jnp.sin(h)), aux.load_KLE

      return jax.value_and_grad(loss, has_aux=True)(params)

    return run(variables["params"])

  (value, load), grads = gradient(scanned, stacked)
  (plain_value, plain_load), plain_grads = gradient(plain, variables)
  np.testing.assert_allclose(value, plain_value, atol=1e-6)
  np.testing.assert_array_equal(load, plain_load)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5),
    layers_lib.unstack(grads, layout=LAYOUT),
    plain_grads,
  )


@pytest.mark.slow
@pytest.mark.parametrize("policy", [RematPolicy.BLOCK, RematPolicy.OFFLOAD])
def test_balance_of_every_layer_is_collected(policy):
  plain = small_trunk.model(CONFIG)
  scanned = small_trunk.model(CONFIG, scan_layers=True, remat_policy=policy)
  variables = small_trunk.variables(plain)
  stacked = _stacked(variables)
  batch = small_trunk.batch([[13, 4], [11]], length=20)

  def losses(model, variables):
    """[layers, B], in any order of layers."""
    _, collected = model.apply(
      variables, batch, method="hidden", mutable=[moe.BALANCE]
    )
    rows = [leaf.reshape(-1, 2) for leaf in jax.tree.leaves(collected)]
    return np.sort(np.concatenate(rows), axis=0)

  want = losses(plain, variables)
  assert len(want) == CONFIG.num_layers - 1  # the first is dense
  np.testing.assert_allclose(losses(scanned, stacked), want, rtol=1e-5)


def test_a_scanned_trunk_refuses_a_cache():
  model = small_trunk.model(CONFIG, scan_layers=True)
  with pytest.raises(ValueError, match="scanned layers"):
    jax.eval_shape(
      lambda key: model.init(key, {}, None, method=extend_trunk),
      jax.random.key(0),
    )


def extend_trunk(model, chunk, cache):
  del chunk
  return model.trunk.extend(None, cache=cache, lengths_B=None, times_BT=None)
