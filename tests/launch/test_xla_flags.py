"""Sets of compiler options: names, conflicts, and what libtpu accepts."""

import dataclasses
import importlib.util
import json

import pytest

from experiments import interaction, topologies
from launch import xla_flags
from tests.helpers import commands
from tml_jax import errors

ROW = ("medium", "v5p:2x2x2")

# Compiles a product with gathered weights and its gradient with each set.
_COMPILE = """
import json
import sys
from tml_jax.parallel import topology
topology.prepare_environment()
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

name, sets = sys.argv[1], json.loads(sys.argv[2])
mesh = Mesh(np.array(topology.devices(name, num_slices=1)), ("fsdp",))

def loss(weights_LDD, x_BD):
  def layer(x_BD, w_DD):
    return jnp.tanh(x_BD @ w_DD), None
  x_BD, _ = jax.lax.scan(layer, x_BD, weights_LDD)
  return jnp.sum(jnp.square(x_BD.astype(jnp.float32)))

weights = NamedSharding(mesh, P(None, "fsdp"))
lowered = jax.jit(
  jax.grad(loss),
  in_shardings=(weights, NamedSharding(mesh, P("fsdp"))),
  out_shardings=weights,
).lower(
  jax.ShapeDtypeStruct((2, 512, 512), jnp.bfloat16),
  jax.ShapeDtypeStruct((512 * mesh.size, 512), jnp.bfloat16),
)
for name, options in sets.items():
  try:
    lowered.compile(options)
  except jax.errors.JaxRuntimeError as error:
    print(name, str(error).splitlines()[0])
"""


def test_every_set_says_why_and_from_where():
  for name, flag_set in xla_flags.SETS.items():
    assert flag_set.reason and flag_set.source and flag_set.options, name
  assert {"async_collective_fusion", "sparsecore", "scoped_vmem"} <= (
    xla_flags.SETS.keys()
  )


def test_sets_are_joined_in_order_and_said_once():
  names = ["latency_hiding", "host_offload", "latency_hiding"]
  options = xla_flags.resolve(names)
  flags = [option.partition("=")[0] for option in options]
  assert len(flags) == len(set(flags))
  assert flags[0] == "xla_tpu_enable_latency_hiding_scheduler"
  assert "xla_tpu_host_transfer_overlap_limit=24" in options


@pytest.mark.parametrize(
  "names, message",
  [
    (["scoped_vmen"], "named 'scoped_vmen'; the nearest is 'scoped_vmem'"),
    (
      ["async_collective_fusion", "sparsecore"],
      "'async_collective_fusion' and 'sparsecore' want .*fuse_all_gather",
    ),
  ],
)
def test_unknown_and_contradicting_sets_raise(names, message):
  with pytest.raises(errors.UserError, match=message):
    xla_flags.resolve(names)


def test_a_row_puts_its_sets_into_the_config(monkeypatch):
  row = dataclasses.replace(
    topologies.ROWS[ROW], flag_sets=("scoped_vmem", "async_all_reduce")
  )
  monkeypatch.setitem(topologies.ROWS, ROW, row)
  mesh = interaction.get_config("@".join(ROW)).mesh
  assert mesh.compiler_flags["xla_tpu_scoped_vmem_limit_kib"] == "65536"
  assert mesh.compiler_flags["xla_enable_async_all_reduce"] is True


def test_a_row_with_an_unknown_set_raises(monkeypatch):
  row = dataclasses.replace(topologies.ROWS[ROW], flag_sets=("sparse_core",))
  monkeypatch.setitem(topologies.ROWS, ROW, row)
  with pytest.raises(errors.UserError, match="nearest is 'sparsecore'"):
    interaction.get_config("@".join(ROW))


def test_the_command_prints_what_a_flag_takes():
  result = commands.run("-m", "launch.xla_flags", "low_memory", "scoped_vmem")
  assert result.stdout == (
    "xla_latency_hiding_scheduler_rerun=5,xla_tpu_rwb_fusion=false,"
    "xla_tpu_scoped_vmem_limit_kib=65536\n"
  )
  listing = commands.run("-m", "launch.xla_flags").stdout
  assert all(f"\n{name}\n" in f"\n{listing}" for name in xla_flags.SETS)
  refused = commands.run("-m", "launch.xla_flags", "none_such")
  assert refused.returncode == 2
  assert refused.stderr.startswith("error: no set of XLA flags")


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu is not installed: pip install '.[aot]'",
)
@pytest.mark.parametrize("name", ["v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
def test_libtpu_accepts_every_set_and_refuses_a_bad_one(name):
  mesh = interaction.get_config("medium").mesh
  sets = {
    key: dataclasses.replace(
      mesh, compiler_options=xla_flags.resolve([key])
    ).compiler_flags
    for key in xla_flags.SETS
  }
  sets["bogus"] = {"xla_tpu_bogus": True}
  result = commands.run("-c", _COMPILE, name, json.dumps(sets), timeout=900)
  assert result.returncode == 0, result.stderr
  assert result.stdout.splitlines() == [
    "bogus INVALID_ARGUMENT: No such compile option: 'xla_tpu_bogus'"
  ]
