"""The tick as a program: what a pool of sessions runs, on one device or a mesh.

For: `pool`, which runs it, and `aot`, which compiles it for devices that are
not there. Not for: what a tick computes (`tick`). Start at `on_device` and
`on_mesh`.

On a mesh sessions are cut over the axes of "batch", experts over theirs. `aot`
counts a tick with the sound of both sides, no video and no typed text, one
output token (each further one is another turn of the loop in it), and the
flow's steps.
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
from tml_jax.live import tick as tick_lib
from tml_jax.live.session import Senses
from tml_jax.models import cache as cache_lib
from tml_jax.models import interaction, moe
from tml_jax.parallel import chips
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.streams import clock
from tml_jax.streams.batch import Chunk, Packed

_take = jax.jit(cache_lib.Cache.take)
_put = jax.jit(cache_lib.Cache.put, donate_argnums=0)


@dataclasses.dataclass(frozen=True)
class Places:
  """Where the arrays of a program lie on a mesh.

  Attributes:
    mesh: the mesh.
    variables: abstract, weights in the model's dtype; routers in float32,
      experts in 8 bits where the config says so.
    rows: of what has a row for each session.
  """

  mesh: jax.sharding.Mesh
  variables: dict[str, Any]
  rows: jax.sharding.NamedSharding

  @property
  def everywhere(self) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())


@dataclasses.dataclass(frozen=True)
class Program:
  """A tick with everything it is traced from.

  Attributes:
    config: the experiment.
    model: the model, its layers one by one.
    sessions: rows of the cache.
    text_pieces: `Tokenizer.num_pieces`; text rows after these are never
      emitted.
    places: on a mesh; None for one device.
  """

  config: Config
  model: interaction.InteractionModel
  sessions: int
  text_pieces: int
  places: Places | None

  def put_variables(self, variables: dict[str, Any]) -> dict[str, Any]:
    """Weights where and as a tick finds them.

    Raises:
      errors.UserError: 8-bit experts without the package that makes them.
    """
    variables = moe.quantize_experts(
      variables, weights=self.config.sample.expert_weights
    )
    if self.places is None:
      return jax.tree.map(jnp.asarray, variables)
    return jax.tree.map(
      lambda x, to: jax.device_put(np.asarray(x, to.dtype), to.sharding),
      variables,
      self.places.variables,
    )

  def empty_cache(self) -> cache_lib.Cache:
    """Of sessions that are new."""
    cache = empty_cache(self.config, self.sessions)
    if self.places is None:
      return cache
    return jax.device_put(cache, self.places.rows)

  def empty_chunk(self, senses: Senses) -> Chunk:
    """Of sessions that rest."""
    return empty_chunk(self.config, senses, slots=self.sessions)

  def tick(
    self,
    variables: dict[str, Any],
    *,
    cache: cache_lib.Cache,
    chunk: Chunk,
    seeds_B: np.ndarray,
    quiet_B: np.ndarray,
  ) -> tuple[tick_lib.Decided, cache_lib.Cache]:
    """Runs `tick.tick`; compiles once for each kind of chunk."""
    static = dict(
      text_pieces=self.text_pieces, model=self.model, config=self.config
    )
    if self.places is None:
      run = tick_lib.compiled[self.config.numerics]
      return run(
        variables,
        cache=cache,
        chunk=chunk,
        seeds_B=seeds_B,
        quiet_B=quiet_B,
        **static,
      )
    chunk, seeds_B, quiet_B = jax.device_put(
      (chunk, seeds_B, quiet_B), self.places.rows
    )
    with mesh_lib.use(self.places.mesh, rules=self.config.mesh.axis_rules):
      return self._on_mesh(
        variables,
        cache=cache,
        chunk=chunk,
        seeds_B=seeds_B,
        quiet_B=quiet_B,
        **static,
      )

  def take(self, cache: cache_lib.Cache, row: int) -> cache_lib.Cache:
    """The session in `row` alone."""
    if self.places is None:
      return _take(cache, row)
    return self._take_on_mesh(cache, row)

  def put(
    self, cache: cache_lib.Cache, session: cache_lib.Cache, row: int
  ) -> cache_lib.Cache:
    """All sessions, that of `take` in `row`; `cache` is donated."""
    if self.places is None:
      return _put(cache, session, row)
    return self._put_on_mesh(
      cache, jax.device_put(session, self.places.everywhere), row
    )

  @property
  def arguments(self) -> dict[str, Any]:
    """Abstract arrays of a call on a mesh, by what they are."""
    shapes = self._shapes()
    return self._mesh_places.variables | {
      "cache": shapes["cache"],
      "inputs": shapes["chunk"],
    }

  def lower(self) -> jax.stages.Lowered:
    """Traces the tick of a mesh; the cache is donated."""
    with mesh_lib.use(
      self._mesh_places.mesh, rules=self.config.mesh.axis_rules
    ):
      return self._jit(compiler_options=None).lower(
        self._mesh_places.variables,
        **self._shapes(),
        text_pieces=self.text_pieces,
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
    return lowered.compile({**self.config.compiler_options, **options})

  @property
  def _mesh_places(self) -> Places:
    """`places` where there must be some."""
    if self.places is None:
      raise ValueError("a tick of one device has no places on a mesh")
    return self.places

  def _shapes(self) -> dict[str, Any]:
    """Abstract arguments of the tick by name, but for the weights."""
    rows = self._mesh_places.rows

    def by_session(leaf: jax.Array | np.ndarray) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows)

    cache = jax.eval_shape(lambda: empty_cache(self.config, self.sessions))
    return {
      "cache": jax.tree.map(by_session, cache),
      "chunk": jax.tree.map(by_session, self.empty_chunk(Senses.SOUND)),
      "seeds_B": by_session(np.zeros(self.sessions, np.int32)),
      "quiet_B": by_session(np.zeros(self.sessions, bool)),
    }

  def _jit(
    self, *, compiler_options: dict[str, str | bool] | None
  ) -> jax.stages.Wrapped:
    return jax.jit(
      tick_lib.tick,
      static_argnames=("text_pieces", "model", "config"),
      donate_argnames="cache",
      out_shardings=self._mesh_places.rows,
      compiler_options=compiler_options,
    )

  @functools.cached_property
  def _on_mesh(self) -> jax.stages.Wrapped:
    return self._jit(compiler_options=self.config.compiler_options)

  @functools.cached_property
  def _take_on_mesh(self) -> jax.stages.Wrapped:
    return jax.jit(
      cache_lib.Cache.take, out_shardings=self._mesh_places.everywhere
    )

  @functools.cached_property
  def _put_on_mesh(self) -> jax.stages.Wrapped:
    return jax.jit(
      cache_lib.Cache.put,
      donate_argnums=0,
      out_shardings=self._mesh_places.rows,
    )


def on_device(
  config: Config,
  *,
  model: interaction.InteractionModel,
  sessions: int,
  text_pieces: int,
) -> Program:
  """The tick of `sessions` sessions on one device; allocates nothing.

  Raises:
    errors.UserError: experts in 8 bits that the device does not multiply.
  """
  _check_chip(config, device=jax.local_devices()[0])
  return Program(
    config=config,
    model=model,
    sessions=sessions,
    text_pieces=text_pieces,
    places=None,
  )


def on_mesh(
  config: Config,
  *,
  mesh: jax.sharding.Mesh,
  sessions: int,
  model: interaction.InteractionModel,
  example: Packed,
  text_pieces: int,
) -> Program:
  """The tick of `sessions` sessions on `mesh`; allocates nothing.

  Args:
    config: the experiment.
    mesh: the mesh.
    sessions: how many.
    model: as it is trained.
    example: what its `init` takes.
    text_pieces: of the tokenizer.

  Raises:
    errors.UserError: sessions or a weight that the mesh cannot divide, or
      experts in 8 bits that its devices do not multiply.
  """
  _check_chip(config, device=mesh.devices.flat[0])
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
      precision=(),
    ),
  )
  boxed = jax.eval_shape(model.init, jax.random.key(0), example)
  boxed = moe.quantize_experts(boxed, weights=config.sample.expert_weights)
  shardings = mesh_lib.variable_shardings(boxed, mesh=mesh, rules=rules)
  cast = functools.partial(_cast, dtype=str(config.train.dtype))
  variables = jax.tree_util.tree_map_with_path(
    cast, nn.meta.unbox(boxed), shardings
  )
  return Program(
    config=config,
    model=model,
    sessions=sessions,
    text_pieces=text_pieces,
    places=Places(mesh=mesh, variables=variables, rows=rows),
  )


def _check_chip(config: Config, *, device: jax.Device) -> None:
  weights = config.sample.expert_weights
  if weights in moe.EXPERT_DTYPES:
    chips.require(
      device.device_kind,
      dtype=moe.EXPERT_DTYPES[weights],
      what=f"sample.expert_weights = {weights}",
    )


def _cast(
  path: tuple[object, ...],
  leaf: jax.ShapeDtypeStruct,
  sharding: jax.sharding.Sharding,
  *,
  dtype: str,
) -> jax.ShapeDtypeStruct:
  """Matrices in the model's dtype, but for routers and 8-bit experts."""
  names = {getattr(key, "key", getattr(key, "name", None)) for key in path}
  keep = len(leaf.shape) < 2 or names & {"router", "values_EIO", "scales_E1O"}
  return jax.ShapeDtypeStruct(
    leaf.shape, leaf.dtype if keep else jnp.dtype(dtype), sharding=sharding
  )


def empty_cache(config: Config, size: int) -> cache_lib.Cache:
  """Room for so many sessions."""
  return cache_lib.init_cache(
    config.model,
    batch_size=size,
    horizon=config.sample.horizon,
    sinks=config.sample.sinks,
    # The same for pools of any size, so that sessions may change pools.
    chunk=empty_chunk(config, Senses.ALL, slots=1).inputs.tokens.shape[1],
    dtype=str(config.train.dtype),
    drafts=config.sample.draft_tokens,
  )


def empty_chunk(config: Config, senses: Senses, *, slots: int) -> Chunk:
  """Room for the largest window of a kind."""
  audio = 2 * clock.of(config.streams).audio_tokens  # of both sides
  size, patches = 1 + audio, 0
  if senses is Senses.ALL:
    patches = config.streams.patches_per_frame
    size += patches + config.streams.max_text_in
  return tick_lib.empty_chunk(
    config,
    batch_size=slots,
    size=size,
    audio=audio,
    patches=patches,
  )
