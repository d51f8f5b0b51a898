"""What a config value must satisfy, one function for each section.

For: `config.py`, whose dataclasses call these when they are built. Not for:
what sections ask of each other (`config/relations.py`), nor what a command
needs besides its config. Every message names the field, the value and the fix;
a range is checked by `_require_range`.
"""

import re
from typing import Any

from tml_jax import errors

# Rows of the vocabulary kept for the frame's control tokens, right after the
# text rows; streams/frame.py uses the first ones.
CONTROL_ROWS = 64
MAX_SEED = 2**32 - 1  # jax.random.key drops what is above
PATCH = 40  # pixels; the side of a video patch
FLASH_BLOCK = 256  # positions; of the attention kernels with a window
# What `tml_jax.streams` makes; nothing here may import it.
TOKEN_MS = 50  # of sound; a micro-turn holds whole tokens
TURN_MS = (50, 100, 200, 400, 600, 800)  # scenarios have rules for these
TICK_MS = 200  # of scenarios and logs
DMEL = {"dmel_channels": 80, "dmel_levels": 16}


def require(holds: bool, message: str) -> None:
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
    require(low <= value <= high, f"{section}.{name} = {value}: {limit}")


def streams(config: Any) -> None:
  _require_range(
    config,
    section="streams",
    names="text_vocab_size seq_len max_audio max_speak max_targets"
    " video_height video_width",
    low=1,
  )
  # A message goes on in later frames only if one token fits between its marks.
  _require_range(
    config, section="streams", names="max_text_in max_text_out", low=3
  )
  _require_range(
    config,
    section="streams",
    names="say_lead message_weight silence_weight speak_weight onset_weight"
    " stop_weight",
    low=0,
  )
  require(
    config.turn_ms in TURN_MS,
    f"streams.turn_ms = {config.turn_ms}: one of"
    f" {', '.join(map(str, TURN_MS))}: whole tokens of {TOKEN_MS} ms, and"
    f" boundaries where scenarios have theirs, every {TICK_MS} ms",
  )
  for name in ("video_height", "video_width"):
    value = getattr(config, name)
    require(
      value % PATCH == 0,
      f"streams.{name} = {value}: must be a multiple of {PATCH}, for"
      f" instance {(value // PATCH + 1) * PATCH}",
    )
  for name in ("max_audio", "max_patches", "max_speak", "max_targets"):
    value = getattr(config, name)
    require(
      value <= config.seq_len,
      f"streams.{name} = {value}: at most streams.seq_len = {config.seq_len},"
      " as each takes a position",
    )
  require(
    config.max_patches >= config.patches_per_frame,
    f"streams.max_patches = {config.max_patches}: one video frame of"
    f" {config.video_height}x{config.video_width} has"
    f" {config.patches_per_frame} patches; raise max_patches or make the"
    " video smaller",
  )
  _require_frame_fits(config)


def _require_frame_fits(config: Any) -> None:
  """The largest frame must fit one sequence."""
  decided = config.max_text_out + 1
  audio = 2 * config.turn_ms // TOKEN_MS  # both sides sound
  perceived = 1 + audio + config.patches_per_frame + config.max_text_in
  for name, need in (
    ("seq_len", perceived + decided),
    ("max_audio", audio),
    ("max_targets", decided),
  ):
    require(
      getattr(config, name) >= need,
      f"streams.{name} = {getattr(config, name)}: one frame with sound, video"
      f" and text takes {need}; raise it",
    )


def flow(config: Any) -> None:
  _require_range(
    config,
    section="model.flow",
    names="width depth time_features draws steps",
    low=1,
  )
  _require_range(
    config, section="model.flow", names="condition_drop", low=0, high=1
  )
  _require_range(config, section="model.flow", names="map_weight", low=0)
  require(
    config.mel_std > 0,
    f"model.flow.mel_std = {config.mel_std}: must be above 0",
  )
  require(
    config.time_features % 2 == 0,
    f"model.flow.time_features = {config.time_features}: must be even, sines"
    " and cosines",
  )


