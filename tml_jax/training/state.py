"""TrainState: everything a step changes, abstract first, sharded at birth.

For: creating the state on a mesh and the shardings a checkpoint restores to.
Not for: the update itself (`step`). Start reading at `create`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from tml_jax.config import Config
from tml_jax.models import interaction, stacking
from tml_jax.models.execution import Execution
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.streams import packing
from tml_jax.streams.batch import Batch

HOST = "pinned_host"  # memory that a device copies from without its processor


@flax.struct.dataclass
class TrainState:
  """A pytree of float32 arrays.

  Attributes:
    step: finished optimizer steps, int32.
    params: trained by gradient.
    router: selection-only balance biases, moved by the load.
    opt_state: of the optimizer.
    ema: moving average of `params` that sampling uses; empty when
      `ema_decay` is 0.
  """

  step: jax.Array
  params: Any
  router: Any
  opt_state: Any
  ema: Any

  @property
  def collections(self) -> dict[str, Any]:
    """What is beside `params` and gets no gradient, by name.

    A state with more (the weights of a frozen reference) adds them here.
    """
    return {"router": self.router}

  def sampling_variables(self) -> dict[str, Any]:
    """What `model.apply` takes outside training."""
    return {"params": self.ema or self.params, **self.collections}


@dataclasses.dataclass(frozen=True)
class Abstract:
  """Shapes and shardings of a state, before any of it exists."""

  state: TrainState  # of jax.ShapeDtypeStruct with shardings
  shardings: TrainState
  init: Any  # function of a random key
  begin: Any  # function of params and router

  @property
  def variables(self) -> dict[str, Any]:
    """Weights alone, of jax.ShapeDtypeStruct with shardings."""
    return {"params": self.state.params, "router": self.state.router}


def create_model(config: Config) -> interaction.InteractionModel:
  return interaction.InteractionModel(config.model, Execution.of(config))


def create_sampler(config: Config) -> interaction.InteractionModel:
  """The same model for one device, its layers one by one."""
  return interaction.InteractionModel(
    config.model, Execution.of(config).on_one_device()
  )


def unrolled(variables: dict[str, Any], *, config: Config) -> dict[str, Any]:
  """Variables of the trained model as `create_sampler` takes them."""
  layout = stacking.Layout.of(
    config.model, scan_layers=config.train.execution.scan_layers
  )
  return {
    name: stacking.unstack(collection, layout=layout)
    for name, collection in variables.items()
  }


def example_batch(config: Config, *, batch_size: int) -> Batch:
  """Zeros in the shapes of a batch, for tracing."""
  return jax.tree.map(
    lambda x: jnp.zeros((batch_size, *x.shape), x.dtype),
    packing.empty_sequence(config.streams),
  )


def abstract(
  config: Config,
  *,
  model: interaction.InteractionModel,
  optimizer: optax.GradientTransformation,
  mesh: mesh_lib.AnyMesh,
) -> Abstract:
  """Shapes and shardings of the interaction model's state on `mesh`.

  Raises:
    errors.UserError: a parameter that the mesh cannot divide.
  """
  return abstract_of(
    lambda key: model.init(key, example_batch(config, batch_size=1).packed),
    config=config,
    optimizer=optimizer,
    mesh=mesh,
  )


def abstract_of(
  boxed_variables: Callable[[jax.Array], Any],
  *,
  config: Any,
  optimizer: optax.GradientTransformation,
  mesh: mesh_lib.AnyMesh,
) -> Abstract:
  """Shapes and shardings of a state on `mesh`, of any model.

  Args:
    boxed_variables: fresh variables with their logical names, from a key.
    config: the experiment, whose `train` is a `LoopConfig`.
    optimizer: of the parameters.
    mesh: the mesh.

  Raises:
    errors.UserError: a parameter that the mesh cannot divide.
  """

  def init(key: jax.Array) -> TrainState:
    variables = nn.meta.unbox(boxed_variables(key))
    # A dense model has no router, nor has a vocoder.
    return begin(variables["params"], variables.get("router", {}))

  def begin(params, router) -> TrainState:
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      router=router,
      opt_state=optimizer.init(params),
      # A copy: the state is donated, and one buffer cannot be donated twice.
      ema=jax.tree.map(jnp.copy, params)
      if config.train.optim.ema_decay
      else (),
    )

  key = jax.random.key(config.train.seed)
  boxed = jax.eval_shape(boxed_variables, key)
  variables = mesh_lib.variable_shardings(
    boxed, mesh=mesh, rules=config.mesh.axis_rules
  )
  by_path = {
    _names(path): sharding
    for path, sharding in jax.tree_util.tree_leaves_with_path(
      variables["params"]
    )
  }
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  shapes = jax.eval_shape(init, key)

  def shard(path, leaf) -> jax.sharding.Sharding:
    """Moments and averages lie where their parameter lies, or in the host."""
    names = _names(path)
    for start in range(len(names)):
      if names[start:] in by_path and leaf.ndim > 0:
        found = by_path[names[start:]]
        if names[0] == "opt_state" and config.train.optim.offload_moments:
          return found.with_memory_kind(HOST)
        return found
    return replicated

  shardings = jax.tree_util.tree_map_with_path(shard, shapes)
  return Abstract(
    state=jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding
      ),
      shapes,
      shardings,
    ),
    shardings=shardings,
    init=init,
    begin=begin,
  )


def bytes_of(tree: Any, *, in_host: bool) -> int:
  """Of abstract arrays, for each device: in its host's memory or in its own."""
  return sum(
    leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
    for leaf in jax.tree.leaves(tree)
    if (leaf.sharding.memory_kind == HOST) == in_host
  )


def create(abstract_state: Abstract, *, seed: int) -> TrainState:
  """A fresh state, every shard made where it stays."""
  init = jax.jit(abstract_state.init, out_shardings=abstract_state.shardings)
  return init(jax.random.key(seed))


def from_weights(
  abstract_state: Abstract, *, variables: dict[str, Any]
) -> TrainState:
  """The state of a new run that begins with these weights, which it takes."""
  begin = jax.jit(
    abstract_state.begin,
    out_shardings=abstract_state.shardings,
    donate_argnums=(0, 1),
  )
  return begin(variables["params"], variables["router"])


def _names(path) -> tuple[str, ...]:
  """Path of a leaf as names; attributes, keys and indices alike."""
  return tuple(
    str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key))))
    for key in path
  )
