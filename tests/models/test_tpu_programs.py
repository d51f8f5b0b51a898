"""What only a TPU runs, compiled for TPUs that are not there.

Kernels and exchanges of the routed experts, Muon on a mesh, a whole train
step: that they compile, that the kernels are in the program, and that no
product is computed for experts that a row did not choose.
"""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import pytest

from experiments import topologies
from tests.helpers import small_run
from tml_jax.compiled import (
  collectives,
  costs,
  executed,
  hlo,
  roofline,
  scopes,
)
from tml_jax.config import (
  PLAIN,
  Dtype,
  MeshConfig,
  MoeDispatch,
  MoeMatmul,
  Precision,
  RematPolicy,
)
from tml_jax.kernels import low_precision
from tml_jax.kernels.experts import grouped, tiled
from tml_jax.parallel import chips, topology
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import flops, muon
from tml_jax.training import program as program_lib

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install '.[aot]'",
  ),
]
# Of the reference model; few tokens, few experts.
D_MODEL, D_FF, EXPERTS, PER_TOKEN, TOKENS = 4096, 2048, 16, 2, 512
SLICES = ["v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"]


def execution_of(dispatch: MoeDispatch, *, buffer: float):
  return dataclasses.replace(
    PLAIN,
    moe_dispatch=dispatch,
    moe_matmul=MoeMatmul.MEGABLOX,
    moe_buffer=buffer,
  )


@pytest.fixture(scope="module", autouse=True)
def environment():
  topology.prepare_environment()


def mesh_config(**axes) -> MeshConfig:
  ones = dict(data=1, fsdp=1, expert=1, tensor=1, seq=1)
  return MeshConfig(rules=topologies.RULES, **(ones | axes))


def mesh_of(name: str, *, config: MeshConfig) -> jax.sharding.Mesh:
  devices = topology.devices(name, num_slices=1)
  return mesh_lib.create(config, devices=devices)


def axes_of(name: str) -> dict[str, int]:
  """Experts over half of the devices of a slice of four chips."""
  return dict(fsdp=2 * chips.of(name).devices, expert=2)


def abstract(shape, *names, config, mesh, dtype="bfloat16"):
  """An array cut as a model's would be."""
  sharding = mesh_lib.sharding(
    names, shape=shape, mesh=mesh, rules=config.axis_rules, what="argument"
  )
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def compiled(function, *arguments, config, mesh) -> hlo.Module:
  with mesh_lib.use(mesh, rules=config.axis_rules):
    lowered = jax.jit(function).lower(*arguments)
  return hlo.parse(lowered.compile().as_text())


def executed_flops(module: hlo.Module) -> float:
  total = 0.0
  for step in executed.Walk(module).executed():
    work = costs.flops(step.instruction, scope=step.computation, module=module)
    assert work is not None, step.instruction.op_name
    total += step.count * work
  return total


def kernels(module: hlo.Module, name: str) -> list[hlo.Instruction]:
  """Pallas calls of a function called `name`."""
  return [
    step.instruction
    for step in executed.Walk(module).executed()
    if costs.custom_call_target(step.instruction) == "tpu_custom_call"
    and f"jit({name})" in step.instruction.op_name
  ]


def layer(execution, *, name: str, tokens: int = TOKENS, form=None):
  """Gradients of one layer of experts for a slice, and its devices."""
  config = mesh_config(**axes_of(name))
  mesh = mesh_of(name, config=config)
  devices = mesh.size

  def array(shape, *names, dtype="bfloat16"):
    return abstract(shape, *names, config=config, mesh=mesh, dtype=dtype)

  into = (EXPERTS, D_MODEL, D_FF)
  weights = tiled.Weights(
    gate_EDF=array(into, *tiled.NAMES.gate_EDF),
    up_EDF=array(into, *tiled.NAMES.up_EDF),
    down_EFD=array((EXPERTS, D_FF, D_MODEL), *tiled.NAMES.down_EFD),
  )
  rows = (devices, tokens)
  x = array((*rows, D_MODEL), "batch", "time", "none")
  shares = array((*rows, PER_TOKEN), "batch", "time", "none", dtype="float32")
  chosen = array((*rows, PER_TOKEN), "batch", "time", "none", dtype="int32")

  def step(x, weights, shares, chosen, dy):
    def experts(x, weights, shares):
      return tiled.apply(
        x,
        weights=weights,
        experts_BTk=chosen,
        shares_BTk=shares,
        tile=128,
        execution=execution,
        form=form,
      )

    y, pull = jax.vjp(experts, x, weights, shares)
    return y, pull(dy)

  module = compiled(
    step, x, weights, shares, chosen, x, config=config, mesh=mesh
  )
  return module, mesh


