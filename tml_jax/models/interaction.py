"""The interaction model: what training, sampling and evaluation call.

For: `hidden`, `logits`, `velocity`, `mtp_hidden` and the cached `extend` (in
two parts, `read` and `keep`, where something is drafted with `draft`), all
through `model.apply(variables, ..., method="hidden")`. Not for: losses,
sampling decisions, sharding (only logical names appear here). Start at
`InteractionModel`; inputs are in `embed.py`, layers in `trunk.py`.

Variables are {"params": ..., "router": ...}: the router's balance bias chooses
experts and is moved by training's own rule, never by a gradient.

Legend: B batch, T time, D d_model, V vocabulary, F fine frames, C channels,
L MoE layers, E experts, K kinds of position.
"""

from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from tml_jax.config import ModelConfig
from tml_jax.models import cache as cache_lib
from tml_jax.models import embed, flow_head, mtp, norm, trunk
from tml_jax.models.execution import Execution
from tml_jax.streams.batch import Chunk, Inputs, Packed


@flax.struct.dataclass
class Aux:
  """Router loads: choices per expert by kind of position, float32."""

  load_KLE: jax.Array  # K indexes `embed.Kind`; padding is not counted

  @property
  def load_LE(self) -> jax.Array:
    return jnp.sum(self.load_KLE, axis=0)


def take(x_BTD: jax.Array, positions_BN: jax.Array) -> jax.Array:
  """Rows at `positions`; an unused slot (position T) takes the last row."""
  clipped = jnp.minimum(positions_BN, x_BTD.shape[1] - 1)
  return jnp.take_along_axis(x_BTD, clipped[..., None], axis=1)


class InteractionModel(nn.Module):
  """One transformer that reads and emits micro-turns."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    config, execution = self.config, self.execution
    self.embed = embed.Embedder(config, execution)
    self.trunk = trunk.Trunk(config, execution)
    self.mtp = mtp.Mtp(config, execution)
    self.flow_head = flow_head.FlowHead(config, execution)
    self.unembedding = norm.param(
      self,
      name="unembedding",
      init=nn.initializers.normal(config.init_std),
      shape=(config.d_model, config.vocab_size),
      names=("embed", "vocab"),
    )

  def __call__(self, packed: Packed) -> jax.Array:
    """Touches every parameter: this is what `init` runs."""
    h_BTD, _ = self.hidden(packed)
    if self.config.num_mtp_layers:
      self.mtp_hidden(packed, hidden_BTD=h_BTD)
    cond_BD = h_BTD[:, 0]
    mel = (self.execution.grid.fine_frames, self.config.dmel_channels)
    x_BFC = jnp.zeros((cond_BD.shape[0], *mel), jnp.float32)
    t_B = jnp.zeros(cond_BD.shape[0])
    self.velocity(x_BFC, t_B, cond_BD, t_B)
    return self.logits(cond_BD)

  def hidden(self, packed: Packed) -> tuple[jax.Array, Aux]:
    """Hidden states after the final norm, [B, T, D]."""
    h_BTD, load_KLE = self.trunk(
      norm.spread(self.embed(packed.inputs)),
      segment_ids_BT=packed.segment_ids,
      positions_BT=packed.positions,
      times_BT=self._times(packed.inputs),
      kinds_BT=embed.kinds(packed),
      num_kinds=len(embed.Kind),
    )
    return h_BTD, Aux(load_KLE=load_KLE)

  def _times(self, inputs: Inputs) -> jax.Array | None:
    position = self.config.position
    return embed.times(inputs, position=position, grid=self.execution.grid)

  def logits(self, h_D: jax.Array) -> jax.Array:
    """float32 [..., V]; gather the positions with a target first.

    The last `config.vocab_padding` rows of the vocabulary are left out.
    """
    rows = self.config.vocab_size - self.config.vocab_padding
    kernel = self.unembedding[:, :rows].astype(self.execution.dtype)
    return jnp.einsum(
      "...d,dv->...v",
      (h_D / self.config.logits_divisor).astype(self.execution.dtype),
      kernel,
      preferred_element_type=jnp.float32,
    )

  def velocity(
    self,
    x_FC: jax.Array,
    t: jax.Array,
    cond_D: jax.Array,
    span: jax.Array | float = 0.0,
  ) -> jax.Array:
    """Mean flow velocity from t to t + span, float32 [..., F, C].

    Leading dims broadcast. A span other than 0 needs `flow.map_weight`.
    """
    return self.flow_head(x_FC, t, cond_D, span)

  def null_condition(self) -> jax.Array:
    """What replaces a dropped condition of `velocity`, [D]."""
    return self.flow_head.null()

  def mtp_hidden(self, packed: Packed, *, hidden_BTD: jax.Array) -> jax.Array:
    """[num_mtp_layers, B, T, D]; entry k predicts token t + 2 + k.

    `hidden_BTD` is what `hidden` gave for the same positions, whose `logits`
    predict t + 1. Where a segment ends before that token there is nothing to
    predict; the caller gives such positions no weight.
    """
    return self.mtp(
      hidden_BTD,
      tokens_BTD=self.embed.text(packed.inputs.tokens),
      segment_ids_BT=packed.segment_ids,
      positions_BT=packed.positions,
    )

  def extend(
    self, chunk: Chunk, cache: cache_lib.Cache
  ) -> tuple[jax.Array, cache_lib.Cache]:
    """Appends a chunk of at most C positions to each session.

    Segments and positions come from the cache: a session is one segment.
    Hidden states beyond the prefix are meaningless.
    """
    hidden_BCD, read = self.read(chunk, cache)
    cache = self.keep(
      chunk, hidden_BCD=hidden_BCD, read=read, lengths_B=chunk.lengths
    )
    return hidden_BCD, cache

  def read(
    self, chunk: Chunk, cache: cache_lib.Cache
  ) -> tuple[jax.Array, cache_lib.Read]:
    """Hidden states of a chunk of which `keep` may keep a part."""
    return self.trunk.extend(
      self.embed(chunk.inputs),
      cache=cache,
      lengths_B=chunk.lengths,
      times_BT=self._times(chunk.inputs),
    )

  def keep(
    self,
    chunk: Chunk,
    *,
    hidden_BCD: jax.Array,
    read: cache_lib.Read,
    lengths_B: jax.Array,
  ) -> cache_lib.Cache:
    """The cache with the first `lengths_B` positions of what was read."""
    cache = read.keep(lengths_B)
    if not cache.further:
      return cache
    followed = self.mtp.follow(
      hidden_BCD,
      tokens_BTD=self.embed.text(chunk.inputs.tokens),
      cache=read.cache,
      lengths_B=lengths_B,
    )
    return cache.replace(further=followed.further, tails=followed.tails)

  def draft(
    self,
    token_B: jax.Array,
    *,
    cache: cache_lib.Cache,
    draw: Callable[[jax.Array], jax.Array],
  ) -> list[jax.Array]:
    """Tokens that may come behind one that was chosen; as `Mtp.draft`."""
    return self.mtp.draft(
      token_B, embed=self.embed.text, draw=draw, cache=cache
    )
