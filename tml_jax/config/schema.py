"""The typed configuration tree: every number of an experiment is here once.

For: the dataclasses that `experiments/*.py` return and every other module
reads. Not for: choosing values (that is `experiments/`). Start reading at
`Config`. Derived values are properties; nothing here imports jax. A value
that cannot work raises `errors.UserError` when its dataclass is built, naming
the field, the value and the fix.
"""

import dataclasses
import enum

from tml_jax.config import checks as config_checks
from tml_jax.config import relations as config_relations


class Dtype(enum.StrEnum):
  FLOAT32 = "float32"
  BFLOAT16 = "bfloat16"


class RematPolicy(enum.StrEnum):
  NONE = "none"
  BLOCK = "block"  # keep only the input of each layer
  # Keep what experts give as well: their last products and the exchange behind
  # them are not run again.
  SAVE_OUTPUTS = "save_outputs"
  # Keep what is dear to compute: attention, experts and their hidden rows.
  SAVE_EXPERTS = "save_experts"
  # Keep these and the outputs of all matmuls without batch dims.
  SAVE_MATMULS = "save_matmuls"
  # As block; these inputs wait in host memory. Not where runs of layers are
  # scanned inside blocks.
  OFFLOAD = "offload"


class MoeDispatch(enum.StrEnum):
  """How tokens reach the devices that hold their experts."""

  AUTOMATIC = "automatic"  # left to the compiler; best on few devices
  ALL_GATHER = "all_gather"  # all tokens of an expert group to each member
  # Each token to the devices of its experts; of use where these are many.
  RAGGED_ALL_TO_ALL = "ragged_all_to_all"  # TPU
  PADDED_ALL_TO_ALL = "padded_all_to_all"  # with room that is not used


class MoeMatmul(enum.StrEnum):
  """The product of rows with the weights of their experts."""

  TILED = "tiled"  # CPU and GPU
  MEGABLOX = "megablox"  # TPU: Pallas kernels of jax


class AttentionForm(enum.StrEnum):
  """What computes attention over whole sequences."""

  CELLS = "cells"  # CPU and GPU
  PALLAS = "pallas"  # TPU: kernels of ours


class Numerics(enum.StrEnum):
  """Whether results may depend on what is computed beside them."""

  DEFAULT = "default"  # to rounding
  # The same bits in training, prefill and ticks, whatever shares the batch.
  INVARIANT = "invariant"  # CPU

  @property
  def compiler_options(self) -> dict[str, bool]:
    """XLA's; else fusions keep in float32 what is rounded to bfloat16."""
    invariant = self is Numerics.INVARIANT
    return {"xla_allow_excess_precision": False} if invariant else {}


class Position(enum.StrEnum):
  """How attention knows where a key is, seen from a query."""

  RELATIVE_BIAS = "relative_bias"  # learned, by distance in tokens (Inkling)
  TIME_ROPE = "time_rope"  # rotary, by when it sounds (models/rotary.py)


class SayText(enum.StrEnum):
  """What of its speech the model writes before it makes the sound."""

  WORDS = "words"
  NONE = "none"  # no say-text tokens, in training and sampling


class Layout(enum.StrEnum):
  """How a recording becomes frames."""

  DUPLEX = "duplex"  # both sides at once, on the clock
  TURNS = "turns"  # one after the other, as behind a turn detector


class Optimizer(enum.StrEnum):
  ADAMW = "adamw"
  MUON = "muon"  # matrices of the trunk; AdamW for everything else


