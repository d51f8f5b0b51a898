"""What a layer keeps of each session between chunks; it never grows.

For: `InteractionModel.extend` and whoever holds sessions. Not for: joining or
leaving of sessions (`live.pool`). Start at `Ring`, then `Cache`.

Every layer keeps its last positions in a ring. Global layers also keep the
first positions of a session for good: attention sinks, without which a window
that has left the start behind falls apart (StreamingLLM, arXiv 2309.17453). A
position is the index in the session, however much was evicted: distances,
windows and the clock stay what they are.

A chunk may be read in part in vain: `Read` keeps so many of its positions.
Layers of multi-token prediction have a cache of their own, which follows.

Legend: B sessions, S slots, K kv heads, H head dim, C taps - 1, D d_model.
"""

import dataclasses

import flax
import jax
import jax.numpy as jnp

from tml_jax.config import ModelConfig
from tml_jax.models import short_conv

LAYER_FIELDS = (
  "key",  # [B, K, H, S], convolved and normed; S last, as q k^T wants it
  "value",  # [B, K, S, H], convolved
  "key_conv",  # [B, C, K, H] float32: last inputs of each short convolution
  "value_conv",  # [B, C, K, H] float32
  "attention_conv",  # [B, C, D] float32
  "mlp_conv",  # [B, C, D] float32
)
_CONVOLUTIONS = tuple(name for name in LAYER_FIELDS if name.endswith("_conv"))


@dataclasses.dataclass(frozen=True)
class Ring:
  """Which positions a layer sees and where it keeps them.

  Attributes:
    window: last positions seen, self included.
    sinks: first positions of the session, seen always.
    chunk: positions written at once at most. The ring is so much longer than
      the window, as a chunk is written before its first query is answered.
  """

  window: int
  sinks: int
  chunk: int

  @property
  def length(self) -> int:
    """Slots of the ring itself, behind those of the sinks."""
    return self.window - 1 + self.chunk

  @property
  def slots(self) -> int:
    return self.sinks + self.length

  def slot(self, index: jax.Array) -> jax.Array:
    """Where the position `index` is kept."""
    in_ring = self.sinks + (index - self.sinks) % self.length
    return jnp.where(index < self.sinks, index, in_ring)

  def held(self, lengths_B: jax.Array) -> jax.Array:
    """Position in each slot of sessions so long, negative if none; [B, S]."""
    newest_B1 = lengths_B[:, None] - 1 - self.sinks
    back = (newest_B1 - jnp.arange(self.length)) % self.length
    # Before the ring is full the first round lies below 0: none.
    ring_BS = jnp.where(back <= newest_B1, self.sinks + newest_B1 - back, -1)
    sinks = jnp.arange(self.sinks)
    sinks_BS = jnp.where(sinks < lengths_B[:, None], sinks, -1)
    return jnp.concatenate([sinks_BS, ring_BS], axis=1)

  def seen(self, count: jax.Array) -> jax.Array:
    """Positions seen by the last of `count`."""
    return jnp.minimum(count, self.window + self.sinks)


@flax.struct.dataclass
class Cache:
  """State of B sessions.

  Attributes:
    layers: LAYER_FIELDS of each layer.
    lengths_B: positions so far, evicted ones too.
    rings: by layer.
    further: as `layers`, of the layers of multi-token prediction that draft;
      layer k has k + 1 positions fewer.
    tails: [B, D] each, what these layers join with the next token: for layer k
      the last output of the layer before it, of the trunk for the first.
    further_rings: by layer.
  """

  layers: tuple[dict[str, jax.Array], ...]
  lengths_B: jax.Array
  rings: tuple[Ring, ...] = flax.struct.field(pytree_node=False)
  further: tuple[dict[str, jax.Array], ...] = ()
  tails: tuple[jax.Array, ...] = ()
  further_rings: tuple[Ring, ...] = flax.struct.field(
    pytree_node=False, default=()
  )

  def take(self, row: jax.Array) -> "Cache":
    """The session in `row` alone, B = 1."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, row, 1), self)

  def put(self, session: "Cache", row: jax.Array) -> "Cache":
    """All sessions, that of `take` in `row`."""
    return jax.tree.map(
      lambda x, one: jax.lax.dynamic_update_slice_in_dim(x, one, row, 0),
      self,
      session,
    )


@flax.struct.dataclass
class Read:
  """A chunk that was read and is not kept yet.

  A position that is not kept has been written over one that nobody sees any
  more, and is not seen itself: `Ring.held` goes by the length of the session.

  Attributes:
    cache: before it.
    layers: with the keys and values of the chunk, and histories of short
      convolutions.
    chunk: its positions.
  """

  cache: Cache
  layers: tuple[dict[str, jax.Array], ...]
  chunk: int = flax.struct.field(pytree_node=False)

  def keep(self, lengths_B: jax.Array) -> Cache:
    """The cache with the first `lengths_B` positions of each session."""
    return self.cache.replace(
      layers=tuple(
        kept(layer, lengths_B=lengths_B, chunk=self.chunk)
        for layer in self.layers
      ),
      lengths_B=self.cache.lengths_B + lengths_B,
    )


def kept(
  layer: dict[str, jax.Array], *, lengths_B: jax.Array, chunk: int
) -> dict[str, jax.Array]:
  """LAYER_FIELDS when the first `lengths_B` of a chunk's positions are kept."""
  states = {
    name: short_conv.after(layer[name], lengths_B=lengths_B, chunk=chunk)
    for name in _CONVOLUTIONS
  }
  return layer | states


def init_cache(
  config: ModelConfig,
  *,
  batch_size: int,
  horizon: int,
  sinks: int,
  chunk: int,
  dtype: str,
  drafts: int = 0,
) -> Cache:
  """An empty cache.

  Args:
    config: of the model.
    batch_size: B.
    horizon: last positions that global layers see, self included.
    sinks: first positions that they see besides.
    chunk: the longest chunk that is ever appended.
    dtype: of keys and values.
    drafts: layers of multi-token prediction that keep something, too.
  """
  taps = config.conv_kernel - 1

  def layer(is_global: bool, ring: Ring) -> dict[str, jax.Array]:
    if is_global:
      heads, width = config.num_kv_heads, config.head_dim
    else:
      heads, width = config.swa_num_kv_heads, config.swa_head_dim
    shapes = {"key": (heads, width, ring.slots)}
    shapes["value"] = (heads, ring.slots, width)
    shapes |= dict.fromkeys(("key_conv", "value_conv"), (taps, heads, width))
    residual = (taps, config.d_model)
    shapes |= dict.fromkeys(("attention_conv", "mlp_conv"), residual)
    return {
      name: jnp.zeros(
        (batch_size, *shape), dtype if name in ("key", "value") else "float32"
      )
      for name, shape in shapes.items()
    }

  def rings(kinds: list[bool]) -> tuple[Ring, ...]:
    return tuple(
      Ring(window=horizon, sinks=sinks, chunk=chunk)
      if is_global
      else Ring(window=config.sliding_window, sinks=0, chunk=chunk)
      for is_global in kinds
    )

  trunk = [config.is_global(i) for i in range(config.num_layers)]
  further = [config.mtp_is_global(i) for i in range(drafts)]
  return Cache(
    layers=tuple(map(layer, trunk, rings(trunk))),
    lengths_B=jnp.zeros(batch_size, jnp.int32),
    rings=rings(trunk),
    further=tuple(map(layer, further, rings(further))),
    tails=tuple(
      jnp.zeros((batch_size, config.d_model), dtype) for _ in further
    ),
    further_rings=rings(further),
  )
