"""The cache that lets a session grow chunk by chunk: an explicit pytree.

For: `InteractionModel.extend` and whoever holds sessions. Not for: choosing
capacities, joining or evicting sessions. Start at `Cache`.

A position in the cache is the position in the session. Every layer keeps all
`capacity` positions for now, sliding-window ones too; what lies at and behind
`lengths_B` is meaningless and never read. Writing past the capacity is
dropped in silence (nothing can raise inside a compiled step), so the holder of
a session checks `lengths_B + chunk <= capacity` first.

Legend: B sessions, S capacity, K kv heads, H head dim, C taps - 1,
D d_model.
"""

import flax
import jax
import jax.numpy as jnp

from tml_jax.config import ModelConfig

LAYER_FIELDS = (
  "key",  # [B, S, K, H], convolved and normed
  "value",  # [B, S, K, H], convolved
  "key_conv",  # [B, C, K, H] float32: last inputs of each short convolution
  "value_conv",  # [B, C, K, H] float32
  "attention_conv",  # [B, C, D] float32
  "mlp_conv",  # [B, C, D] float32
)


@flax.struct.dataclass
class Cache:
  """State of B sessions."""

  layers: tuple[dict[str, jax.Array], ...]  # LAYER_FIELDS of each layer
  lengths_B: jax.Array  # positions held

  @property
  def capacity(self) -> int:
    return self.layers[0]["key"].shape[1]


def init_cache(
  config: ModelConfig, *, batch_size: int, capacity: int, dtype: str
) -> Cache:
  """An empty cache; keys and values are kept in `dtype`."""
  taps = config.conv_kernel - 1

  def layer(index: int) -> dict[str, jax.Array]:
    if config.is_global(index):
      heads = (config.num_kv_heads, config.head_dim)
    else:
      heads = (config.swa_num_kv_heads, config.swa_head_dim)
    shapes = dict.fromkeys(("key", "value"), (capacity, *heads))
    shapes |= dict.fromkeys(("key_conv", "value_conv"), (taps, *heads))
    residual = (taps, config.d_model)
    shapes |= dict.fromkeys(("attention_conv", "mlp_conv"), residual)
    return {
      name: jnp.zeros(
        (batch_size, *shape), dtype if name in ("key", "value") else "float32"
      )
      for name, shape in shapes.items()
    }

  return Cache(
    layers=tuple(layer(index) for index in range(config.num_layers)),
    lengths_B=jnp.zeros(batch_size, jnp.int32),
  )


def grow(cache: Cache, *, capacity: int) -> Cache:
  """The same sessions with room for `capacity` positions, never fewer."""
  extra = capacity - cache.capacity
  if extra < 0:
    raise ValueError(
      f"a cache of {cache.capacity} positions cannot shrink to {capacity}"
    )

  def pad(name: str, value: jax.Array) -> jax.Array:
    if name not in ("key", "value"):
      return value
    return jnp.pad(value, ((0, 0), (0, extra), (0, 0), (0, 0)))

  layers = tuple(
    {name: pad(name, value) for name, value in layer.items()}
    for layer in cache.layers
  )
  return Cache(layers=layers, lengths_B=cache.lengths_B)