def needed(*, again: int) -> float:
  """FLOPs of one layer's products on a device: three, and two transposes of
  each; `again` of them once more in the backward pass."""
  product = 2.0 * TOKENS * PER_TOKEN * D_MODEL * D_FF
  return product * (3 + 3 + 3 + again)


@pytest.mark.parametrize("name", SLICES)
def test_gathered_tokens_and_grouped_kernels(name):
  """One turn of a buffer that holds exactly an even load."""
  execution = execution_of(MoeDispatch.ALL_GATHER, buffer=1.0)
  module, mesh = layer(execution, name=name)
  # Gate, up and down forward; their transposes; hidden rows are kept.
  assert len(kernels(module, "gmm")) == 3 + 3
  assert len(kernels(module, "tgmm")) == 3
  assert executed_flops(module) == pytest.approx(needed(again=0), rel=0.01)
  found = collectives.find(module, num_devices=mesh.size)
  assert {"all-gather", "reduce-scatter"} <= {one.kind for one in found}


@pytest.mark.parametrize(
  "name, precision",
  [
    (SLICES[0], Precision.INT8),
    (SLICES[1], Precision.INT8),
    (SLICES[2], Precision.FP8),
  ],
)
def test_experts_in_8_bits(name, precision):
  """Two of three products run at the rate of 8 bits; none in float32."""
  execution = execution_of(MoeDispatch.ALL_GATHER, buffer=1.0)
  form = low_precision.FORMS[precision]
  module, mesh = layer(execution, name=name, form=form)
  assert not kernels(module, "gmm")
  assert len(kernels(module, "tgmm")) == 3  # gradients of weights
  assert executed_flops(module) == pytest.approx(needed(again=0), rel=0.01)
  chip = chips.of(name)
  analysis = roofline.analyse(module, chip=chip, place=roofline.place_of(mesh))
  in_bfloat16 = needed(again=0) / (chip.peak_flops / chip.devices)
  assert analysis.times.compute_s == pytest.approx(
    in_bfloat16 * (2 / 2 + 1) / 3, rel=0.01
  )
  # Weights travel in 8 bits, and once.
  gathers = [
    one
    for one in collectives.find(module, num_devices=mesh.size)
    if one.kind == "all-gather"
    and collectives.axes(
      one.group, mesh_shape=mesh.devices.shape, names=mesh.axis_names
    )
    == ("fsdp",)
  ]
  weights = 3 * EXPERTS // 2 * D_MODEL * D_FF
  assert sum(g.bytes * g.count for g in gathers) == pytest.approx(
    weights, rel=0.02
  )


