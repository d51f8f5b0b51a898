"""Inkling weights of Hugging Face transformers, read into our variables.

For: `from_hf` (state dict and configuration in, ModelConfig and variables
out), and `text_logits` / `multimodal_logits`, which run them. Not for:
training, nor fetching anything. Start at `from_hf`; `inkling_names`
is the table of tensors. Neither torch nor transformers is imported: tensors and
configurations are only read.

What Inkling does not have (flow head, clock, stream embedding; towers where
only the text model was given) gets the fixed settings of `FLOW` and
`TEXT_ONLY_WIDTHS` and initial values from key 0.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from tml_jax.config import FlowConfig, ModelConfig, RematPolicy
from tml_jax.interop import inkling_names
from tml_jax.models import embed, flow_head, interaction
from tml_jax.streams import clock

FLOW = FlowConfig(
  width=64,
  depth=2,
  time_features=32,
  draws=4,
  steps=8,
  condition_drop=0.1,
  guidance=1.0,
  mel_mean=-2.5,
  mel_std=1.5,
)
CLOCK_FEATURES = 32
MOE_TILE = 64
TEXT_ONLY_WIDTHS = (16, 16, 16)
TEXT_ONLY_LEVELS = 16
NO_TOKEN = -1

Variables = dict[str, Any]


def _array(tensor: Any) -> np.ndarray:
  """A torch tensor (any dtype, any device) or an array as float32."""
  if hasattr(tensor, "detach"):
    tensor = tensor.detach().cpu().float().numpy()
  return np.asarray(tensor, np.float32)


def _refuse(wanted: list[tuple[str, Any, Any]]) -> None:
  """Raises for settings this model does not compute."""
  wrong = [
    f"{name} = {value!r} (supported: {supported!r})"
    for name, value, supported in wanted
    if value != supported
  ]
  if wrong:
    raise ValueError("unsupported Inkling settings: " + "; ".join(wrong))


def model_config(
  hf_config: Any, *, widths: tuple[int, int, int]
) -> ModelConfig:
  """Our configuration of an Inkling text or multimodal configuration."""
  text = getattr(hf_config, "text_config", hf_config)
  audio = getattr(hf_config, "audio_config", None)
  vision = getattr(hf_config, "vision_config", None)
  dense = sum(kind == "dense" for kind in text.mlp_layer_types)
  layers = text.num_hidden_layers
  letters = {"hybrid_sliding": "L", "hybrid": "G"}
  unknown = sorted(set(text.layer_types) - set(letters))
  expected = ["dense"] * dense + ["sparse"] * (layers - dense)
  checks = [
    ("hidden_act", text.hidden_act, "silu"),
    ("attention_dropout", text.attention_dropout, 0.0),
    ("shared_expert_sink", text.shared_expert_sink, True),
    ("unknown layer_types", unknown, []),
    ("len(layer_types)", len(text.layer_types), layers),
    ("mlp_layer_types", list(text.mlp_layer_types), expected),
  ]
  if dense < layers and text.n_shared_experts < 1:
    checks.append(("n_shared_experts", text.n_shared_experts, "1 or more"))
  if vision is not None:
    checks += [
      ("vision patch_size", vision.patch_size, 40),
      ("vision temporal_patch_size", vision.temporal_patch_size, 2),
      ("vision num_channels", vision.num_channels, 3),
      ("vision num_hidden_layers", vision.num_hidden_layers, 4),
    ]
  _refuse(checks)
  vocab = text.vocab_size
  unpadded = text.unpadded_vocab_size
  return ModelConfig(
    vocab_size=vocab,
    vocab_padding=0 if unpadded is None else max(vocab - unpadded, 0),
    d_model=text.hidden_size,
    num_layers=layers,
    attention_pattern="".join(letters[kind] for kind in text.layer_types),
    num_heads=text.num_attention_heads,
    num_kv_heads=text.num_key_value_heads,
    head_dim=text.head_dim,
    swa_num_heads=text.swa_num_attention_heads,
    swa_num_kv_heads=text.swa_num_key_value_heads,
    swa_head_dim=text.swa_head_dim,
    sliding_window=text.sliding_window_size,
    d_rel=text.d_rel,
    rel_extent=text.rel_extent,
    log_scaling_floor=text.log_scaling_n_floor or 0,
    log_scaling_alpha=text.log_scaling_alpha,
    num_dense_layers=dense,
    d_ff=text.intermediate_size,
    num_experts=text.n_routed_experts,
    experts_per_token=text.num_experts_per_tok,
    num_shared_experts=text.n_shared_experts,
    expert_d_ff=text.moe_intermediate_size,
    route_scale=text.route_scale,
    conv_kernel=text.conv_kernel_size,
    rms_norm_eps=text.rms_norm_eps,
    logits_divisor=text.logits_mup_width_multiplier,
    num_mtp_layers=0,
    dmel_channels=80 if audio is None else audio.n_mel_bins,
    dmel_levels=TEXT_ONLY_LEVELS if audio is None else audio.mel_vocab_size,
    hmlp_widths=widths,
    clock_features=CLOCK_FEATURES,
    init_std=text.initializer_range,
    query_norm_init=1.0,
    moe_tile=MOE_TILE,
    flow=FLOW,
  )


def from_hf(
  state_dict: Mapping[str, Any], hf_config: Any
) -> tuple[ModelConfig, Variables]:
  """Reads an Inkling model.

  Args:
    state_dict: torch tensors or arrays, of `InklingForCausalLM` or
      `InklingForConditionalGeneration`.
    hf_config: `InklingTextConfig` or `InklingConfig`.

  Returns:
    our configuration and the variables {"params": ..., "router": ...} in
    float32.

  Raises:
    ValueError: tensors are missing, unexpected or of another shape, or a
      setting is not supported; the message names each.
  """
  multimodal = getattr(hf_config, "text_config", None) is not None
  widths = TEXT_ONLY_WIDTHS
  if multimodal:
    name = "model.vision_tower.encoder_layers.{}.projection.weight"
    rows = [state_dict.get(name.format(i)) for i in range(3)]
    if any(row is None for row in rows):
      raise ValueError(
        "missing tensors: a multimodal configuration needs"
        f" {name.format('0..2')}; pass the text_config for a text model"
      )
    widths = tuple(row.shape[0] for row in rows)
  config = model_config(hf_config, widths=widths)
  rules = inkling_names.rules(config, multimodal=multimodal)
  _check(state_dict, rules=rules)
  variables = _initial(config, given={rule.path for rule in rules})
  for rule in rules:
    branch = variables
    for part in rule.path[:-1]:
      branch = branch.setdefault(part, {})
    value = rule.convert(_array(state_dict[rule.name]))
    branch[rule.path[-1]] = jnp.asarray(value)
  return config, variables


def _check(
  state_dict: Mapping[str, Any], *, rules: list[inkling_names.Rule]
) -> None:
  expected = {rule.name: rule.shape for rule in rules}
  problems = []
  for kind, names in (
    ("missing", sorted(set(expected) - set(state_dict))),
    ("unexpected", sorted(set(state_dict) - set(expected))),
  ):
    if names:
      problems.append(f"{kind} tensors: {', '.join(names)}")
  shapes = [
    f"{name} is {tuple(state_dict[name].shape)}, the configuration gives"
    f" {shape}"
    for name, shape in expected.items()
    if name in state_dict and tuple(state_dict[name].shape) != shape
  ]
  if shapes:
    problems.append("shapes differ: " + "; ".join(shapes))
  if problems:
    raise ValueError("; ".join(problems))


def _initial(config: ModelConfig, *, given: set[tuple[str, ...]]) -> Variables:
  """Initial values of what the checkpoint does not give, nothing else."""
  embedder = embed.Embedder(config, NO_TOKEN, "float32")
  head = flow_head.FlowHead(config, "float32")
  batch = whole_segments(np.zeros((1, 1), np.int32), config=config)
  mel = jnp.zeros((1, clock.FINE_FRAMES, config.dmel_channels))

  @jax.jit
  def missing(key):
    cond = jnp.zeros((1, config.d_model))
    parts = dict(
      embed=embedder.init(key, batch)["params"],
      flow_head=head.init(key, mel, jnp.zeros(1), cond)["params"],
    )
    flat = traverse_util.flatten_dict(dict(params=nn.unbox(parts)))
    kept = {path: leaf for path, leaf in flat.items() if path not in given}
    return traverse_util.unflatten_dict(kept)

  return {"router": {}} | missing(jax.random.key(0, impl="rbg"))


def _model(config: ModelConfig) -> interaction.InteractionModel:
  return interaction.InteractionModel(
    config, NO_TOKEN, "float32", RematPolicy.NONE
  )


def whole_segments(
  tokens: np.ndarray, *, config: ModelConfig
) -> dict[str, Any]:
  """A batch of one whole segment per row and no payload."""
  rows, length = tokens.shape
  index = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
  return dict(
    tokens=np.asarray(tokens, np.int32),
    segment_ids=np.ones_like(index),
    positions=index,
    windows=np.zeros_like(index),
    audio_dmel=np.zeros((rows, 0, config.dmel_channels), np.uint8),
    audio_positions=np.zeros((rows, 0), np.int32),
    audio_streams=np.zeros((rows, 0), np.int32),
    patches=np.zeros((rows, 0, 2, 40, 40, 3), np.float32),
    patch_positions=np.zeros((rows, 0), np.int32),
  )


def text_logits(
  model_config: ModelConfig, params: Variables, tokens: Any
) -> jax.Array:
  """float32 logits [B, T, V] of token ids [B, T]."""
  batch = whole_segments(np.asarray(tokens), config=model_config)
  return _logits(model_config, params, batch)


def multimodal_logits(
  model_config: ModelConfig,
  params: Variables,
  tokens: Any,
  *,
  dmel: Any,
  pixel_patches: Any,
  audio_token_id: int,
  image_token_id: int,
) -> jax.Array:
  """float32 logits [B, T, V] with sound and pictures at their placeholders.

  Args:
    model_config: as `from_hf` gave it.
    params: as `from_hf` gave them.
    tokens: [B, T].
    dmel: levels [N, channels], for the N audio placeholders in reading order.
    pixel_patches: normalised floats [M, 2, 40, 40, 3], for the M image
      placeholders in reading order.
    audio_token_id: the audio placeholder.
    image_token_id: the image placeholder.

  Raises:
    ValueError: a payload does not have one row per placeholder.
  """
  tokens = np.asarray(tokens)
  batch = whole_segments(tokens, config=model_config)
  batch["audio_dmel"], batch["audio_positions"] = _spread(
    np.asarray(dmel), tokens == audio_token_id, what="dmel"
  )
  batch["audio_streams"] = np.zeros_like(batch["audio_positions"])
  batch["patches"], batch["patch_positions"] = _spread(
    np.asarray(pixel_patches, np.float32),
    tokens == image_token_id,
    what="pixel_patches",
  )
  return _logits(model_config, params, batch)


def _spread(
  values: np.ndarray, mask_BT: np.ndarray, *, what: str
) -> tuple[np.ndarray, np.ndarray]:
  """Payload and positions per row, unused slots at T."""
  rows, length = mask_BT.shape
  if len(values) != mask_BT.sum():
    raise ValueError(
      f"{what} has {len(values)} rows for {mask_BT.sum()} placeholders"
    )
  slots = int(mask_BT.sum(axis=1).max(initial=0))
  payload = np.zeros((rows, slots, *values.shape[1:]), values.dtype)
  positions = np.full((rows, slots), length, np.int32)
  start = 0
  for row, mask in enumerate(mask_BT):
    found = np.flatnonzero(mask)
    positions[row, : len(found)] = found
    payload[row, : len(found)] = values[start : start + len(found)]
    start += len(found)
  return payload, positions


def _logits(config, variables, batch):
  model = _model(config)

  @jax.jit
  def run(variables, batch):
    h_BTD, _ = model.apply(variables, batch, method="hidden")
    return model.apply(variables, h_BTD, method="logits")

  with jax.default_matmul_precision("float32"):
    return run(variables, batch)
