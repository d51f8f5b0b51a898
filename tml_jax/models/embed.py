"""Everything that enters the trunk: text, sound, pictures and the clock.

For: [B, T, D] embeddings of a packed batch or of a chunk. Not for: deciding
where tokens go (`streams.frame` does). Start at `Embedder`. Formulas:
Inkling's (text, audio, vision), as in Hugging Face transformers 5.23, and
hMLP's (arXiv 2203.09795).

Legend: B batch, T time, D d_model, A audio slots, C mel channels, V levels,
P patch slots.
"""

import enum
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tml_jax.config import ModelConfig, Position
from tml_jax.models import norm
from tml_jax.models.execution import Execution
from tml_jax.streams import clock
from tml_jax.streams.batch import Inputs, Packed

# Published preprocessing of CLIP (openai/CLIP, clip.py).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# (frames, rows and columns) folded into depth before each layer of the hMLP.
HMLP_FOLDS = ((1, 5), (1, 2), (1, 4), (2, 1))
# Inkling's towers do not read the trunk's epsilon.
TOWER_EPS = 1e-6
CLOCK_PERIODS = (0.4, 3600.0)  # seconds, shortest and longest


class Kind(enum.IntEnum):
  """What a position holds; router loads are reported per kind."""

  TEXT = 0
  OWN_AUDIO = 1
  USER_AUDIO = 2
  PATCH = 3


@jax.named_scope("place")
def place(
  x_BTD: jax.Array, *, values_BAD: jax.Array, positions_BA: jax.Array
) -> jax.Array:
  """Writes values over positions; a position of T or more is dropped.

  No position below T may come twice in a row. Said to the compiler, with rows
  as a batch dim, or the gradient brings the whole global batch to each device.
  """
  length, slots = x_BTD.shape[1], jnp.arange(positions_BA.shape[1])
  positions_BA = jnp.where(positions_BA < length, positions_BA, length + slots)

  def row(x_TD, values_AD, positions_A):
    return x_TD.at[positions_A].set(values_AD, mode="drop", unique_indices=True)

  return jax.vmap(row)(x_BTD, values_BAD, positions_BA)


def kinds(packed: Packed) -> jax.Array:
  """`Kind` of each position, -1 for padding, int32 [B, T]."""
  inputs = packed.inputs
  text = jnp.where(packed.segment_ids > 0, Kind.TEXT, -1).astype(jnp.int32)
  audio = inputs.audio_streams.astype(jnp.int32) + Kind.OWN_AUDIO
  marked = place(text, values_BAD=audio, positions_BA=inputs.audio_positions)
  return place(
    marked,
    values_BAD=jnp.full_like(inputs.patch_positions, Kind.PATCH),
    positions_BA=inputs.patch_positions,
  )


def times(
  inputs: Inputs, *, position: Position, grid: clock.Grid
) -> jax.Array | None:
  """When each position is, in dMel tokens from the start, int32 [B, T].

  A token of sound is where it sounds; what has no length (marks, pictures,
  text) is at the end of its window, when the model reads or writes it. Sound
  comes in whole windows, so a slot says which token of its window it is.
  None where attention does not ask.
  """
  if position is not Position.TIME_ROPE:
    return None
  tokens = grid.audio_tokens
  ends = inputs.windows * tokens + tokens - 1
  positions_BA = inputs.audio_positions
  before = tokens - 1 - jnp.arange(positions_BA.shape[1]) % tokens
  last = ends.shape[1] - 1
  at = jnp.take_along_axis(ends, jnp.minimum(positions_BA, last), axis=1)
  return place(ends, values_BAD=at - before, positions_BA=positions_BA)


