"""The tick as a program for a mesh: what live sessions would run on a slice.

For: `aot`, which compiles it for devices that are not there. Not for: what a
tick computes (`tick`), or sessions on one device (`pool`). Start at `create`.

Sessions are cut over the mesh axes of "batch", experts over theirs. A tick is
counted with the sound of both sides, no video and no typed text, one output
token (each further one is another turn of the loop in it), and the flow's
steps.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tml_jax.config import Config, RematPolicy
from tml_jax.live import pool, tick
from tml_jax.live.session import Senses
from tml_jax.models import interaction
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.streams.batch import Chunk, Packed


@dataclasses.dataclass(frozen=True)
class Program:
  """A tick with everything it is traced from.

  Attributes:
    config: the experiment.
    mesh: the mesh.
    model: the model, its layers one by one.
    variables: weights in the model's dtype; routers in float32.
    cache: of all sessions.
    chunk: abstract inputs of a window.
    seeds: of the sessions.
    quiet: whether they may not speak.
  """

  config: Config
  mesh: jax.sharding.Mesh
  model: interaction.InteractionModel
  variables: dict[str, Any]
  cache: Any
  chunk: Chunk
  seeds: jax.ShapeDtypeStruct
  quiet: jax.ShapeDtypeStruct

  @property
  def arguments(self) -> dict[str, Any]:
    """Abstract arrays of a call, by what they are."""
    return self.variables | {"cache": self.cache, "inputs": self.chunk}

  def lower(self) -> jax.stages.Lowered:
    """Traces the tick; the cache is donated."""
    with mesh_lib.use(self.mesh, rules=self.config.mesh.axis_rules):
      return jax.jit(
        tick.tick,
        static_argnames=("text_pieces", "model", "config"),
        donate_argnames="cache",
      ).lower(
        self.variables,
        cache=self.cache,
        chunk=self.chunk,
        seeds_B=self.seeds,
        quiet_B=self.quiet,
        text_pieces=self.config.streams.text_vocab_size,
        model=self.model,
        config=self.config,
      )

  def compile(
    self,
    lowered: jax.stages.Lowered,
    *,
    options: Mapping[str, str | bool] = types.MappingProxyType({}),
  ) -> jax.stages.Compiled:
    """Compiles with the config's options and `options`."""
    return lowered.compile(self.config.compiler_options | options)


def create(
  config: Config,
  *,
  mesh: jax.sharding.Mesh,
  sessions: int,
  model: interaction.InteractionModel,
  example: Packed,
) -> Program:
  """The tick of `sessions` sessions on `mesh`; allocates nothing.

  Args:
    config: the experiment.
    mesh: the mesh.
    sessions: how many.
    model: as it is trained.
    example: what its `init` takes.

  Raises:
    errors.UserError: sessions or a weight that the mesh cannot divide.
  """
  rules = config.mesh.axis_rules
  rows = mesh_lib.sharding(
    ("batch",), shape=(sessions,), mesh=mesh, rules=rules, what="--sessions"
  )
  # Few tokens: every choice has a row, wherever its expert is.
  whole = math.prod(mesh.shape[axis] for axis in rules.get("experts", ()))
  model = model.clone(
    execution=dataclasses.replace(
      model.execution,
      scan_layers=False,
      moe_buffer=float(whole),
      remat_policy=RematPolicy.NONE,
    ),
  )
  boxed = jax.eval_shape(model.init, jax.random.key(0), example)
  shardings = mesh_lib.variable_shardings(boxed, mesh=mesh, rules=rules)
  cast = functools.partial(_cast, dtype=str(config.train.dtype))
  variables = jax.tree_util.tree_map_with_path(
    cast, nn.meta.unbox(boxed), shardings
  )

  def by_session(leaf) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows)

  return Program(
    config=config,
    mesh=mesh,
    model=model,
    variables=variables,
    cache=jax.tree.map(
      by_session, jax.eval_shape(lambda: pool.empty_cache(config, sessions))
    ),
    chunk=jax.tree.map(
      by_session, pool.empty_chunk(config, Senses.SOUND, slots=sessions)
    ),
    seeds=by_session(np.zeros(sessions, np.int32)),
    quiet=by_session(np.zeros(sessions, bool)),
  )


def _cast(path, leaf, sharding, *, dtype: str) -> jax.ShapeDtypeStruct:
  """Matrices in the model's dtype, but for routers."""
  names = {getattr(key, "key", None) for key in path}
  keep = len(leaf.shape) < 2 or "router" in names
  return jax.ShapeDtypeStruct(
    leaf.shape, leaf.dtype if keep else jnp.dtype(dtype), sharding=sharding
  )