class Schedule(enum.StrEnum):
  CONSTANT = "constant"
  COSINE = "cosine"
  LINEAR = "linear"


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
  # Loss weights; say-text weighs 1.
  message_weight: float  # tokens of messages, channels and their ends
  silence_weight: float  # `<quiet>` after `<quiet>`
  speak_weight: float  # `<speak>` after `<speak>`
  onset_weight: float  # first `<speak>`
  stop_weight: float  # first `<quiet>`
  say_text: SayText = SayText.WORDS
  turn_ms: int = 200  # one micro-turn; long ones want a larger max_text_*

  @property
  def patches_per_frame(self) -> int:
    """Patches of one video frame (or pair of frames)."""
    side = config_checks.PATCH
    return (self.video_height // side) * (self.video_width // side)

  def __post_init__(self):
    config_checks.streams(self)


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

  def __post_init__(self):
    config_checks.flow(self)


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

  def __post_init__(self):
    config_checks.model(self)


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
  layout: Layout = Layout.DUPLEX

  @property
  def mixture_weights(self) -> dict[str, float]:
    """Weight by source, as `mixture` gives them."""
    entries = (entry.rpartition(":") for entry in self.mixture)
    return {source: float(weight) for source, _, weight in entries}

  def __post_init__(self):
    config_checks.data(self)


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
  moment_dtype: Dtype  # of first moments and Muon's momentum

  def __post_init__(self):
    config_checks.optim(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
  """How a step runs on its devices; what it computes stays the same."""

  # One compiled block of the attention pattern for all layers that allow it;
  # changes the layout of parameters (models/stacking.py).
  scan_layers: bool
  moe_dispatch: MoeDispatch
  moe_matmul: MoeMatmul
  # Rows that a grouped matmul, or an all-to-all, takes at a time, over an equal
  # share. What is more takes another turn; nothing is dropped.
  moe_buffer: float
  loss_chunk: int  # targets of a sequence whose logits exist at once
  attention: AttentionForm

  def __post_init__(self):
    config_checks.execution(self)


# One device, or few that the compiler divides the work among.
PLAIN = ExecutionConfig(
  scan_layers=False,
  moe_dispatch=MoeDispatch.AUTOMATIC,
  moe_matmul=MoeMatmul.TILED,
  moe_buffer=1.25,
  loss_chunk=4096,
  attention=AttentionForm.CELLS,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopConfig:
  """What the train loop (`tml_jax/train.py`) asks of whatever it trains."""

  steps: int
  global_batch_size: int  # sequences in one optimizer step
  accumulation_steps: int  # microbatches the global batch is cut into
  seed: int
  log_every: int
  checkpoint_every: int
  keep_checkpoints: int
  optim: OptimConfig
  local_checkpoint_every: int = 0  # on disks of the hosts; 0 = never

  @property
  def microbatch_size(self) -> int:
    """Sequences of one forward and backward pass, all devices together."""
    return self.global_batch_size // self.accumulation_steps

  def __post_init__(self):
    config_checks.loop(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopConfig):
  """How the interaction model is trained."""

  dtype: Dtype  # of activations; parameters are kept in float32
  remat_policy: RematPolicy
  execution: ExecutionConfig
  flow_loss_weight: float
  feedback_noise: float  # share of own-audio levels moved by one in training
  evaluate_every: int  # 0 = never inside training
  # Of Switch's auxiliary loss (moe.load_balance), as an alternative to
  # optim.router_bias_rate; 0 = off. Switch and GShard: 0.01.
  load_balance_loss_weight: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    config_checks.train(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """The mesh: axes, what lies on them, and how XLA compiles for it.

  The product of the five sizes must be the device count. Without rules only
  a mesh of one device can be made.
  """

  data: int
  fsdp: int
  expert: int
  tensor: int
  seq: int
  slices: int = 1  # `data` crosses the network between them
  rules: tuple[str, ...] = ()  # "logical name:axis+axis"
  compiler_options: tuple[str, ...] = ()  # "xla_flag=value"

  @property
  def axis_rules(self) -> dict[str, tuple[str, ...]]:
    """Mesh axes by logical name, as `rules` gives them."""
    entries = (entry.partition(":") for entry in self.rules)
    return {name: tuple(axes.split("+")) for name, _, axes in entries}

  @property
  def compiler_flags(self) -> dict[str, str | bool]:
    """Value by XLA flag, as `compiler_options` gives them."""
    # Some of XLA's flags take "true" as a string, all take True.
    words = {"true": True, "false": False}
    pairs = (entry.split("=", 1) for entry in self.compiler_options)
    return {name: words.get(value, value) for name, value in pairs}

  def __post_init__(self):
    config_checks.mesh(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
  temperature: float  # of text and decisions; 0 = greedy
  top_p: float
  flow_temperature: float  # standard deviation of the flow's initial noise
  griffin_lim_iterations: int
  # What global layers see of a session: so many positions back (6 a window of
  # 200 ms listening, 11 speaking), and its first ones for good.
  horizon: int
  sinks: int

  def __post_init__(self):
    config_checks.sample(self)


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
  numerics: Numerics

  def __post_init__(self):
    config_relations.whole(self)

  @property
  def compiler_options(self) -> dict[str, str | bool]:
    """Of XLA, for every program of a run."""
    return self.numerics.compiler_options | self.mesh.compiler_flags
