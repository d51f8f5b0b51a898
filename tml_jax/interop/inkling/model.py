"""Inkling weights of Hugging Face transformers, read into our variables.

For: `from_hf` (state dict and configuration in, ModelConfig and variables
out), and `text_logits` / `multimodal_logits`, which run them. Not for:
training, nor fetching anything. Start at `from_hf`; `names`
is the table of tensors. Neither torch nor transformers is imported: tensors and
configurations are only read.

What Inkling does not have (flow head, clock, stream embedding; towers where
only the text model was given) gets the settings `_OURS` and initial values from
key 0.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from tml_jax import errors
from tml_jax.config import FlowConfig, ModelConfig
from tml_jax.config import streams as streams_config
from tml_jax.interop.inkling import config as config_lib
from tml_jax.interop.inkling import names as names_lib
from tml_jax.models import embed, execution, flow_head, interaction
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock
from tml_jax.streams.batch import Packed

_FLOW = FlowConfig(
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
# The fields of ModelConfig that no Inkling has, and those of the towers, which
# a text-only one lacks.
_OURS = dict(
  clock_features=32,
  moe_tile=64,
  flow=_FLOW,
  init_std=0.02,
  query_norm_init=1.0,
  dmel_channels=streams_config.MEL_CHANNELS,
  dmel_levels=streams_config.DMEL_LEVELS,
  hmlp_widths=(16, 16, 16),
)

Variables = dict[str, Any]


def _array(tensor: Any) -> np.ndarray:
  """A torch tensor (any dtype, any device) or an array as float32."""
  if hasattr(tensor, "detach"):
    tensor = tensor.detach().cpu().float().numpy()
  return np.asarray(tensor, np.float32)


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
    errors.UserError: tensors are missing, unexpected or of another shape, or a
      setting is not supported; the message names each.
  """
  settings = config_lib.Settings.read(hf_config.to_dict())
  towers = settings.vision is not None
  widths = None
  if towers:
    name = "model.vision_tower.encoder_layers.{}.projection.weight"
    rows = [state_dict.get(name.format(i)) for i in range(3)]
    if any(row is None for row in rows):
      raise errors.UserError(
        "missing tensors: a multimodal configuration needs"
        f" {name.format('0..2')}; pass the text_config for a text model"
      )
    widths = tuple(row.shape[0] for row in rows)
  fields = config_lib.architecture(settings, widths=widths)
  fields |= dict(
    num_mtp_layers=0,  # no part of a state dict
    vocab_size=settings.vocab_size,
    vocab_padding=settings.vocab_size - settings.real_rows,
  )
  config = ModelConfig(**(_OURS | fields))
  rules = names_lib.rules(
    config,
    layout=names_lib.Layout.MODULES,
    towers=towers,
    scan_layers=False,
  )
  _check(state_dict, rules=rules)
  variables = _initial(config, given={rule.path for rule in rules})
  parts: dict[tuple[str, ...], dict[tuple[int, ...], np.ndarray]] = {}
  for rule in rules:
    value = rule.dims.view(_array(state_dict[rule.name]))
    parts.setdefault(rule.path, {})[rule.index] = value
  for path, values in parts.items():
    branch = variables
    for part in path[:-1]:
      branch = branch.setdefault(part, {})
    branch[path[-1]] = jnp.asarray(_stack(values))
  return config, variables


def _stack(values: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
  """One parameter from its layers; a single one has the index ()."""
  if () in values:
    return values[()]
  counts = [max(index) + 1 for index in zip(*values, strict=True)]
  result = np.empty((*counts, *next(iter(values.values())).shape), np.float32)
  for index, value in values.items():
    result[index] = value
  return result


def _check(
  state_dict: Mapping[str, Any], *, rules: list[names_lib.Rule]
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
    raise errors.UserError("; ".join(problems))


def _initial(config: ModelConfig, *, given: set[tuple[str, ...]]) -> Variables:
  """Initial values of what the checkpoint does not give, nothing else."""
  embedder = embed.Embedder(config, execution.PLAIN)
  head = flow_head.FlowHead(config, execution.PLAIN)
  packed = whole_segments(np.zeros((1, 1), np.int32))
  mel = jnp.zeros((1, clock.TICKS.fine_frames, config.dmel_channels))

  @jax.jit
  def missing(key):
    cond = jnp.zeros((1, config.d_model))
    parts = dict(
      embed=embedder.init(key, packed.inputs)["params"],
      flow_head=head.init(key, mel, jnp.zeros(1), cond)["params"],
    )
    flat = traverse_util.flatten_dict(dict(params=nn.unbox(parts)))
    kept = {path: leaf for path, leaf in flat.items() if path not in given}
    return traverse_util.unflatten_dict(kept)

  return {"router": {}} | missing(jax.random.key(0, impl="rbg"))


def _model(config: ModelConfig) -> interaction.InteractionModel:
  return interaction.InteractionModel(config, execution.PLAIN)


def whole_segments(tokens: np.ndarray) -> Packed:
  """One whole segment per row [B, T] of token ids, without a payload."""
  inputs = batch_lib.empty_inputs(tokens.shape, audio=0, patches=0, pad=0)
  positions = np.broadcast_to(
    np.arange(tokens.shape[1], dtype=np.int32), tokens.shape
  )
  return Packed(
    inputs=inputs._replace(tokens=tokens.astype(np.int32)),
    segment_ids=np.ones(tokens.shape, np.int32),
    positions=positions,
  )


def text_logits(
  model_config: ModelConfig, params: Variables, tokens: Any
) -> jax.Array:
  """float32 logits [B, T, V] of token ids [B, T]."""
  return _logits(model_config, params, whole_segments(np.asarray(tokens)))


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
  dmel, audio_positions = _spread(
    np.asarray(dmel), tokens == audio_token_id, what="dmel"
  )
  patches, patch_positions = _spread(
    np.asarray(pixel_patches, np.float32),
    tokens == image_token_id,
    what="pixel_patches",
  )
  packed = whole_segments(tokens)
  inputs = packed.inputs._replace(
    audio_dmel=dmel,
    audio_positions=audio_positions,
    audio_streams=np.zeros_like(audio_positions),
    patches=patches,
    patch_positions=patch_positions,
  )
  return _logits(model_config, params, packed._replace(inputs=inputs))


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


def _logits(config, variables, packed: Packed):
  model = _model(config)

  @jax.jit
  def run(variables, packed):
    h_BTD, _ = model.apply(variables, packed, method="hidden")
    return model.apply(variables, h_BTD, method="logits")

  with jax.default_matmul_precision("float32"):
    return run(variables, packed)
