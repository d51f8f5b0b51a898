"""The model: trunk, inputs and outputs, and the flow head.

For: what parameters there are and what is computed with them. Not for: how a
step runs on its devices (`config/train.py`). Start reading at `ModelConfig`.
"""

import dataclasses
import enum

from tml_jax.config import checks


class Position(enum.StrEnum):
  """How attention knows where a key is, seen from a query."""

  RELATIVE_BIAS = "relative_bias"  # learned, by distance in tokens (Inkling)
  TIME_ROPE = "time_rope"  # rotary, by when it sounds (models/rotary.py)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowConfig:
  """The head that turns one `<speak>` position into a window of mel."""

  width: int
  depth: int
  time_features: int  # sinusoidal features of the flow time
  draws: int  # noise draws per position in training (MAR: 4)
  steps: int  # Euler steps at sampling
  condition_drop: float  # share of conditions replaced by the null vector
  guidance: float  # 1.0 = conditional only
  mel_mean: float  # log10 fine mel is standardised by these two
  mel_std: float
  # Of the loss that teaches the head to cover a stretch of the flow in one
  # step (LSD); sampling then takes 1 or 2 `steps`. 0 = velocity alone.
  map_weight: float = 0.0

  def __post_init__(self) -> None:
    section = "model.flow"
    checks.require_range(
      self,
      section=section,
      names="width depth time_features draws steps",
      low=1,
    )
    checks.require_range(
      self, section=section, names="condition_drop", low=0, high=1
    )
    checks.require_range(self, section=section, names="map_weight", low=0)
    checks.require_positive(self, section=section, names="mel_std")
    checks.require(
      self.time_features % 2 == 0,
      f"model.flow.time_features = {self.time_features}: must be even, sines"
      " and cosines",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """Inkling trunk plus duplex inputs and outputs."""

  vocab_size: int
  d_model: int
  num_layers: int
  attention_pattern: str  # repeated over depth: L sliding window, G global
  num_heads: int
  num_kv_heads: int
  head_dim: int
  swa_num_heads: int  # the same three for sliding-window layers
  swa_num_kv_heads: int
  swa_head_dim: int
  sliding_window: int
  d_rel: int
  rel_extent: int  # of global layers; sliding ones use their window
  log_scaling_floor: int  # 0 turns log length scaling off
  log_scaling_alpha: float
  num_dense_layers: int  # the first ones; the others are MoE
  d_ff: int  # of dense layers
  num_experts: int
  experts_per_token: int
  num_shared_experts: int
  expert_d_ff: int
  route_scale: float
  conv_kernel: int
  rms_norm_eps: float
  logits_divisor: float  # muP width multiplier
  num_mtp_layers: int
  dmel_channels: int
  dmel_levels: int
  hmlp_widths: tuple[int, int, int]
  clock_features: int  # sinusoids of the window's time at `<turn>`; 0 = none
  init_std: float
  # Of the queries' norm gain: scores start at query_norm_init / head_dim.
  query_norm_init: float
  moe_tile: int  # rows of one expert multiplied at a time (CPU and GPU)
  flow: FlowConfig
  # Last rows of the vocabulary that are never predicted: foreign checkpoints
  # pad their unembedding to a round number of rows.
  vocab_padding: int = 0
  # Of the layers of multi-token prediction, repeated like attention_pattern.
  mtp_attention_pattern: str = "G"
  position: Position = Position.RELATIVE_BIAS

  def is_global(self, layer: int) -> bool:
    """Whether `layer` (0-based) attends globally."""
    pattern = self.attention_pattern
    return pattern[layer % len(pattern)] == "G"

  def mtp_is_global(self, layer: int) -> bool:
    """The same for a layer of multi-token prediction."""
    pattern = self.mtp_attention_pattern
    return pattern[layer % len(pattern)] == "G"

  def is_dense(self, layer: int) -> bool:
    """Whether `layer` (0-based) has a dense feed-forward."""
    return layer < self.num_dense_layers

  def __post_init__(self) -> None:
    checks.require_range(
      self,
      section="model",
      names="vocab_size d_model num_layers num_heads num_kv_heads head_dim"
      " swa_num_heads swa_num_kv_heads swa_head_dim sliding_window d_rel"
      " rel_extent d_ff expert_d_ff conv_kernel dmel_channels moe_tile",
      low=1,
    )
    checks.require_range(
      self,
      section="model",
      names="log_scaling_floor log_scaling_alpha num_dense_layers num_experts"
      " num_shared_experts num_mtp_layers vocab_padding clock_features",
      low=0,
    )
    checks.require_range(self, section="model", names="dmel_levels", low=2)
    checks.require_positive(
      self,
      section="model",
      names="route_scale rms_norm_eps logits_divisor init_std query_norm_init",
    )
    self._require_attention()
    self._require_experts()
    checks.require(
      min(self.hmlp_widths) >= 1,
      f"model.hmlp_widths = {self.hmlp_widths}: every width at least 1",
    )
    checks.require(
      self.clock_features % 2 == 0,
      f"model.clock_features = {self.clock_features}: must be even, sines and"
      " cosines",
    )

  def _require_attention(self) -> None:
    for prefix in ("", "swa_"):
      heads = getattr(self, f"{prefix}num_heads")
      kv_heads = getattr(self, f"{prefix}num_kv_heads")
      checks.require(
        heads % kv_heads == 0,
        f"model.{prefix}num_heads = {heads}: must be a multiple of"
        f" model.{prefix}num_kv_heads = {kv_heads}",
      )
    for name in ("attention_pattern", "mtp_attention_pattern"):
      value = getattr(self, name)
      checks.require(
        value != "" and set(value) <= {*"LG"},
        f"model.{name} = {value!r}: one or more of L (sliding window) and G"
        " (global), for instance LLLLLG",
      )
    if self.position is not Position.TIME_ROPE:
      return
    for name in ("head_dim", "swa_head_dim"):
      checks.require(
        getattr(self, name) % 2 == 0,
        f"model.{name} = {getattr(self, name)}: must be even where"
        " model.position = time_rope turns pairs of dims",
      )
    checks.require(
      self.num_mtp_layers == 0,
      f"model.num_mtp_layers = {self.num_mtp_layers}: layers of multi-token"
      " prediction have no times; set it to 0, or model.position=relative_bias",
    )

  def _require_experts(self) -> None:
    checks.require(
      self.num_dense_layers <= self.num_layers,
      f"model.num_dense_layers = {self.num_dense_layers}: at most"
      f" model.num_layers = {self.num_layers}",
    )
    checks.require(
      self.num_dense_layers == self.num_layers
      or 1 <= self.experts_per_token <= self.num_experts,
      f"model.experts_per_token = {self.experts_per_token}: from 1 to"
      f" model.num_experts = {self.num_experts}",
    )
