"""The train step as a program for a mesh: what training runs.

For: `train`, which runs it, and `aot`, which compiles it for devices that are
not there. Not for: what the step computes (`step`). Start at `create`, the
interaction model's; `of` makes that of any model.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from flax import linen as nn

from tml_jax import errors
from tml_jax.config import (
  AttentionForm,
  Config,
  ExecutionConfig,
  MoeDispatch,
  MoeMatmul,
)
from tml_jax.models import precision
from tml_jax.parallel import chips
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import losses, optim
from tml_jax.training import objective as objective_lib
from tml_jax.training import state as state_lib
from tml_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Program:
  """The step with everything it is traced from.

  Attributes:
    config: the experiment.
    mesh: the mesh.
    model: the model.
    objective: what is minimised.
    optimizer: the optimizer.
    abstract: the state that a step takes and gives.
    batch_sharding: of every array of a global batch.
    batch: shapes of a global batch, where its parts lie.
  """

  config: Any
  mesh: jax.sharding.Mesh
  model: nn.Module
  objective: objective_lib.Objective
  optimizer: optax.GradientTransformation
  abstract: state_lib.Abstract
  batch_sharding: jax.sharding.NamedSharding
  batch: Any

  @property
  def arguments(self) -> dict[str, Any]:
    """Abstract arrays of a call, by what they are."""
    state = self.abstract.state
    fields = dataclasses.fields(state)
    parts = {field.name: getattr(state, field.name) for field in fields}
    return parts | {"batch": self.batch}

  def lower(self) -> jax.stages.Lowered:
    """Traces the step; its first argument, the state, is donated.

    Every process has all of the metrics, whose arrays are small.
    """
    everywhere = jax.sharding.NamedSharding(
      self.mesh, jax.sharding.PartitionSpec()
    )
    with mesh_lib.use(self.mesh, rules=self.config.mesh.axis_rules):
      train_step = jax.jit(
        step_lib.create(
          self.config,
          model=self.model,
          optimizer=self.optimizer,
          objective=self.objective,
        ),
        donate_argnums=0,
        out_shardings=(self.abstract.shardings, everywhere),
      )
      return train_step.lower(self.abstract.state, self.batch)

  def compile(
    self,
    lowered: jax.stages.Lowered,
    *,
    options: Mapping[str, str | bool] = types.MappingProxyType({}),
  ) -> jax.stages.Compiled:
    """Compiles with the config's options and `options`."""
    return lowered.compile(self.config.compiler_options | options)


def create(config: Config, *, mesh: jax.sharding.Mesh) -> Program:
  """That of pretraining; nothing is traced but the initialisation.

  Raises:
    errors.UserError: as `of`, or a choice that these devices have not.
  """
  device = mesh.devices.flat[0]
  _check_platform(config.train.execution, platform=device.platform)
  for regex, eight_bits in config.train.precision_rules:
    chips.require(
      device.device_kind,
      dtype=precision.dtype(eight_bits),
      what=f"train.low_precision: {regex}={eight_bits}",
    )
  model = state_lib.create_model(config)
  example = functools.partial(state_lib.example_batch, config)
  program = of(
    model,
    config=config,
    mesh=mesh,
    boxed_variables=lambda key: model.init(key, example(batch_size=1).packed),
    example=example,
    objective=losses.PRETRAINING,
  )
  params = program.abstract.state.params
  precision.check(config.train.precision_rules, params=params)
  chips.require_host_memory(
    device.device_kind,
    device_bytes=sum(host_bytes(program).values()),
    what=" and ".join(host_bytes(program)),
  )
  return program


def host_bytes(program: Program) -> dict[str, int]:
  """What a step keeps in its host's memory for a device, by the setting.

  Inputs of layers are counted as if each waited there, those of layers that
  are not scanned too.
  """
  config, mesh = program.config, program.mesh
  found = {}
  moments = state_lib.bytes_of(program.abstract.state.opt_state, in_host=True)
  if moments:
    found["train.optim.offload_moments = True"] = moments
  policy = config.train.remat_policy
  if policy.offloads:
    rows = config.train.microbatch_size * config.streams.seq_len
    dtype = jax.numpy.dtype(config.train.dtype)
    inputs = config.model.num_layers * rows * config.model.d_model
    places = mesh.size // mesh.shape["tensor"]
    found[f"train.remat_policy = {policy}"] = inputs * dtype.itemsize // places
  return found


def of(
  model: nn.Module,
  *,
  config: Any,
  mesh: jax.sharding.Mesh,
  boxed_variables: Callable[[jax.Array], Any],
  example: Callable[..., Any],
  objective: objective_lib.Objective,
) -> Program:
  """Shapes and shardings of any model's step.

  Args:
    model: the model.
    config: the experiment, with `train` (a `LoopConfig`), `mesh` and
      `compiler_options`.
    mesh: the mesh.
    boxed_variables: the model's, with their logical names, from a key.
    example: a batch of `batch_size` examples, for tracing.
    objective: what is minimised.

  Raises:
    errors.UserError: a dim of a parameter or the batch that the mesh cannot
      divide, or two dims on one axis.
  """
  train = config.train
  optimizer = optim.create(train.optim, steps=train.steps)
  sharding = mesh_lib.batch_sharding(
    mesh, rules=config.mesh.axis_rules, batch_size=train.microbatch_size
  )
  shapes = jax.eval_shape(lambda: example(batch_size=train.global_batch_size))
  return Program(
    config=config,
    mesh=mesh,
    model=model,
    objective=objective,
    optimizer=optimizer,
    abstract=state_lib.abstract_of(
      boxed_variables, config=config, optimizer=optimizer, mesh=mesh
    ),
    batch_sharding=sharding,
    batch=jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      shapes,
    ),
  )


def _check_platform(execution: ExecutionConfig, *, platform: str) -> None:
  for name, value, other in (
    ("attention", AttentionForm.PALLAS, AttentionForm.CELLS),
    ("moe_matmul", MoeMatmul.MEGABLOX, MoeMatmul.TILED),
    (
      "moe_dispatch",
      MoeDispatch.RAGGED_ALL_TO_ALL,
      MoeDispatch.PADDED_ALL_TO_ALL,
    ),
  ):
    if getattr(execution, name) is value and platform != "tpu":
      raise errors.UserError(
        f"train.execution.{name} = {value}: runs on TPUs and the devices are"
        f" of platform {platform!r}; set train.execution.{name}={other}"
      )
