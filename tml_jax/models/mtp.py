"""Layers that predict further tokens.

For: `InteractionModel.mtp_hidden`. Not for: their loss
(`training.losses`). Start at `Mtp`. They follow DeepSeek-V3 (arXiv 2412.19437,
section 2.2) in Inkling's variant: hidden state first, no norm behind the block.

Legend: B batch, T time, D d_model.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from tml_jax.config import ModelConfig
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
    joined = [self.hidden_norm(x_BTD), self.token_norm(token_BTD)]
    projection = self.projection.astype(self.execution.dtype)
    x_BTD = jnp.concatenate(joined, axis=-1) @ projection
    x_BTD, _ = self.layer(
      x_BTD,
      segment_ids_BT=segment_ids_BT,
      positions_BT=positions_BT,
      times_BT=None,
    )
    return x_BTD


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
