"""The attention kernels compiled for TPUs that are not there; long steps."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.helpers import commands
from tml_jax.compiled import hlo, roofline
from tml_jax.kernels.attention import flash
from tml_jax.parallel import chips, topology

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install '.[aot]'",
  ),
]
LENGTH = 4096
# The reference's attention with little else, on eight chips.
SMALL = """--config=experiments/interaction.py:tml_interaction_small@v5p:2x2x2
--topology=v5p:2x2x2
--config.model.num_layers=6
--config.model.num_experts=8
--config.model.expert_d_ff=512
--config.model.vocab_size=4160
--config.streams.text_vocab_size=4096
--config.model.flow.width=256
--config.model.flow.depth=1
--config.train.optim.name=adamw
--config.mesh.expert=1
--config.mesh.fsdp=2
--config.mesh.seq=4
--config.train.global_batch_size=2
--config.data.logical_shards=2""".split()


def largest_square(module: hlo.Module) -> int:
  """The largest size that two dims of one array reach."""
  return max(
    sorted(array.dims)[-2]
    for computation in module.computations.values()
    for item in computation.instructions
    for array in item.arrays
    if len(array.dims) > 1
  )


@pytest.mark.parametrize("name", ["v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
@pytest.mark.parametrize("window", [512, LENGTH])
def test_kernels_compile_and_state_their_cost(name, window):
  topology.prepare_environment()
  devices = topology.devices(name, num_slices=1)
  mesh = jax.sharding.Mesh(np.array(devices).reshape(-1), ("data",))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  batch = len(devices)
  shape = jax.ShapeDtypeStruct

  def each(heads, size):
    dims = (batch, LENGTH, heads, size)
    return shape(dims, jnp.bfloat16, sharding=rows)

  def both(q, k, v, r, profiles, segments):
    def form(q, k, v, r, profiles):
      return flash.attend(
        q,
        k_BTKH=k,
        v_BTKH=v,
        r_BTNR=r,
        profiles_RE=profiles,
        segment_ids_BT=segments,
        window=window,
        block=flash.LOCAL_BLOCK if window < LENGTH else flash.GLOBAL_BLOCK,
      )

    out, pull = jax.vjp(form, q, k, v, r, profiles)
    return pull(out)

  with jax.set_mesh(mesh), nn.logical_axis_rules([("batch", ("data",))]):
    lowered = jax.jit(both).lower(
      each(32, 128),
      each(8, 128),
      each(8, 128),
      each(32, 16),
      shape((16, min(window, 1024)), jnp.float32, sharding=whole),
      shape((batch, LENGTH), jnp.int32, sharding=rows),
    )
  module = hlo.parse(lowered.compile().as_text())
  assert largest_square(module) < LENGTH
  analysis = roofline.analyse(
    module, chip=chips.of(name), place=roofline.place_of(mesh)
  )
  seen = window if window < LENGTH else LENGTH / 2
  need = (2 + 5) * 2 * LENGTH * seen * 32 * 128
  assert need < analysis.flops < 2.2 * need


@pytest.mark.parametrize("length", [8192, 32768, 131072])
def test_a_step_on_long_sequences_has_no_square(length, tmp_path):
  scale = length // 8192
  result = commands.run(
    "-m",
    "tml_jax.aot",
    *SMALL,
    f"--config.streams.seq_len={length}",
    f"--config.streams.max_audio={6656 * scale}",
    f"--config.streams.max_targets={2560 * scale}",
    f"--config.streams.max_speak={768 * scale}",
    f"--hlo={tmp_path}/step.txt",
    timeout=1500,
  )
  assert result.returncode == 0, result.stderr
  module = hlo.parse((tmp_path / "step.txt").read_text())
  assert largest_square(module) < length
