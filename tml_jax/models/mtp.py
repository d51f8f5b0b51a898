"""Layers that predict further tokens.

For: `InteractionModel.mtp_hidden`. Not for: their loss
(`training.losses`). Start at `Mtp`. They follow DeepSeek-V3 (arXiv 2412.19437,
section 2.2) in Inkling's variant: hidden state first, no norm behind the block.

Legend: B batch, T time, D d_model.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from tml_jax.config import ModelConfig
from tml_jax.models import cache as cache_lib
from tml_jax.models import norm, trunk
from tml_jax.models.execution import Execution


class MtpLayer(nn.Module):
  """Joins a hidden state with the next token's embedding, then one layer."""

  config: ModelConfig
  execution: Execution
  is_global: bool

  def setup(self):
    config, execution = self.config, self.execution
    size, eps = config.d_model, config.rms_norm_eps
    self.hidden_norm = norm.RMSNorm(size, eps, execution.numerics)
    self.token_norm = norm.RMSNorm(size, eps, execution.numerics)
    self.projection = norm.param(
      self,
      name="projection",
      init=nn.initializers.normal(config.init_std),
      shape=(2 * size, size),
      names=("joined", "embed"),
    )
    self.layer = trunk.remat(execution.remat_policy, in_scan=False)(
      config,
      execution,
      is_global=self.is_global,
      is_dense=True,
      name="layer",
    )

  def __call__(
    self,
    x_BTD: jax.Array,
    *,
    token_BTD: jax.Array,
    segment_ids_BT: jax.Array,
    positions_BT: jax.Array,
  ) -> jax.Array:
    x_BTD, _ = self.layer(
      self._joined(x_BTD, token_BTD),
      segment_ids_BT=segment_ids_BT,
      positions_BT=positions_BT,
      times_BT=None,
    )
    return x_BTD

  def _joined(self, x_BTD: jax.Array, token_BTD: jax.Array) -> jax.Array:
    joined = [self.hidden_norm(x_BTD), self.token_norm(token_BTD)]
    projection = self.projection.astype(self.execution.dtype)
    return jnp.concatenate(joined, axis=-1) @ projection

  def extend(
    self, x_BTD: jax.Array, *, token_BTD: jax.Array, **past
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The same over a chunk of a session; `past` as `Layer.extend` has it."""
    return self.layer.extend(
      self._joined(x_BTD, token_BTD), times_BT=None, **past
    )


class Mtp(nn.Module):
  """`num_mtp_layers` chained layers; layer i predicts token t + 2 + i."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    self.layers = [
      MtpLayer(
        self.config,
        self.execution,
        is_global=self.config.mtp_is_global(i),
        name=f"layer_{i:02d}",
      )
      for i in range(self.config.num_mtp_layers)
    ]

  def __call__(
    self,
    x_BTD: jax.Array,
    *,
    tokens_BTD: jax.Array,
    segment_ids_BT: jax.Array,
    positions_BT: jax.Array,
  ) -> jax.Array:
    """Hidden states [num_mtp_layers, B, T, D].

    Args:
      x_BTD: the trunk's normed hidden states.
      tokens_BTD: text embeddings of the tokens, not normed.
      segment_ids_BT: a token of another segment counts as a zero embedding.
      positions_BT: positions within segments.
    """
    outputs = []
    for shift, layer in enumerate(self.layers, start=1):
      same = segment_ids_BT == jnp.roll(segment_ids_BT, -shift, axis=1)
      same &= jnp.arange(same.shape[1]) < same.shape[1] - shift
      ahead = jnp.roll(tokens_BTD, -shift, axis=1)
      x_BTD = layer(
        x_BTD,
        token_BTD=jnp.where(same[..., None], ahead, 0.0),
        segment_ids_BT=segment_ids_BT,
        positions_BT=positions_BT + shift,  # of the token that it joins
      )
      outputs.append(x_BTD)
    return jnp.stack(outputs)

  def follow(
    self,
    hidden_BTD: jax.Array,
    *,
    tokens_BTD: jax.Array,
    cache: cache_lib.Cache,
    lengths_B: jax.Array,
  ) -> cache_lib.Cache:
    """Reads what the trunk has read, in the layers that draft.

    Args:
      hidden_BTD: the trunk's normed states of a chunk.
      tokens_BTD: text embeddings of its tokens.
      cache: before the chunk.
      lengths_B: positions of it that are kept.

    Returns:
      `cache` with other `further` and `tails`.
    """
    chunk = hidden_BTD.shape[1]
    rows_BTD, layers, tails = hidden_BTD, [], []
    last_B1 = jnp.maximum(lengths_B - 1, 0)[:, None, None]
    for k, tail_BD in enumerate(cache.tails):
      last_BD = jnp.take_along_axis(rows_BTD, last_B1, axis=1)[:, 0]
      tails.append(
        jnp.where(
          lengths_B[:, None] > 0, last_BD.astype(tail_BD.dtype), tail_BD
        )
      )
      before_BTD = _behind(tail_BD, rows_BTD[:, :-1])
      rows_BTD, changed, kept_B = self._extend(
        k,
        before_BTD,
        tokens_BTD=tokens_BTD,
        cache=cache,
        lengths_B=lengths_B,
      )
      layers.append(cache_lib.kept(changed, lengths_B=kept_B, chunk=chunk))
    return cache.replace(further=tuple(layers), tails=tuple(tails))

  def draft(
    self,
    token_B: jax.Array,
    *,
    embed: Callable[[jax.Array], jax.Array],
    draw: Callable[[jax.Array], jax.Array],
    cache: cache_lib.Cache,
  ) -> list[jax.Array]:
    """Tokens that may come behind `token_B`, one for each layer that drafts.

    Args:
      token_B: chosen, and not read by the trunk.
      embed: text embeddings of tokens.
      draw: chooses a token by the hidden state [B, D] of a layer; called in
        order.
      cache: of what was read.
    """
    tokens, before_BTD = [token_B], cache.tails[0][:, None]
    for k in range(len(cache.further)):
      rows_BTD, _, _ = self._extend(
        k,
        before_BTD,
        tokens_BTD=embed(jnp.stack(tokens, axis=1)),
        cache=cache,
        lengths_B=jnp.full_like(token_B, k + 1),
      )
      tokens.append(draw(rows_BTD[:, -1]))
      if k + 1 < len(cache.further):
        before_BTD = _behind(cache.tails[k + 1], rows_BTD)
    return tokens[1:]

  def _extend(
    self,
    k: int,
    before_BTD: jax.Array,
    *,
    tokens_BTD: jax.Array,
    cache: cache_lib.Cache,
    lengths_B: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
    """Layer k over a chunk of tokens, with what it joins them with.

    The first k + 1 tokens of a session have nothing to be joined with: its
    cache begins behind them.

    Returns:
      outputs where their tokens are, what changed in the layer, and how many
      positions came in.
    """
    missing = k + 1
    skip_B = jnp.clip(missing - cache.lengths_B, 0, lengths_B)
    rows_BTD, changed = self.layers[k].extend(
      _moved(before_BTD, by_B=skip_B),
      token_BTD=_moved(tokens_BTD, by_B=skip_B),
      layer=cache.further[k],
      ring=cache.further_rings[k],
      past_B=jnp.maximum(cache.lengths_B - missing, 0),
      lengths_B=lengths_B - skip_B,
      ahead=missing,
    )
    return _moved(rows_BTD, by_B=-skip_B), changed, lengths_B - skip_B


def _behind(tail_BD: jax.Array, rows_BTD: jax.Array) -> jax.Array:
  return jnp.concatenate(
    [tail_BD[:, None].astype(rows_BTD.dtype), rows_BTD], axis=1
  )


def _moved(rows_BTD: jax.Array, *, by_B: jax.Array) -> jax.Array:
  """Row t is that of t + by; at the ends the first or last."""
  length = rows_BTD.shape[1]
  place_BT = jnp.clip(jnp.arange(length) + by_B[:, None], 0, length - 1)
  return jnp.take_along_axis(rows_BTD, place_BT[..., None], axis=1)
