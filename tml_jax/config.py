"""The typed configuration tree: every number of an experiment is here once.

For: the dataclasses that `experiments/*.py` return and every other module
reads. Not for: choosing values (that is `experiments/`). Start reading at
`Config`. Derived values are properties; nothing here imports jax. A value
that cannot work raises `errors.UserError` when its dataclass is built, naming
the field, the value and the fix.
"""

import dataclasses
import enum
from typing import Any

from tml_jax import errors

# Rows of the vocabulary kept for the frame's control tokens, right after the
# text rows; streams/frame.py uses the first ones.
CONTROL_ROWS = 64
PATCH = 40  # pixels; the side of a video patch


class Dtype(enum.StrEnum):
  FLOAT32 = "float32"
  BFLOAT16 = "bfloat16"


class RematPolicy(enum.StrEnum):
  NONE = "none"
  BLOCK = "block"  # keep only the input of each layer
  SAVE_MATMULS = "save_matmuls"  # keep outputs of matmuls without batch dims


class Optimizer(enum.StrEnum):
  ADAMW = "adamw"
  MUON = "muon"  # matrices of the trunk; AdamW for everything else


class Schedule(enum.StrEnum):
  CONSTANT = "constant"
  COSINE = "cosine"
  LINEAR = "linear"


def _require(holds: bool, message: str) -> None:
  if not holds:
    raise errors.UserError(message)