class DmelBag(nn.Module):
  """Sum over channels of one table row each, RMSNorm, plus the stream."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    config = self.config
    levels = config.dmel_channels * config.dmel_levels
    init = nn.initializers.normal(config.init_std)
    self.table = norm.param(
      self,
      name="table",
      init=init,
      shape=(levels, config.d_model),
      names=("levels", "embed"),
    )
    self.norm = norm.RMSNorm(config.d_model, TOWER_EPS)
    # Zero at first, so that Inkling's audio tower is reproduced exactly.
    self.streams = norm.param(
      self,
      name="streams",
      init=nn.initializers.zeros,
      shape=(2, config.d_model),
      names=("streams", "embed"),
    )

  def __call__(
    self, dmel_BAC: jax.Array, *, streams_BA: jax.Array
  ) -> jax.Array:
    dtype = self.execution.dtype
    levels = jnp.arange(self.config.dmel_levels, dtype=jnp.int32)
    table, streams = (
      norm.whole(weight.astype(dtype), names=(None, "embed"))
      for weight in (self.table, self.streams)
    )
    scale = self.norm.scale

    def embed(dmel, stream):
      # One-hot matmul: a gather of 80 rows a token has a scatter as gradient.
      onehot = dmel.astype(jnp.int32)[..., None] == levels
      shape = (*dmel.shape[:-1], table.shape[0])
      onehot = onehot.reshape(shape).astype(dtype)
      bag = norm.rms_norm(onehot @ table, scale=scale, eps=TOWER_EPS)
      return bag + jax.nn.one_hot(stream, 2, dtype=dtype) @ streams

    return norm.rowwise(
      embed, norm.spread(dmel_BAC), streams_BA, numerics=self.execution.numerics
    )


class HMLP(nn.Module):
  """Patches of 2 x 40 x 40 x 3 in four folds and linear layers."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    config = self.config
    widths = (3, *config.hmlp_widths, config.d_model)
    self.kernels = [
      norm.param(
        self,
        name=f"kernel_{i}",
        init=nn.initializers.normal(config.init_std),
        shape=(widths[i] * frames * side * side, widths[i + 1]),
        names=("patch_in", "embed" if i == 3 else "patch_out"),
      )
      for i, (frames, side) in enumerate(HMLP_FOLDS)
    ]
    self.norms = [
      norm.RMSNorm(width, TOWER_EPS, name=f"norm_{i}")
      for i, width in enumerate(widths[1:])
    ]

  def __call__(self, patches: jax.Array) -> jax.Array:
    """[B, P, 2, 40, 40, 3] to [B, P, D]; bytes, or floats in CLIP's units."""
    kernels = [
      norm.whole(kernel.astype(self.execution.dtype), names=(None, name))
      for kernel, name in zip(
        self.kernels, (None, None, None, "embed"), strict=True
      )
    ]
    scales = [each.scale for each in self.norms]

    def embed(patches):
      x = patches
      if x.dtype == jnp.uint8:
        mean, std = np.array(CLIP_MEAN), np.array(CLIP_STD)
        scale = (1.0 / (255.0 * std)).astype(np.float32)
        x = x.astype(jnp.float32) * scale - (mean / std).astype(np.float32)
      x = x.astype(self.execution.dtype)
      for i, (frames, side) in enumerate(HMLP_FOLDS):
        *lead, t, h, w, c = x.shape
        t, h, w = t // frames, h // side, w // side
        x = x.reshape(*lead, t, frames, h, side, w, side, c)
        order = (0, 2, 4, 1, 3, 5, 6)  # folded dims last
        dims = (*range(len(lead)), *(len(lead) + i for i in order))
        depth = frames * side * side * c
        # The leading dims stay apart: merged, they would not stay cut.
        x = x.transpose(dims).reshape(*lead, t, h, w, depth)
        x = norm.rms_norm(x @ kernels[i], scale=scales[i], eps=TOWER_EPS)
        if i < 3:
          x = jax.nn.gelu(x, approximate=False)
      return x[..., 0, 0, 0, :]

    return norm.rowwise(embed, patches, numerics=self.execution.numerics)


class Clock(nn.Module):
  """Linear layer on sinusoids of the time of a window."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    self.kernel = norm.param(
      self,
      name="kernel",
      init=nn.initializers.normal(self.config.init_std),
      shape=(self.config.clock_features, self.config.d_model),
      names=("features", "embed"),
    )

  def __call__(self, windows_BT: jax.Array) -> jax.Array:
    count = self.config.clock_features // 2
    first, last = (math.log(period) for period in CLOCK_PERIODS)
    periods = np.exp(np.linspace(first, last, count))
    turns = self.execution.grid.seconds / periods.astype(np.float32)
    angle = windows_BT[..., None].astype(jnp.float32) * turns * (2 * math.pi)
    features = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    dtype = self.execution.dtype
    kernel = norm.whole(self.kernel.astype(dtype), names=(None, "embed"))
    return features.astype(dtype) @ kernel


class Embedder(nn.Module):
  """The input side of the model."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    config, execution = self.config, self.execution
    self.table = norm.param(
      self,
      name="table",
      init=nn.initializers.normal(config.init_std),
      shape=(config.vocab_size, config.d_model),
      names=("vocab", "embed"),
    )
    self.norm = norm.RMSNorm(
      config.d_model, config.rms_norm_eps, execution.numerics
    )
    self.dmel = DmelBag(config, execution)
    self.hmlp = HMLP(config, execution)
    if config.clock_features:
      self.clock = Clock(config, execution)

  def text(self, tokens_BT: jax.Array) -> jax.Array:
    """Rows of the text table, not normed."""
    return self.table[tokens_BT].astype(self.execution.dtype)

  def __call__(self, inputs: Inputs) -> jax.Array:
    """[B, T, D] of a batch or a chunk."""
    tokens_BT = inputs.tokens
    x_BTD = norm.spread(self.norm(self.text(tokens_BT)))
    if self.config.clock_features:
      x_BTD += jnp.where(
        (tokens_BT == self.execution.turn_token)[..., None],
        self.clock(inputs.windows),
        0.0,
      ).astype(self.execution.dtype)
    x_BTD = place(
      x_BTD,
      values_BAD=self.dmel(inputs.audio_dmel, streams_BA=inputs.audio_streams),
      positions_BA=inputs.audio_positions,
    )
    return place(
      x_BTD,
      values_BAD=self.hmlp(norm.spread(inputs.patches)),
      positions_BA=inputs.patch_positions,
    )
