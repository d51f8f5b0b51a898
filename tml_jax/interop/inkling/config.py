"""config.json of Inkling checkpoints, read into our settings and written.

For: `architecture` (theirs to our ModelConfig fields) and `to_json` (ours to
theirs). Not for: weights. Start reading at `Settings.read`. Both spellings
are read: the published one (`sconv_kernel_size`, `mtp_config`) and the one
that transformers saves (`conv_kernel_size`, `num_mtp_layers`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tml_jax import errors
from tml_jax.config import Config, ModelConfig, Position
from tml_jax.config import streams as streams_config
from tml_jax.streams import patches

# Block of ours in config.json, which other programs ignore.
OURS = "tml_jax"
# What the formulas of the model fix; a setting that is absent has this value.
_FIXED = {
  "hidden_act": "silu",
  "attention_dropout": 0.0,
  "shared_expert_sink": True,
  "gate_activation": "sigmoid",
  "norm_after_topk": True,
  "use_gate_bias": True,
  "use_global_scale": True,
  "use_sconv": True,
  "use_embed_norm": True,
  "q_bias": False,
  "o_bias": False,
  "final_logit_softcapping": None,
  "chain_hidden_post_norm": False,
  "mtp_hidden_states_first": True,
  "quantization_config": None,
}
_FIXED_VISION = {
  "patch_size": 40,
  "temporal_patch_size": 2,
  "num_channels": 3,
  "num_hidden_layers": 4,
}
_ALIASES = {
  "sconv_kernel_size": "conv_kernel_size",
  "embedding_multiplier": "logits_mup_width_multiplier",
  "sliding_window": "sliding_window_size",
  "num_local_experts": "n_routed_experts",
  "n_layers": "num_hidden_layers",
  "n_channels": "num_channels",
  "num_codebooks": "n_mel_bins",
  "codebook_size": "mel_vocab_size",
}
_LETTERS = {"hybrid_sliding": "L", "hybrid": "G"}
# Ours and theirs, where it is the same number.
_SAME = {
  "d_model": "hidden_size",
  "num_layers": "num_hidden_layers",
  "num_heads": "num_attention_heads",
  "num_kv_heads": "num_key_value_heads",
  "head_dim": "head_dim",
  "swa_num_heads": "swa_num_attention_heads",
  "swa_num_kv_heads": "swa_num_key_value_heads",
  "swa_head_dim": "swa_head_dim",
  "sliding_window": "sliding_window_size",
  "d_rel": "d_rel",
  "rel_extent": "rel_extent",
  "d_ff": "intermediate_size",
  "num_experts": "n_routed_experts",
  "experts_per_token": "num_experts_per_tok",
  "num_shared_experts": "n_shared_experts",
  "expert_d_ff": "moe_intermediate_size",
  "route_scale": "route_scale",
  "conv_kernel": "conv_kernel_size",
  "rms_norm_eps": "rms_norm_eps",
  "logits_divisor": "logits_mup_width_multiplier",
}
# All fields of ModelConfig that a checkpoint fixes.
FIELDS = (
  *_SAME,
  "vocab_size",
  "vocab_padding",
  "attention_pattern",
  "mtp_attention_pattern",
  "log_scaling_floor",
  "log_scaling_alpha",
  "num_dense_layers",
  "num_mtp_layers",
  "dmel_channels",
  "dmel_levels",
  "hmlp_widths",
)


@dataclasses.dataclass(frozen=True)
class Settings:
  """A config.json with one spelling.

  Attributes:
    text: of the language model, names as transformers saves them.
    audio: None in a text-only checkpoint.
    vision: None in a text-only checkpoint.
    ours: our own block, empty in a checkpoint of others.
  """

  text: dict[str, Any]
  audio: dict[str, Any] | None
  vision: dict[str, Any] | None
  ours: dict[str, Any]

  @classmethod
  def read(cls, values: Mapping[str, Any]) -> "Settings":
    """From the parsed file, or `to_dict()` of a transformers configuration."""
    towers = "text_config" in values
    text = _one_spelling(values["text_config"] if towers else values)
    mtp = values.get("mtp_config") or {}
    for theirs, ours in (
      ("num_nextn_predict_layers", "num_mtp_layers"),
      ("chain_hidden_post_norm", "chain_hidden_post_norm"),
      ("local_layer_ids", "mtp_local_layer_ids"),
    ):
      if text.get(ours) is None and theirs in mtp:
        text[ours] = mtp[theirs]
    if text.get("dense_intermediate_size") is not None:
      # `intermediate_size` is then the width of an expert.
      text["moe_intermediate_size"] = text["intermediate_size"]
      text["intermediate_size"] = text["dense_intermediate_size"]
    layers = text.get("num_hidden_layers", 0)
    if text.get("layer_types") is None:
      text["layer_types"] = _types(layers, local=text.get("local_layer_ids"))
    if text.get("mlp_layer_types") is None:
      dense = text.get("dense_mlp_idx", 0)
      text["mlp_layer_types"] = ["dense"] * dense + ["sparse"] * (
        layers - dense
      )
    text["quantization_config"] = values.get("quantization_config")
    return cls(
      text=text,
      audio=_one_spelling(values["audio_config"]) if towers else None,
      vision=_one_spelling(values["vision_config"]) if towers else None,
      ours=dict(values.get(OURS) or {}),
    )

  @property
  def vocab_size(self) -> int:
    """Rows of the tables."""
    return self.text["vocab_size"]

  @property
  def real_rows(self) -> int:
    """Rows of the unembedding that predict something."""
    unpadded = self.text.get("unpadded_vocab_size")
    return self.vocab_size if unpadded is None else unpadded

  @property
  def text_vocab_size(self) -> int:
    """Rows of text tokens; those behind are free or our control tokens."""
    return self.ours.get("text_vocab_size", self.real_rows)


def _one_spelling(values: Mapping[str, Any]) -> dict[str, Any]:
  result = {}
  for name, value in values.items():
    result[_ALIASES.get(name, name)] = value
  return result


def _types(layers: int, *, local: list[int] | None) -> list[str]:
  if local is None:
    local = [i for i in range(layers) if (i + 1) % 6]
  return ["hybrid_sliding" if i in local else "hybrid" for i in range(layers)]


def architecture(
  settings: Settings, *, widths: tuple[int, int, int] | None
) -> dict[str, Any]:
  """The fields of ModelConfig that a checkpoint fixes, vocabulary excluded.

  Args:
    settings: its config.json.
    widths: of the hMLP, from the shapes of its tensors; None without towers.

  Raises:
    errors.UserError: settings that this model does not compute, or none.
  """
  text = settings.text
  _refuse(settings)
  mtp = text.get("num_mtp_layers") or 0
  local = text.get("mtp_local_layer_ids")
  mtp_types = _types(mtp, local=[] if local is None else local)
  fields = {ours: text[theirs] for ours, theirs in _SAME.items()}
  fields |= dict(
    attention_pattern=_pattern(text["layer_types"]),
    log_scaling_floor=text.get("log_scaling_n_floor") or 0,
    log_scaling_alpha=text.get("log_scaling_alpha", 0.1),
    num_dense_layers=text["mlp_layer_types"].count("dense"),
    num_mtp_layers=mtp,
    mtp_attention_pattern=_pattern(mtp_types) or "G",
    position=Position.RELATIVE_BIAS,
  )
  if settings.audio is not None:
    fields |= dict(
      dmel_channels=settings.audio["n_mel_bins"],
      dmel_levels=settings.audio["mel_vocab_size"],
      hmlp_widths=widths,
    )
  for name in ("log_scaling_alpha", "route_scale", "logits_divisor"):
    fields[name] = float(fields[name])
  return fields


def _pattern(types: list[str]) -> str:
  """Letters of the layers, cut to the shortest part that repeats."""
  letters = "".join(_LETTERS[kind] for kind in types)
  for period in range(1, len(letters)):
    times, rest = divmod(len(letters), period)
    if not rest and letters == letters[:period] * times:
      return letters[:period]
  return letters


def _refuse(settings: Settings) -> None:
  text = settings.text
  needed = {"vocab_size", *_SAME.values()}
  problems = [f"{name} is missing" for name in sorted(needed - set(text))]
  for name, value in _FIXED.items():
    if text.get(name, value) != value:
      problems.append(f"{name} = {text[name]!r} (supported: {value!r})")
  for name, value in _FIXED_VISION.items():
    found = (settings.vision or _FIXED_VISION).get(name)
    if found != value:
      problems.append(f"vision {name} = {found!r} (supported: {value!r})")
  for name in ("n_mel_bins", "mel_vocab_size"):
    if settings.audio is not None and name not in settings.audio:
      problems.append(f"audio {name} is missing")
  layers = text.get("num_hidden_layers", 0)
  unknown = sorted(set(text["layer_types"]) - set(_LETTERS))
  if unknown:
    problems.append(f"unknown layer_types {unknown}")
  if len(text["layer_types"]) != layers:
    problems.append(
      f"{len(text['layer_types'])} layer_types for {layers} layers"
    )
  kinds = list(text["mlp_layer_types"])
  dense = kinds.count("dense")
  if kinds != ["dense"] * dense + ["sparse"] * (layers - dense):
    problems.append(f"mlp_layer_types = {kinds}: dense layers come first")
  if dense < layers and not text.get("n_shared_experts"):
    problems.append("n_shared_experts = 0 (supported: 1 or more)")
  if problems:
    raise errors.UserError(
      "unsupported settings in config.json: " + "; ".join(problems)
    )


def vocabulary(settings: Settings) -> dict[str, int]:
  """vocab_size and vocab_padding of ours: room for the control tokens."""
  if settings.ours:
    padding = settings.vocab_size - settings.real_rows
    return dict(vocab_size=settings.vocab_size, vocab_padding=padding)
  rows = settings.text_vocab_size + streams_config.CONTROL_ROWS
  if rows > settings.vocab_size:
    rows = -(-rows // 64) * 64  # so that the usual mesh axes divide it
  return dict(vocab_size=max(rows, settings.vocab_size), vocab_padding=0)


def differences(model: ModelConfig, *, fields: Mapping[str, Any]) -> list[str]:
  """Where a ModelConfig is not that of a checkpoint, one line each."""
  found = {name: getattr(model, name) for name in fields}
  wanted = dict(fields)
  for name, layers in (
    ("attention_pattern", model.num_layers),
    ("mtp_attention_pattern", model.num_mtp_layers),
  ):
    for values in (found, wanted):
      pattern = values[name]
      values[name] = "".join(pattern[i % len(pattern)] for i in range(layers))
  return [
    f"model.{name} is {found[name]!r}, the checkpoint's is {value!r}"
    for name, value in wanted.items()
    if found[name] != value
  ]


def to_json(config: Config, *, dtype: str) -> dict[str, Any]:
  """config.json of `InklingForConditionalGeneration` for our model."""
  model = config.model
  layers, mtp = range(model.num_layers), range(model.num_mtp_layers)
  local = [i for i in layers if not model.is_global(i)]
  text = {theirs: getattr(model, ours) for ours, theirs in _SAME.items()}
  # transformers reads this spelling of the two widths without guessing.
  text |= dict(
    model_type="inkling_text",
    vocab_size=model.vocab_size,
    unpadded_vocab_size=model.vocab_size - model.vocab_padding,
    layer_types=_types(model.num_layers, local=local),
    mlp_layer_types=[
      "dense" if model.is_dense(i) else "sparse" for i in layers
    ],
    log_scaling_n_floor=model.log_scaling_floor or None,
    log_scaling_alpha=model.log_scaling_alpha,
    hidden_act="silu",
    initializer_range=model.init_std,
    pad_token_id=None,
  )
  if model.num_mtp_layers:
    text |= dict(
      num_mtp_layers=model.num_mtp_layers,
      mtp_local_layer_ids=[i for i in mtp if not model.mtp_is_global(i)],
      chain_hidden_post_norm=False,
      mtp_hidden_states_first=True,
    )
  return dict(
    architectures=["InklingForConditionalGeneration"],
    model_type="inkling_mm_model",
    dtype=dtype,
    text_config=text,
    audio_config=dict(
      model_type="inkling_audio",
      n_mel_bins=model.dmel_channels,
      mel_vocab_size=model.dmel_levels,
      text_hidden_size=model.d_model,
    ),
    vision_config=dict(
      model_type="inkling_vision",
      n_layers=4,
      patch_size=patches.PATCH,
      temporal_patch_size=patches.PAIR,
      num_channels=3,
      text_hidden_size=model.d_model,
    ),
    **{OURS: dict(text_vocab_size=config.streams.text_vocab_size)},
  )