def model(config: Any) -> None:
  _require_range(
    config,
    section="model",
    names="vocab_size d_model num_layers num_heads num_kv_heads head_dim"
    " swa_num_heads swa_num_kv_heads swa_head_dim sliding_window d_rel"
    " rel_extent d_ff expert_d_ff conv_kernel dmel_channels moe_tile",
    low=1,
  )
  _require_range(
    config,
    section="model",
    names="log_scaling_floor log_scaling_alpha num_dense_layers num_experts"
    " num_shared_experts num_mtp_layers vocab_padding clock_features",
    low=0,
  )
  _require_range(config, section="model", names="dmel_levels", low=2)
  for name in (
    "route_scale",
    "rms_norm_eps",
    "logits_divisor",
    "init_std",
    "query_norm_init",
  ):
    value = getattr(config, name)
    require(value > 0, f"model.{name} = {value}: must be above 0")
  for prefix in ("", "swa_"):
    heads = getattr(config, f"{prefix}num_heads")
    kv_heads = getattr(config, f"{prefix}num_kv_heads")
    require(
      heads % kv_heads == 0,
      f"model.{prefix}num_heads = {heads}: must be a multiple of"
      f" model.{prefix}num_kv_heads = {kv_heads}",
    )
  for name in ("attention_pattern", "mtp_attention_pattern"):
    value = getattr(config, name)
    require(
      value != "" and set(value) <= {*"LG"},
      f"model.{name} = {value!r}: one or more of L (sliding window) and G"
      " (global), for instance LLLLLG",
    )
  require(
    config.num_dense_layers <= config.num_layers,
    f"model.num_dense_layers = {config.num_dense_layers}: at most"
    f" model.num_layers = {config.num_layers}",
  )
  require(
    config.num_dense_layers == config.num_layers
    or 1 <= config.experts_per_token <= config.num_experts,
    f"model.experts_per_token = {config.experts_per_token}: from 1 to"
    f" model.num_experts = {config.num_experts}",
  )
  require(
    min(config.hmlp_widths) >= 1,
    f"model.hmlp_widths = {config.hmlp_widths}: every width at least 1",
  )
  require(
    config.clock_features % 2 == 0,
    f"model.clock_features = {config.clock_features}: must be even, sines and"
    " cosines",
  )
  if config.position == "time_rope":
    _require_rotation(config)


def _require_rotation(config: Any) -> None:
  for name in ("head_dim", "swa_head_dim"):
    require(
      getattr(config, name) % 2 == 0,
      f"model.{name} = {getattr(config, name)}: must be even where"
      " model.position = time_rope turns pairs of dims",
    )
  require(
    config.num_mtp_layers == 0,
    f"model.num_mtp_layers = {config.num_mtp_layers}: layers of multi-token"
    " prediction have no times; set it to 0, or model.position=relative_bias",
  )


def data(config: Any) -> None:
  _require_range(
    config, section="data", names="logical_shards group_size", low=1
  )
  _require_range(config, section="data", names="workers", low=0)
  _require_range(config, section="data", names="seed", low=0, high=MAX_SEED)
  require(
    0 < config.heldout_share < 1,
    f"data.heldout_share = {config.heldout_share}: between 0 and 1",
  )
  for name in ("voices", "mixture"):
    require(
      len(getattr(config, name)) > 0, f"data.{name} = (): name at least one"
    )
  require(
    len({*config.voices}) == len(config.voices),
    f"data.voices = {config.voices}: a voice is named twice",
  )
  for entry in config.mixture:
    source, _, weight = entry.rpartition(":")
    require(
      source != "" and _is_weight(weight),
      f"data.mixture entry {entry!r}: write SOURCE:WEIGHT with a weight"
      " above 0, for instance reply:1.0",
    )
  require(
    len(config.mixture_weights) == len(config.mixture),
    f"data.mixture = {config.mixture}: a source is named twice",
  )


def _is_weight(text: str) -> bool:
  try:
    return 0 < float(text) < float("inf")
  except ValueError:
    return False


