"""Rules are checked before tracing, and constraints take effect."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import interaction, topologies
from tests.helpers import small_run
from tml_jax import errors
from tml_jax.config import MoeDispatch, MoeMatmul
from tml_jax.config import text as config_text
from tml_jax.models import norm
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import program

ONE = interaction.get_config("tiny").mesh


def _mesh(**axes: int):
  config = dataclasses.replace(ONE, **axes)
  return mesh_lib.create(config, devices=jax.devices()[:8])


def test_constraints_of_the_model_place_activations():
  mesh = _mesh(data=2, fsdp=2, seq=2)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    with mesh_lib.use(mesh, rules=ONE.axis_rules):
      x_BTD = jax.jit(norm.spread)(jnp.zeros((8, 6, 4)))
  assert x_BTD.sharding.shard_shape(x_BTD.shape) == (2, 3, 4)


@pytest.mark.slow
def test_hidden_states_inside_the_step_are_sharded():
  """Not only the input and the result: an activation on the way."""
  config = small_run.config(data=4, seq=2)
  mesh = mesh_lib.create(config.mesh)
  step = program.create(config, mesh=mesh)
  text = step.lower().as_text()
  width = config.model.d_model
  places = [
    line
    for line in text.splitlines()
    if "sdy.sharding_constraint" in line
    and f"tensor<8x{config.streams.seq_len}x{width}x" in line
  ]
  assert len(places) >= config.model.num_layers
  assert all('[{"data", "fsdp", "expert"}, {"seq"}, {}]' in x for x in places)


def test_slices_are_the_outer_part_of_data():
  mesh = _mesh(data=4, fsdp=2, slices=2)
  ids = np.vectorize(lambda d: d.id)(mesh.devices).reshape(4, 2)
  np.testing.assert_array_equal(ids, np.arange(8).reshape(4, 2))


@pytest.mark.parametrize(
  "axes, message",
  [
    (dict(data=3), "need 3 devices and there are 8"),
    (dict(data=4), "need 4 devices and there are 8"),  # four unused
    (dict(fsdp=8, slices=2), "mesh.data = 1 cannot be split.*slices = 2"),
    (dict(fsdp=4, seq=2, rules=("batch:fsdp",)), "no rule.*axis 'seq'"),
  ],
)
def test_bad_meshes_raise(axes, message):
  with pytest.raises(errors.UserError, match=message):
    _mesh(**axes)


@pytest.mark.parametrize(
  "axes, changes, message",
  [
    (
      dict(fsdp=2, expert=4),
      {"model.num_experts": 6},
      "mlp/down: dim 0 .experts. of size 6 cannot be split over 4",
    ),
    (
      dict(fsdp=8),
      {"train.global_batch_size": 12},
      "dim 0 .batch. of size 12 cannot be split over 8",
    ),
    (
      dict(fsdp=8),
      {
        "train.execution.moe_dispatch": MoeDispatch.ALL_GATHER,
        "train.execution.moe_matmul": MoeMatmul.MEGABLOX,
      },
      "runs on TPUs and .* platform 'cpu'; set .*moe_matmul=tiled",
    ),
    (
      dict(expert=8),
      {"train.execution.moe_dispatch": MoeDispatch.RAGGED_ALL_TO_ALL},
      "runs on TPUs .* set .*moe_dispatch=padded_all_to_all",
    ),
  ],
)
def test_what_a_mesh_cannot_run_raises_before_tracing(axes, changes, message):
  config = config_text.with_fields(small_run.config(**axes), changes)
  mesh = mesh_lib.create(config.mesh, devices=jax.devices()[:8])
  with pytest.raises(errors.UserError, match=message):
    program.create(config, mesh=mesh)


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("rules", ("batch",), "write NAME:AXIS"),
    ("rules", ("batch:pod",), "write NAME:AXIS"),
    ("rules", ("batch:data", "batch:fsdp"), "two rules"),
    ("compiler_options", ("xla_tpu_bogus",), "write FLAG=VALUE"),
    ("compiler_options", ("xla_tpu_x=",), "write FLAG=VALUE"),
    ("compiler_options", ("xla_tpu_x=/etc/x",), "a number or a WORD"),
    ("compiler_options", ("xla_tpu_x=name",), "a number or a WORD"),
    ("compiler_options", ("xla_tpu_x=..",), "a number or a WORD"),
    ("slices", 0, "at least 1"),
  ],
)
def test_bad_config_values_raise(field, value, message):
  with pytest.raises(errors.UserError, match=message):
    dataclasses.replace(ONE, **{field: value})


@pytest.mark.parametrize("value", ["true", "1", "AUTO"])
@pytest.mark.parametrize(
  "name",
  [
    "xla_dump_to",
    "xla_dump_hlo_as_text",
    "xla_gpu_dump_autotune_results_to",
    "xla_gpu_load_autotune_results_from",
    "xla_gpu_kernel_cache_file",
    "xla_gpu_per_fusion_autotune_cache_dir",
    "xla_gpu_pgle_profile_file_or_directory_path",
    "xla_gpu_cuda_data_dir",
    "xla_gpu_ptx_file",
  ],
)
def test_a_config_names_no_files_for_the_compiler(name, value):
  """A run's config.txt is read by whoever resumes, samples or evaluates it."""
  with pytest.raises(errors.UserError, match="names no files"):
    dataclasses.replace(ONE, compiler_options=(f"{name}={value}",))


def test_options_of_all_kinds_are_taken():
  values = ("true", "false", "65536", "-1", "0.5", "ENABLED")
  options = tuple(f"xla_tpu_x{i}={v}" for i, v in enumerate(values))
  mesh = dataclasses.replace(ONE, compiler_options=options)
  assert [*mesh.compiler_flags.values()] == [True, False, *values[2:]]


def test_an_abstract_mesh_gives_the_same_shardings():
  config = dataclasses.replace(ONE, fsdp=4, tensor=2)
  place = dict(
    names=("embed", "heads"), shape=(8, 6), rules=ONE.axis_rules, what="q"
  )
  names = place.pop("names")
  real = mesh_lib.sharding(names, mesh=_mesh(fsdp=4, tensor=2), **place)
  shape_only = mesh_lib.sharding(names, mesh=mesh_lib.abstract(config), **place)
  assert real.spec == shape_only.spec
  assert shape_only.shard_shape((8, 6)) == real.shard_shape((8, 6)) == (2, 3)


@pytest.mark.parametrize(
  "name, message",
  [
    ("tiny@v7x:2x2", "no rules for 'v7x'"),
    ("tiny@v5p:2x2x1:none", "'none' is no number of slices"),
    ("tiny@v5p:2x2x1:0", "'0' is no number of slices"),
  ],
)
def test_bad_topologies_raise(name, message):
  with pytest.raises(errors.UserError, match=message):
    interaction.get_config(name)


def test_a_topology_changes_only_where_and_how_it_runs():
  plain = interaction.get_config("tml_interaction_small")
  placed = interaction.get_config("tml_interaction_small@v5p:8x8x8:2")
  assert placed.mesh.slices == placed.mesh.data == 2
  assert placed.mesh.rules == topologies.RULES
  assert placed.model == plain.model and placed.data == plain.data
  assert placed.train.global_batch_size == plain.train.global_batch_size
  assert placed.train.optim == plain.train.optim
