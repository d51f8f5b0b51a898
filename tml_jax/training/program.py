"""The train step as a program for a mesh: what training runs.

For: `train`, which runs it, and `aot`, which compiles it for devices that are
not there. Not for: what the step computes (`step`). Start at `create`.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

import jax
import optax

from tml_jax import errors
from tml_jax.config import (
  AttentionForm,
  Config,
  ExecutionConfig,
  MoeDispatch,
  MoeMatmul,
)
from tml_jax.models import interaction
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.streams.batch import Batch
from tml_jax.training import optim
from tml_jax.training import state as state_lib
from tml_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Program:
  """The step with everything it is traced from.

  Attributes:
    config: the experiment.
    mesh: the mesh.
    model: the model.
    optimizer: the optimizer.
    abstract: the state that a step takes and gives.
    batch_sharding: of every array of a global batch.
  """

  config: Config
  mesh: jax.sharding.Mesh
  model: interaction.InteractionModel
  optimizer: optax.GradientTransformation
  abstract: state_lib.Abstract
  batch_sharding: jax.sharding.NamedSharding

  def batch(self) -> Batch:
    """Shapes of a global batch, where its parts lie."""
    size = self.config.train.global_batch_size
    shapes = jax.eval_shape(
      lambda: state_lib.example_batch(self.config, batch_size=size)
    )
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=self.batch_sharding
      ),
      shapes,
    )

  @property
  def arguments(self) -> dict[str, Any]:
    """Abstract arrays of a call, by what they are."""
    state = self.abstract.state
    fields = dataclasses.fields(state)
    parts = {field.name: getattr(state, field.name) for field in fields}
    return parts | {"batch": self.batch()}

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
          self.config, model=self.model, optimizer=self.optimizer
        ),
        donate_argnums=0,
        out_shardings=(self.abstract.shardings, everywhere),
      )
      return train_step.lower(self.abstract.state, self.batch())

  def compile(
    self,
    lowered: jax.stages.Lowered,
    *,
    options: Mapping[str, str | bool] = types.MappingProxyType({}),
  ) -> jax.stages.Compiled:
    """Compiles with the config's options and `options`."""
    return lowered.compile(self.config.compiler_options | options)


def create(config: Config, *, mesh: jax.sharding.Mesh) -> Program:
  """Shapes and shardings; nothing is traced but the initialisation.

  Raises:
    errors.UserError: a dim of a parameter or the batch that the mesh cannot
      divide, two dims on one axis, or a choice for TPUs where there are none.
  """
  train = config.train
  _check_platform(train.execution, platform=mesh.devices.flat[0].platform)
  model = state_lib.create_model(config)
  optimizer = optim.create(train.optim, steps=train.steps)
  return Program(
    config=config,
    mesh=mesh,
    model=model,
    optimizer=optimizer,
    abstract=state_lib.abstract(
      config, model=model, optimizer=optimizer, mesh=mesh
    ),
    batch_sharding=mesh_lib.batch_sharding(
      mesh, rules=config.mesh.axis_rules, batch_size=train.microbatch_size
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