def optim(config: Any) -> None:
  section = "train.optim"
  for name in ("learning_rate", "muon_learning_rate", "eps", "clip_norm"):
    value = getattr(config, name)
    require(value > 0, f"{section}.{name} = {value}: must be above 0")
  _require_range(
    config,
    section=section,
    names="warmup_steps weight_decay router_bias_rate",
    low=0,
  )
  _require_range(
    config,
    section=section,
    names="final_learning_rate_ratio",
    low=0,
    high=1,
  )
  for name in ("b1", "b2", "ema_decay"):
    value = getattr(config, name)
    require(0 <= value < 1, f"{section}.{name} = {value}: at least 0, below 1")


def train(config: Any) -> None:
  _require_range(
    config,
    section="train",
    names="steps global_batch_size accumulation_steps log_every"
    " checkpoint_every keep_checkpoints",
    low=1,
  )
  _require_range(
    config,
    section="train",
    names="flow_loss_weight evaluate_every local_checkpoint_every"
    " load_balance_loss_weight",
    low=0,
  )
  _require_range(config, section="train", names="seed", low=0, high=MAX_SEED)
  _require_range(config, section="train", names="feedback_noise", low=0, high=1)
  require(
    config.global_batch_size % config.accumulation_steps == 0,
    f"train.global_batch_size = {config.global_batch_size}: must be a multiple"
    f" of train.accumulation_steps = {config.accumulation_steps}",
  )
  require(
    config.local_checkpoint_every < config.checkpoint_every,
    f"train.local_checkpoint_every = {config.local_checkpoint_every}: must be"
    f" below train.checkpoint_every = {config.checkpoint_every}, whose"
    " checkpoints serve as well",
  )


def execution(config: Any) -> None:
  section = "train.execution"
  _require_range(config, section=section, names="moe_buffer", low=0.1)
  _require_range(config, section=section, names="loss_chunk", low=1)
  require(
    config.moe_matmul != "megablox" or config.moe_dispatch != "automatic",
    f"{section}.moe_matmul = megablox: the compiler cannot divide its kernels"
    f" among devices; set {section}.moe_dispatch=all_gather",
  )


# Options of XLA that stand in a config: values that are no place in a file
# system, and none of those whose value would be taken for one.
_OPTION = r"\w+=(true|false|-?\d+(\.\d+)?|[A-Z][A-Z_]*)"
_PLACE = r"dump|_(to|from|file|path|dir|directory|cache)$"


def mesh(config: Any) -> None:
  axes = "data fsdp expert tensor seq"
  _require_range(config, section="mesh", names=f"{axes} slices", low=1)
  for entry in config.rules:
    name, _, targets = entry.partition(":")
    require(
      name != "" and set(targets.split("+")) <= set(axes.split()),
      f"mesh.rules entry {entry!r}: write NAME:AXIS or NAME:AXIS+AXIS with"
      f" axes of {axes}, for instance batch:data+fsdp",
    )
  require(
    len(config.axis_rules) == len(config.rules),
    f"mesh.rules = {config.rules}: a logical name has two rules",
  )
  for entry in config.compiler_options:
    require(
      re.fullmatch(_OPTION, entry) is not None,
      f"mesh.compiler_options entry {entry!r}: write FLAG=VALUE with true,"
      " false, a number or a WORD, for instance"
      " xla_tpu_enable_latency_hiding_scheduler=true",
    )
    require(
      re.search(_PLACE, entry.partition("=")[0]) is None,
      f"mesh.compiler_options entry {entry!r}: a config, which may be somebody"
      " else's, names no files; set it in $XLA_FLAGS",
    )


def sample(config: Any) -> None:
  _require_range(
    config,
    section="sample",
    names="temperature flow_temperature griffin_lim_iterations sinks",
    low=0,
  )
  _require_range(config, section="sample", names="horizon", low=1)
  require(
    0 < config.top_p <= 1,
    f"sample.top_p = {config.top_p}: above 0, at most 1 (1 = all tokens)",
  )