@pytest.mark.parametrize("name", SLICES)
def test_a_ragged_all_to_all_and_its_transpose(name):
  execution = execution_of(MoeDispatch.RAGGED_ALL_TO_ALL, buffer=1.0)
  module, mesh = layer(execution, name=name)
  found = collectives.find(module, num_devices=mesh.size)
  ragged = [one for one in found if one.kind == "ragged-all-to-all"]
  # There and back; x, dy and dx in the backward pass.
  assert len(ragged) == 2 + 3
  # 23 of 30 tokens have an expert on one of the two devices.
  slots = 8 * -(-TOKENS * 23 // 30 // 8)
  assert {one.bytes for one in ragged} == {2 * slots * D_MODEL * 2}
  axes = {
    (
      one.kind,
      collectives.axes(
        one.group, mesh_shape=mesh.devices.shape, names=mesh.axis_names
      ),
    )
    for one in found
  }
  assert ("ragged-all-to-all", ("expert",)) in axes
  assert ("all-gather", ("fsdp",)) in axes  # the weights
  assert ("all-gather", ("expert",)) not in axes
  # Backward runs the rounds again, gate and up among them.
  assert len(kernels(module, "gmm")) == 3 + 2 + 3
  assert executed_flops(module) == pytest.approx(needed(again=2), rel=0.01)


@pytest.mark.parametrize("name", SLICES)
def test_the_kernels_alone(name):
  """No mesh axis but one, no exchange: `grouped` on each device."""
  config = mesh_config(fsdp=4 * chips.of(name).devices)
  mesh = mesh_of(name, config=config)
  spec = jax.sharding.PartitionSpec("fsdp")

  def array(shape, dtype="bfloat16"):
    names = ("batch", *(None for _ in shape))
    shape = (mesh.size, *shape)
    return abstract(shape, *names, config=config, mesh=mesh, dtype=dtype)

  weights = tiled.Weights(
    gate_EDF=array((EXPERTS, D_MODEL, D_FF)),
    up_EDF=array((EXPERTS, D_MODEL, D_FF)),
    down_EFD=array((EXPERTS, D_FF, D_MODEL)),
  )

  def device(x, weights, shares, chosen, dy):
    x, weights, shares, chosen, dy = jax.tree.map(
      lambda a: a[0], (x, weights, shares, chosen, dy)
    )

    def form(x, weights, shares):
      return grouped.grouped(
        x,
        weights=weights,
        experts_Nk=chosen,
        shares_Nk=shares,
        rows=TOKENS * PER_TOKEN,
      )

    y, pull = jax.vjp(form, x, weights, shares)
    return jax.tree.map(lambda a: a[None], (y, pull(dy)))

  step = jax.shard_map(
    device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
  )
  x = array((TOKENS, D_MODEL))
  module = compiled(
    step,
    x,
    weights,
    array((TOKENS, PER_TOKEN), "float32"),
    array((TOKENS, PER_TOKEN), "int32"),
    x,
    config=config,
    mesh=mesh,
  )
  assert len(kernels(module, "tgmm")) == 3
  assert executed_flops(module) == pytest.approx(needed(again=0), rel=0.01)
  assert collectives.find(module, num_devices=mesh.size) == []


@pytest.mark.parametrize("name", SLICES)
def test_muon_multiplies_every_matrix_once(name):
  """A matrix of a layer for each device, in pieces on all of them."""
  config = mesh_config(fsdp=4 * chips.of(name).devices)
  mesh = mesh_of(name, config=config)
  size = 1024
  shape = (mesh.size, size, size)
  x = abstract(
    shape, None, "embed", None, config=config, mesh=mesh, dtype="float32"
  )
  matrix = muon.Matrix(("embed", None), (-2,), (-1,))
  module = compiled(
    lambda x: muon.orthogonal(x, matrix), x, config=config, mesh=mesh
  )
  found = collectives.find(module, num_devices=mesh.size)
  assert {one.kind for one in found} == {"all-to-all"}
  assert sum(one.count for one in found) == 2
  products = muon.STEPS * 3 * 2.0 * size**3
  assert executed_flops(module) == pytest.approx(products, rel=0.01)


@pytest.mark.parametrize("dispatch", list(MoeDispatch)[1:3])
def test_a_whole_train_step(dispatch):
  """Small, two layers, every part of a step; kernels in every layer."""
  config = small_run.config(**axes_of(SLICES[0]))
  model = dataclasses.replace(config.model, d_model=128, expert_d_ff=128)
  execution = execution_of(dispatch, buffer=1.25)
  train = dataclasses.replace(
    config.train, execution=execution, remat_policy=RematPolicy.BLOCK
  )
  mesh_axes = dataclasses.replace(config.mesh, rules=topologies.RULES)
  config = dataclasses.replace(config, model=model, train=train, mesh=mesh_axes)
  mesh = mesh_of(SLICES[0], config=config.mesh)
  program = program_lib.create(config, mesh=mesh)
  module = hlo.parse(program.compile(program.lower()).as_text())
  assert len(kernels(module, "tgmm")) == 2 * 3
  kinds = {o.kind for o in collectives.find(module, num_devices=mesh.size)}
  ragged = dispatch is MoeDispatch.RAGGED_ALL_TO_ALL
  assert ("ragged-all-to-all" in kinds) == ragged
  # Newton-Schulz, which the model does not need, is most of so small a step.
  rows = scopes.by_module(
    module, chip=chips.of(SLICES[0]), place=roofline.place_of(mesh)
  )
  run_flops = sum(
    row.flops for row in rows if not row.scope.path.startswith("optimizer")
  )
  ratio = run_flops * mesh.size / flops.step_flops(config)
  assert 1 < ratio < 3


@pytest.mark.parametrize("name", SLICES)
def test_inputs_of_scanned_layers_wait_in_host_memory(name):
  """Runs of layers in blocks: there and back once, and nothing else."""
  config = small_run.config(**axes_of(name))
  model = dataclasses.replace(
    config.model,
    d_model=256,
    expert_d_ff=128,
    num_layers=6,
    num_dense_layers=0,
    attention_pattern="LLG",
  )
  execution = dataclasses.replace(
    execution_of(MoeDispatch.ALL_GATHER, buffer=1.25), scan_layers=True
  )
  train = dataclasses.replace(
    config.train,
    execution=execution,
    remat_policy=RematPolicy.OFFLOAD,
    dtype=Dtype.BFLOAT16,
  )
  mesh_axes = dataclasses.replace(config.mesh, rules=topologies.RULES)
  config = dataclasses.replace(config, model=model, train=train, mesh=mesh_axes)
  mesh = mesh_of(name, config=config.mesh)
  program = program_lib.create(config, mesh=mesh)
  module = hlo.parse(program.compile(program.lower()).as_text())
  analysis = roofline.analyse(
    module, chip=chips.of(name), place=roofline.place_of(mesh)
  )
  tokens = train.global_batch_size * config.streams.seq_len // mesh.size
  inputs = model.num_layers * tokens * model.d_model * 2
  assert analysis.host_bytes == pytest.approx(2 * inputs, rel=0.01)


@pytest.mark.parametrize("argument", [False, True])
def test_what_lies_in_the_host_is_not_in_hbm(argument):
  """Sixteen arrays of 64 MiB wait there; three at most are on the device."""
  device = topology.devices("v5p:2x2x1", num_slices=1)[0]
  here, there = (
    jax.sharding.SingleDeviceSharding(device, memory_kind=kind)
    for kind in ("device", "pinned_host")
  )
  size = 16 * 2**20
  x = jax.ShapeDtypeStruct((size,), jnp.float32, sharding=here)
  kept = jax.ShapeDtypeStruct((16, size), jnp.float32, sharding=there)

  def forth(x, _):
    return jnp.sin(x) * jnp.roll(x, 1), jax.device_put(x, there)

  def back(x, y):
    return jnp.roll(x, 3) + jax.device_put(y, here), None

  def both(x, kept=None):
    if kept is None:
      x, kept = jax.lax.scan(forth, x, None, length=16)
    return jax.lax.scan(back, x, kept)[0]

  arguments = (x, kept) if argument else (x,)
  compiled = jax.jit(both, donate_argnums=0).lower(*arguments).compile()
  memory = compiled.memory_analysis()
  assert memory.peak_memory_in_bytes > 16 * 4 * size  # with what is in the host
  assert 4 * size < chips.peak_bytes(memory) <= 3.1 * 4 * size