def _require_range(
  config: Any,
  *,
  section: str,
  names: str,
  low: float,
  high: float = float("inf"),
) -> None:
  """Each field named in `names` (space-separated) is in [low, high]."""
  for name in names.split():
    value = getattr(config, name)
    limit = f"at least {low}" + (f", at most {high}" if high < 1e30 else "")
    _require(low <= value <= high, f"{section}.{name} = {value}: {limit}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamsConfig:
  """Time, frames and vocabulary: what `tml_jax.streams` needs to know."""

  text_vocab_size: int  # rows [0, text_vocab_size) belong to sentencepiece
  max_text_in: int  # tokens of typed text and results in one frame
  max_text_out: int  # tokens of say-text and messages in one frame
  say_lead: int  # windows by which say-text precedes its sound's decision
  video_height: int  # pixels; a multiple of 40
  video_width: int  # pixels; a multiple of 40
  # One packed sequence:
  seq_len: int
  max_audio: int  # dMel tokens, own and user together
  max_patches: int  # 40x40x2 patches
  max_speak: int  # `<speak>` decisions, each a flow target
  max_targets: int  # output tokens with a loss
  # Loss weights of decisions; text and channel tokens weigh 1.
  silence_weight: float  # `<quiet>` after `<quiet>`
  speak_weight: float  # `<speak>` after `<speak>`
  onset_weight: float  # first `<speak>`
  stop_weight: float  # first `<quiet>`

  @property
  def patches_per_frame(self) -> int:
    """Patches of one video frame (or pair of frames)."""
    return (self.video_height // PATCH) * (self.video_width // PATCH)

  def __post_init__(self):
    _require_range(
      self,
      section="streams",
      names="text_vocab_size max_text_in max_text_out seq_len max_audio"
      " max_speak max_targets video_height video_width",
      low=1,
    )
    _require_range(
      self,
      section="streams",
      names="say_lead silence_weight speak_weight onset_weight stop_weight",
      low=0,
    )
    for name in ("video_height", "video_width"):
      value = getattr(self, name)
      _require(
        value % PATCH == 0,
        f"streams.{name} = {value}: must be a multiple of {PATCH}, for"
        f" instance {(value // PATCH + 1) * PATCH}",
      )
    for name in ("max_audio", "max_patches", "max_speak", "max_targets"):
      value = getattr(self, name)
      _require(
        value <= self.seq_len,
        f"streams.{name} = {value}: at most streams.seq_len = {self.seq_len},"
        " as each takes a position",
      )
    _require(
      self.max_patches >= self.patches_per_frame,
      f"streams.max_patches = {self.max_patches}: one video frame of"
      f" {self.video_height}x{self.video_width} has {self.patches_per_frame}"
      " patches; raise max_patches or make the video smaller",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowConfig:
  """The head that turns one `<speak>` position into 200 ms of mel."""

  width: int
  depth: int
  time_features: int  # sinusoidal features of the flow time
  draws: int  # noise draws per position in training (MAR: 4)
  steps: int  # Euler steps at sampling
  condition_drop: float  # share of conditions replaced by the null vector
  guidance: float  # 1.0 = conditional only
  mel_mean: float  # log10 fine mel is standardised by these two
  mel_std: float

  def __post_init__(self):
    _require_range(
      self,
      section="model.flow",
      names="width depth time_features draws steps",
      low=1,
    )
    _require_range(
      self, section="model.flow", names="condition_drop", low=0, high=1
    )
    _require(
      self.mel_std > 0,
      f"model.flow.mel_std = {self.mel_std}: must be above 0",
    )
    _require(
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
  clock_features: int  # sinusoids of the window's time at `<turn>`
  init_std: float
  moe_tile: int  # rows of one expert multiplied at a time (CPU and GPU)
  flow: FlowConfig
  # Last rows of the vocabulary that are never predicted: foreign checkpoints
  # pad their unembedding to a round number of rows.
  vocab_padding: int = 0

  def is_global(self, layer: int) -> bool:
    """Whether `layer` (0-based) attends globally."""
    pattern = self.attention_pattern
    return pattern[layer % len(pattern)] == "G"

  def is_dense(self, layer: int) -> bool:
    """Whether `layer` (0-based) has a dense feed-forward."""
    return layer < self.num_dense_layers

  def __post_init__(self):
    _require_range(
      self,
      section="model",
      names="vocab_size d_model num_layers num_heads num_kv_heads head_dim"
      " swa_num_heads swa_num_kv_heads swa_head_dim sliding_window d_rel"
      " rel_extent d_ff expert_d_ff conv_kernel dmel_channels moe_tile"
      " clock_features",
      low=1,
    )
    _require_range(
      self,
      section="model",
      names="log_scaling_floor log_scaling_alpha num_dense_layers"
      " num_experts num_shared_experts num_mtp_layers vocab_padding",
      low=0,
    )
    _require_range(self, section="model", names="dmel_levels", low=2)
    for name in ("route_scale", "rms_norm_eps", "logits_divisor", "init_std"):
      value = getattr(self, name)
      _require(value > 0, f"model.{name} = {value}: must be above 0")
    for prefix in ("", "swa_"):
      heads = getattr(self, f"{prefix}num_heads")
      kv_heads = getattr(self, f"{prefix}num_kv_heads")
      _require(
        heads % kv_heads == 0,
        f"model.{prefix}num_heads = {heads}: must be a multiple of"
        f" model.{prefix}num_kv_heads = {kv_heads}",
      )
    _require(
      self.attention_pattern != "" and set(self.attention_pattern) <= {*"LG"},
      f"model.attention_pattern = {self.attention_pattern!r}: one or more of"
      " L (sliding window) and G (global), for instance LLLLLG",
    )
    _require(
      self.num_dense_layers <= self.num_layers,
      f"model.num_dense_layers = {self.num_dense_layers}: at most"
      f" model.num_layers = {self.num_layers}",
    )
    _require(
      self.num_dense_layers == self.num_layers
      or 1 <= self.experts_per_token <= self.num_experts,
      f"model.experts_per_token = {self.experts_per_token}: from 1 to"
      f" model.num_experts = {self.num_experts}",
    )
    _require(
      min(self.hmlp_widths) >= 1,
      f"model.hmlp_widths = {self.hmlp_widths}: every width at least 1",
    )
    _require(
      self.clock_features % 2 == 0,
      f"model.clock_features = {self.clock_features}: must be even, sines and"
      " cosines",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """What the loader mixes and how it prefetches."""

  voices: tuple[str, ...]  # `prepare` builds these corpora, "source:variant"
  mixture: tuple[str, ...]  # "source:weight"
  logical_shards: int  # fixed for the life of a run; a multiple of hosts
  group_size: int  # recordings packed together, first fit
  workers: int  # prefetch processes; 0 = threads of the main process
  heldout_share: float  # of prompt ids, by hash
  seed: int

  @property
  def mixture_weights(self) -> dict[str, float]:
    """Weight by source, as `mixture` gives them."""
    result = {}
    for entry in self.mixture:
      source, _, weight = entry.rpartition(":")
      try:
        result[source] = float(weight)
      except ValueError:
        result[source] = float("nan")
      _require(
        source != "" and 0 < result[source] < float("inf"),
        f"data.mixture entry {entry!r}: write SOURCE:WEIGHT with a weight"
        " above 0, for instance reply:1.0",
      )
    return result

  def __post_init__(self):
    _require_range(
      self, section="data", names="logical_shards group_size", low=1
    )
    _require_range(self, section="data", names="workers seed", low=0)
    _require(
      0 < self.heldout_share < 1,
      f"data.heldout_share = {self.heldout_share}: between 0 and 1",
    )
    for name in ("voices", "mixture"):
      _require(
        len(getattr(self, name)) > 0, f"data.{name} = (): name at least one"
      )
    _require(
      len(self.mixture_weights) == len(self.mixture),
      f"data.mixture = {self.mixture}: a source is named twice",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
  name: Optimizer
  schedule: Schedule
  learning_rate: float
  muon_learning_rate: float  # for the matrices when name is muon
  final_learning_rate_ratio: float
  warmup_steps: int
  b1: float
  b2: float
  eps: float
  weight_decay: float
  clip_norm: float
  router_bias_rate: float  # DeepSeek-V3's sign rule; 0 = off
  ema_decay: float  # of the weights that sampling uses; 0 = off

  def __post_init__(self):
    section = "train.optim"
    for name in ("learning_rate", "muon_learning_rate", "eps", "clip_norm"):
      value = getattr(self, name)
      _require(value > 0, f"{section}.{name} = {value}: must be above 0")
    _require_range(
      self,
      section=section,
      names="warmup_steps weight_decay router_bias_rate",
      low=0,
    )
    _require_range(
      self,
      section=section,
      names="final_learning_rate_ratio",
      low=0,
      high=1,
    )
    for name in ("b1", "b2", "ema_decay"):
      value = getattr(self, name)
      _require(
        0 <= value < 1, f"{section}.{name} = {value}: at least 0, below 1"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  steps: int
  global_batch_size: int  # sequences in one optimizer step
  accumulation_steps: int  # microbatches the global batch is cut into
  seed: int
  dtype: Dtype  # of activations; parameters are kept in float32
  remat_policy: RematPolicy
  flow_loss_weight: float
  feedback_noise: float  # share of own-audio levels moved by one in training
  log_every: int
  checkpoint_every: int
  keep_checkpoints: int
  evaluate_every: int  # 0 = never inside training
  optim: OptimConfig

  @property
  def microbatch_size(self) -> int:
    """Sequences of one forward and backward pass, all devices together."""
    return self.global_batch_size // self.accumulation_steps

  def __post_init__(self):
    _require_range(
      self,
      section="train",
      names="steps global_batch_size accumulation_steps log_every"
      " checkpoint_every keep_checkpoints",
      low=1,
    )
    _require_range(
      self, section="train", names="seed flow_loss_weight evaluate_every", low=0
    )
    _require_range(self, section="train", names="feedback_noise", low=0, high=1)
    _require(
      self.global_batch_size % self.accumulation_steps == 0,
      f"train.global_batch_size = {self.global_batch_size}: must be a multiple"
      f" of train.accumulation_steps = {self.accumulation_steps}",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """Sizes of the mesh axes; their product must be the device count."""

  data: int
  fsdp: int
  expert: int
  tensor: int
  seq: int

  def __post_init__(self):
    _require_range(
      self, section="mesh", names="data fsdp expert tensor seq", low=1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
  temperature: float  # of text and decisions; 0 = greedy
  top_p: float
  flow_temperature: float  # standard deviation of the flow's initial noise
  griffin_lim_iterations: int

  def __post_init__(self):
    _require_range(
      self,
      section="sample",
      names="temperature flow_temperature griffin_lim_iterations",
      low=0,
    )
    _require(
      0 < self.top_p <= 1,
      f"sample.top_p = {self.top_p}: above 0, at most 1 (1 = all tokens)",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """One experiment."""

  name: str
  streams: StreamsConfig
  model: ModelConfig
  data: DataConfig
  train: TrainConfig
  mesh: MeshConfig
  sample: SampleConfig

  def __post_init__(self):
    rows = (
      self.streams.text_vocab_size + CONTROL_ROWS + self.model.vocab_padding
    )
    _require(
      self.model.vocab_size >= rows,
      f"model.vocab_size = {self.model.vocab_size}: at least"
      f" streams.text_vocab_size + {CONTROL_ROWS} control rows +"
      f" model.vocab_padding = {rows}",
    )
    batch, shards = self.train.global_batch_size, self.data.logical_shards
    _require(
      batch % shards == 0,
      f"train.global_batch_size = {batch}: must be a multiple of"
      f" data.logical_shards = {shards}, as every shard gives the same number"
      " of sequences to a step",
    )
