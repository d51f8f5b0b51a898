"""Training: how long and with what, the optimizer, and how a step runs.

For: `TrainConfig` and its sections `OptimConfig` and `ExecutionConfig`. Not
for: where arrays lie (`config/mesh.py`). Start reading at `TrainConfig`.
"""

import dataclasses
import enum
import re

from tml_jax import errors
from tml_jax.config import checks


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
  # As block, and as save_outputs; inputs of layers wait in host memory.
  OFFLOAD = "offload"
  OFFLOAD_SAVE_OUTPUTS = "offload_save_outputs"

  @property
  def offloads(self) -> bool:
    return self in (RematPolicy.OFFLOAD, RematPolicy.OFFLOAD_SAVE_OUTPUTS)


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


# Positions of a block of the Pallas kernels with a window; a sequence is cut
# over devices in multiples. With a window of 512, blocks of 256 multiply 768
# keys for a query where blocks of 512 multiply 1024.
FLASH_BLOCK = 256


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

  def __post_init__(self) -> None:
    section = "train.execution"
    checks.require_range(self, section=section, names="moe_buffer", low=0.1)
    checks.require_range(self, section=section, names="loss_chunk", low=1)
    checks.require(
      self.moe_matmul is not MoeMatmul.MEGABLOX
      or self.moe_dispatch is not MoeDispatch.AUTOMATIC,
      f"{section}.moe_matmul = megablox: the compiler cannot divide its kernels"
      f" among devices; set {section}.moe_dispatch=all_gather",
    )


# One device, or few that the compiler divides the work among.
PLAIN = ExecutionConfig(
  scan_layers=False,
  moe_dispatch=MoeDispatch.AUTOMATIC,
  moe_matmul=MoeMatmul.TILED,
  moe_buffer=1.25,
  loss_chunk=4096,
  attention=AttentionForm.CELLS,
)


class Precision(enum.StrEnum):
  """Of a product with weights, forward and to the gradients of its inputs.

  A scale for each row and each output.
  """

  INT8 = "int8"  # v5p, v6e
  FP8 = "fp8"  # TPU7x: e4m3, gradients e5m2
  FP8_FIXED = "fp8_fixed"  # the same; rows clipped to 224, with no maximum


class Optimizer(enum.StrEnum):
  ADAMW = "adamw"
  MUON = "muon"  # matrices of the trunk; AdamW for everything else


class Schedule(enum.StrEnum):
  CONSTANT = "constant"
  COSINE = "cosine"
  LINEAR = "linear"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
  """The optimizer and its schedule."""

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
  # Moments lie in the host's memory, and on devices while they are updated.
  offload_moments: bool = False

  def __post_init__(self) -> None:
    section = "train.optim"
    checks.require_positive(
      self,
      section=section,
      names="learning_rate muon_learning_rate eps clip_norm",
    )
    checks.require_range(
      self,
      section=section,
      names="warmup_steps weight_decay router_bias_rate",
      low=0,
    )
    checks.require_range(
      self, section=section, names="final_learning_rate_ratio", low=0, high=1
    )
    for name in ("b1", "b2", "ema_decay"):
      value = getattr(self, name)
      checks.require(
        0 <= value < 1, f"{section}.{name} = {value}: at least 0, below 1"
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
  # Steps that take the next batch instead of theirs, which is trained on never:
  # the way past a batch that breaks a run. A step named twice skips two.
  skip_batches: tuple[int, ...] = ()

  @property
  def microbatch_size(self) -> int:
    """Sequences of one forward and backward pass, all devices together."""
    return self.global_batch_size // self.accumulation_steps

  def __post_init__(self) -> None:
    checks.require_range(
      self,
      section="train",
      names="steps global_batch_size accumulation_steps log_every"
      " checkpoint_every keep_checkpoints",
      low=1,
    )
    checks.require_range(
      self, section="train", names="local_checkpoint_every", low=0
    )
    checks.require_range(
      self, section="train", names="seed", low=0, high=checks.MAX_SEED
    )
    checks.require(
      all(step > 0 for step in self.skip_batches),
      f"train.skip_batches = {self.skip_batches}: steps begin at 1",
    )
    checks.require(
      self.global_batch_size % self.accumulation_steps == 0,
      f"train.global_batch_size = {self.global_batch_size}: must be a multiple"
      f" of train.accumulation_steps = {self.accumulation_steps}",
    )
    checks.require(
      self.local_checkpoint_every < self.checkpoint_every,
      f"train.local_checkpoint_every = {self.local_checkpoint_every}: must be"
      f" below train.checkpoint_every = {self.checkpoint_every}, whose"
      " checkpoints serve as well",
    )


def _require_rule(rule: str) -> None:
  regex, _, name = rule.rpartition("=")
  checks.require(
    bool(regex) and name in list(Precision),
    f"train.low_precision: {rule!r}: write REGEX=PRECISION with PRECISION one"
    f" of {', '.join(Precision)}, for instance trunk/.*/experts=fp8",
  )
  try:
    re.compile(regex)
  except re.error as error:
    raise errors.UserError(
      f"train.low_precision: {rule!r}: {regex!r} is no regular expression"
      f" ({error})"
    ) from error


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
  # Of what the layers of model.num_mtp_layers predict, their mean; DeepSeek-V3:
  # 0.3, towards the end 0.1 (arXiv 2412.19437, section 4.2). 0: not trained.
  mtp_loss_weight: float = 0.0
  # What is multiplied in 8 bits: REGEX=PRECISION of the whole name of a product
  # (models/precision.py has them), the first that matches. For instance
  # trunk/.*/(experts|shared|query|key|value|output)=fp8. Sessions and
  # evaluations multiply in `dtype`.
  low_precision: tuple[str, ...] = ()

  @property
  def precision_rules(self) -> tuple[tuple[str, Precision], ...]:
    """`low_precision` as pairs."""
    split = (rule.rpartition("=") for rule in self.low_precision)
    return tuple((regex, Precision(name)) for regex, _, name in split)

  def __post_init__(self) -> None:
    super().__post_init__()
    for rule in self.low_precision:
      _require_rule(rule)
    checks.require_range(
      self,
      section="train",
      names="flow_loss_weight evaluate_every load_balance_loss_weight"
      " mtp_loss_weight",
      low=0,
    )
    checks.require_range(
      self, section="train", names="feedback_noise", low=0, high=1
    )
