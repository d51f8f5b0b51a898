"""Names, shapes and layouts of Inkling's tensors: a table, no arithmetic.

For: `interop/inkling.py`. Not for: settings or running anything. Start at
`rules`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from tml_jax.config import ModelConfig
from tml_jax.models import embed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
  """One tensor: our path, the foreign name, its shape there, the change."""

  path: tuple[str, ...]
  name: str
  shape: tuple[int, ...]
  convert: Callable[[np.ndarray], np.ndarray]


def _same(x: np.ndarray) -> np.ndarray:
  return x


def _transpose(x: np.ndarray) -> np.ndarray:
  return x.T


def _taps(*channels: int) -> Callable[[np.ndarray], np.ndarray]:
  """[C, 1, K], last tap newest, to [K, channels], first tap newest."""
  return lambda x: x[:, 0, ::-1].T.reshape(-1, *channels)


def _attention_rules(
  config: ModelConfig, *, layer: int, ours: tuple[str, ...], theirs: str
) -> list[Rule]:
  if config.is_global(layer):
    heads, kv_heads = config.num_heads, config.num_kv_heads
    head_dim, extent = config.head_dim, config.rel_extent
  else:
    heads, kv_heads = config.swa_num_heads, config.swa_num_kv_heads
    head_dim, extent = config.swa_head_dim, config.sliding_window
  d_model, taps = config.d_model, config.conv_kernel
  rules = []

  def add(name, foreign, shape, convert=_same):
    path = (*ours, "attention", name)
    foreign = f"{theirs}.self_attn.{foreign}"
    rules.append(Rule(path=path, name=foreign, shape=shape, convert=convert))

  for name, foreign, count, width in (
    ("query", "q_proj", heads, head_dim),
    ("key", "k_proj", kv_heads, head_dim),
    ("value", "v_proj", kv_heads, head_dim),
    ("relative", "r_proj", heads, config.d_rel),
  ):
    add(
      name,
      f"{foreign}.weight",
      (count * width, d_model),
      lambda x, count=count, width=width: x.T.reshape(-1, count, width),
    )
  add(
    "output",
    "o_proj.weight",
    (d_model, heads * head_dim),
    lambda x: x.T.reshape(heads, head_dim, -1),
  )
  for name, foreign in (("key_conv", "k_sconv"), ("value_conv", "v_sconv")):
    shape = (kv_heads * head_dim, 1, taps)
    add(name, f"{foreign}.conv1d.weight", shape, _taps(kv_heads, head_dim))
  add("query_norm", "q_norm.weight", (head_dim,))
  add("key_norm", "k_norm.weight", (head_dim,))
  add("profiles", "rel_logits_proj.proj", (config.d_rel, extent))
  return rules


def _mlp_rules(
  config: ModelConfig, *, layer: int, ours: tuple[str, ...], theirs: str
) -> list[Rule]:
  d_model = config.d_model
  rules = []

  def add(name, foreign, shape, convert=_same, collection="params"):
    path = (collection, *ours[1:], "mlp", name)
    foreign = f"{theirs}.mlp.{foreign}"
    rules.append(Rule(path=path, name=foreign, shape=shape, convert=convert))

  if config.is_dense(layer):
    d_ff = config.d_ff
    add("gate", "gate_proj.weight", (d_ff, d_model), _transpose)
    add("up", "up_proj.weight", (d_ff, d_model), _transpose)
    add("down", "down_proj.weight", (d_model, d_ff), _transpose)
    add("scale", "global_scale", (1,))
    return rules
  count, d_ff = config.num_experts, config.expert_d_ff
  shared = config.num_shared_experts
  add("router", "gate.weight", (count + shared, d_model), _transpose)
  add("scale", "gate.global_scale", (1,))
  add("bias", "gate.e_score_correction_bias", (count,), collection="router")
  both = ("experts.gate_up_proj", (count, 2 * d_ff, d_model))
  add("gate", *both, lambda x: x[:, :d_ff].transpose(0, 2, 1))
  add("up", *both, lambda x: x[:, d_ff:].transpose(0, 2, 1))
  shape = (count, d_model, d_ff)
  add("down", "experts.down_proj", shape, lambda x: x.transpose(0, 2, 1))
  for name in ("gate", "up"):
    add(
      f"shared_{name}",
      f"shared_experts.{name}_proj",
      (shared, d_ff, d_model),
      lambda x: x.transpose(2, 0, 1),
    )
  add(
    "shared_down",
    "shared_experts.down_proj",
    (shared, d_model, d_ff),
    lambda x: x.transpose(0, 2, 1),
  )
  return rules


def _trunk_rules(config: ModelConfig, *, prefix: str) -> list[Rule]:
  d_model, vocab = config.d_model, config.vocab_size
  rules = []

  def add(path, foreign, shape, convert=_same):
    path = ("params", *path.split("/"))
    rules.append(Rule(path=path, name=foreign, shape=shape, convert=convert))

  embedding = f"{prefix}.embed_tokens"
  add("embed/table", f"{embedding}.weight", (vocab, d_model))
  add("embed/norm/scale", f"{embedding}.embed_norm.weight", (d_model,))
  add("trunk/final_norm/scale", f"{prefix}.norm.weight", (d_model,))
  add("unembedding", "lm_head.weight", (vocab, d_model), _transpose)
  conv = (d_model, 1, config.conv_kernel)
  for layer in range(config.num_layers):
    ours, theirs = f"trunk/layer_{layer:02d}", f"{prefix}.layers.{layer}"
    for name, foreign in (
      ("attention_norm", "input_layernorm"),
      ("mlp_norm", "post_attention_layernorm"),
    ):
      add(f"{ours}/{name}/scale", f"{theirs}.{foreign}.weight", (d_model,))
    for name, foreign in (
      ("attention_conv", "attn_sconv"),
      ("mlp_conv", "mlp_sconv"),
    ):
      foreign = f"{theirs}.{foreign}.conv1d.weight"
      add(f"{ours}/{name}", foreign, conv, _taps(d_model))
    path = ("params", *ours.split("/"))
    rules += _attention_rules(config, layer=layer, ours=path, theirs=theirs)
    rules += _mlp_rules(config, layer=layer, ours=path, theirs=theirs)
  return rules


def _tower_rules(config: ModelConfig) -> list[Rule]:
  """Audio and vision towers of a multimodal checkpoint."""
  d_model = config.d_model
  rules = []

  def add(path, foreign, shape, convert=_same):
    path = ("params", "embed", *path.split("/"))
    foreign = f"model.{foreign}"
    rules.append(Rule(path=path, name=foreign, shape=shape, convert=convert))

  levels = config.dmel_channels * config.dmel_levels
  table = "audio_tower.embed_audio_tokens.embed_audio_tokens.weight"
  add("dmel/table", table, (levels, d_model))
  add("dmel/norm/scale", "audio_tower.norm.weight", (d_model,))
  widths = (3, *config.hmlp_widths, d_model)
  last = len(embed.HMLP_FOLDS) - 1
  for i, (frames, side) in enumerate(embed.HMLP_FOLDS):
    tower = f"vision_tower.encoder_layers.{i}"
    shape = (widths[i + 1], widths[i] * frames * side * side)
    add(f"hmlp/kernel_{i}", f"{tower}.projection.weight", shape, _transpose)
    scale = "vision_tower.final_norm" if i == last else f"{tower}.layer_norm"
    add(f"hmlp/norm_{i}/scale", f"{scale}.weight", (widths[i + 1],))
  return rules


def rules(config: ModelConfig, *, multimodal: bool) -> list[Rule]:
  """Every tensor of a text or of a multimodal checkpoint."""
  if multimodal:
    prefix = "model.language_model"
    return _trunk_rules(config, prefix=prefix) + _tower_rules(config)
  return _trunk_rules(config, prefix="model")
