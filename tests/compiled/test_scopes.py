"""Costs by module and pass, of op_names and of small compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tml_jax.compiled import hlo, roofline, scopes
from tml_jax.compiled.scopes import Pass, Scope
from tml_jax.parallel import chips

BACK = "jit(train_step)/transpose(jvp(InteractionModel.hidden))"


@pytest.mark.parametrize(
  "op_name, path, kind",
  [
    (
      "jit(train_step)/jvp(InteractionModel.hidden)/trunk/layer_02/"
      "layer_02._feed_forward/mlp/mlp._shared/dot_general",
      "trunk/layer_*/feed_forward/mlp/shared",
      Pass.FORWARD,
    ),
    (
      f"{BACK}/trunk/layer_00/attention/attention._project/btd,dnh->btnh/mul",
      "trunk/layer_*/attention/project",
      Pass.BACKWARD,
    ),
    (
      f"{BACK}/trunk/while/body/closed_call/checkpoint/rematted_computation/"
      "blocks/layer_5/attention/global/cond/branch_0_fun/add",
      "trunk/blocks/layer_*/attention/global",
      Pass.RECOMPUTED,
    ),
    (
      "jit(train_step)/jvp(vmap(InteractionModel.velocity))/flow_head/"
      "expand_1/jit(silu)/mul",
      "flow_head/expand_*",
      Pass.FORWARD,
    ),
    (
      "jit(train_step)/jvp(text_loss)/InteractionModel.logits/exp",
      "text_loss/logits",
      Pass.FORWARD,
    ),
    (
      f"{BACK}/trunk/mlp/shard_map/gate/jit(gmm)/pallas_call",
      "trunk/mlp/gate/gmm",
      Pass.BACKWARD,
    ),
    (
      "jit(train_step)/muon/vmap(newton_schulz)/dot_general",
      "muon/newton_schulz",
      Pass.OUTSIDE,
    ),
    ("jit(f)/a/add;jit(f)/b/mul", "a", Pass.OUTSIDE),
    ("jit(f)/jvp()/add", scopes.UNNAMED, Pass.FORWARD),
    ("", scopes.UNNAMED, Pass.OUTSIDE),
  ],
)
def test_scopes_of_op_names(op_name, path, kind):
  assert Scope.of(op_name) == Scope(path, kind)


def test_flops_by_module_and_pass():
  """Three layers in a scan, recomputed, then a head that is not."""
  rows, width, layers, out = 32, 16, 3, 8

  def layer(x, w):
    with jax.named_scope("layer"):
      return jnp.tanh(jnp.tanh(x @ w) @ w), None

  def loss(params, x):
    x, _ = jax.lax.scan(jax.checkpoint(layer), x, params["layers"])
    with jax.named_scope("head"):
      return jnp.sum(jnp.tanh(x @ params["head"]))

  def step(params, x):
    gradient = jax.grad(loss)(params, x)
    with jax.named_scope("update"):
      product = gradient["head"].T @ gradient["head"]
    return gradient, product

  params = {
    "layers": jnp.ones((layers, width, width)),
    "head": jnp.ones((width, out)),
  }
  compiled = jax.jit(step).lower(params, jnp.ones((rows, width))).compile()
  module, chip = hlo.parse(compiled.as_text()), chips.CHIPS["v5p"]
  found = scopes.by_module(module, chip=chip)
  products = {r.scope: r.flops for r in found if r.flops}
  one = 2 * rows * width * width
  head = 2 * rows * width * out
  assert products == {
    Scope("layer", Pass.FORWARD): layers * 2 * one,
    # The last product's result is not needed again.
    Scope("layer", Pass.RECOMPUTED): layers * 2 * one,
    Scope("layer", Pass.BACKWARD): layers * 4 * one,
    Scope("head", Pass.FORWARD): head,
    Scope("head", Pass.BACKWARD): 2 * head,
    Scope("update", Pass.OUTSIDE): 2 * width * out * out,
  }
  place = roofline.Place(
    mesh_shape=(1,), names=("data",), coords=np.zeros((1, 3), int)
  )
  whole = roofline.analyse(module, chip=chip, place=place)
  assert sum(r.flops for r in found) == pytest.approx(whole.flops)
  assert sum(r.hbm_bytes for r in found) == pytest.approx(whole.hbm_bytes)
  assert sum(r.seconds for r in found) == pytest.approx(
    whole.times.instructions_s
  )

  lines = scopes.table(scopes.report(found, chip=chip), count=2)
  assert any("more" in line for line in lines)
  sums = [line.split()[2] for line in lines if "= all" in line]
  assert sums == ["forward", "backward", "recomputed", "outside"]


def test_exchanges_by_module():
  """A sum over four of eight devices, in a row of links."""
  mesh = jax.make_mesh((2, 4), ("data", "fsdp"))
  spec = jax.sharding.PartitionSpec(("data", "fsdp"))

  def add(x):
    with jax.named_scope("sum_of_parts"):
      return jax.lax.psum(x, "fsdp")

  mapped = jax.shard_map(
    add,
    mesh=mesh,
    in_specs=spec,
    out_specs=jax.sharding.PartitionSpec("data"),
  )
  x = jax.ShapeDtypeStruct(
    (8, 256), jnp.float32, sharding=jax.sharding.NamedSharding(mesh, spec)
  )
  module = hlo.parse(jax.jit(mapped).lower(x).compile().as_text())
  grid = np.stack(np.unravel_index(np.arange(8), (2, 4, 1)), axis=1)
  place = roofline.Place(mesh_shape=(2, 4), names=("data", "fsdp"), coords=grid)
  rows = scopes.by_module(module, chip=chips.CHIPS["v5p"], place=place)
  (row,) = [row for row in rows if row.exchanged_bytes]
  assert row.scope == Scope("sum_of_parts", Pass.OUTSIDE)
  assert row.exchanged_bytes == 2 * 256 * 4 * 3 / 4
  assert row.exposed_s == row.exchange_s == row.exchanged_bytes / (2 * 90e9)
