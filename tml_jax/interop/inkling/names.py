"""Names, shapes and layouts of Inkling's tensors: a table, no arithmetic.

For: reading and writing Inkling checkpoints. Not for: settings or running
anything. Start at `rules`; the tables above it are the whole mapping, and
`place` is the only function that knows where a layer's parameters lie in our
tree.
"""

import dataclasses
import enum
from collections.abc import Mapping

from tml_jax.config import ModelConfig
from tml_jax.interop.inkling import dims
from tml_jax.models import embed, stacking


class Layout(enum.Enum):
  """Whose names and layouts: both are read, the released one is written."""

  RELEASED = "released"  # the published files, and `save_pretrained`
  MODULES = "modules"  # `state_dict()` of transformers, and text-only models


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
  """One of our parameters and the foreign tensor that holds it.

  Attributes:
    path: in our variables, from "params" or "router" on.
    index: of this layer in a parameter that stacks several; () for one that
      does not.
    name: of the foreign tensor. Two rules may share one (gate and up).
    dims: its layout and ours.
    vocabulary: our dim that counts rows of the vocabulary, None elsewhere.
      The foreign tensor may have fewer.
  """

  path: tuple[str, ...]
  index: tuple[int, ...]
  name: str
  dims: dims.Dims
  vocabulary: int | None = None

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the foreign tensor."""
    return self.dims.foreign_shape


# Ours, released name, name in transformers' modules, dims of the released
# tensor -> ours; a fifth column where the modules lay it out otherwise.
# d model, n query heads, m key-value heads, h head, r relative, x extent,
# k taps (ours newest first), f feed-forward, g gate or up, e experts,
# s shared experts, c experts and shared experts, v vocabulary.
_ONCE = (
  ("embed/table", "embed.weight", "embed_tokens.weight", "v d -> v d"),
  ("embed/norm/scale", "embed_norm.weight", "embed_tokens.embed_norm.weight",
   "d -> d"),
  ("trunk/final_norm/scale", "norm.weight", "norm.weight", "d -> d"),
)  # fmt: skip
_UNEMBEDDING = (
  ("unembedding", "unembed.weight", "lm_head.weight", "v d -> d v"),
)
_LAYER = (
  ("attention_norm/scale", "attn_norm.weight", "input_layernorm.weight",
   "d -> d"),
  ("mlp_norm/scale", "mlp_norm.weight", "post_attention_layernorm.weight",
   "d -> d"),
  ("attention_conv", "attn_sconv.weight", "attn_sconv.conv1d.weight",
   "d i=0 ~k -> k d"),
  ("mlp_conv", "mlp_sconv.weight", "mlp_sconv.conv1d.weight",
   "d i=0 ~k -> k d"),
  ("attention/query", "attn.wq_du.weight", "self_attn.q_proj.weight",
   "(n h) d -> d n h"),
  ("attention/key", "attn.wk_dv.weight", "self_attn.k_proj.weight",
   "(m h) d -> d m h"),
  ("attention/value", "attn.wv_dv.weight", "self_attn.v_proj.weight",
   "(m h) d -> d m h"),
  ("attention/relative", "attn.wr_du.weight", "self_attn.r_proj.weight",
   "(n r) d -> d n r"),
  ("attention/output", "attn.wo_ud.weight", "self_attn.o_proj.weight",
   "d (n h) -> n h d"),
  ("attention/key_conv", "attn.k_sconv.weight",
   "self_attn.k_sconv.conv1d.weight", "(m h) i=0 ~k -> k m h"),
  ("attention/value_conv", "attn.v_sconv.weight",
   "self_attn.v_sconv.conv1d.weight", "(m h) i=0 ~k -> k m h"),
  ("attention/query_norm", "attn.q_norm.weight", "self_attn.q_norm.weight",
   "h -> h"),
  ("attention/key_norm", "attn.k_norm.weight", "self_attn.k_norm.weight",
   "h -> h"),
  ("attention/profiles", "attn.rel_logits_proj.proj",
   "self_attn.rel_logits_proj.proj", "r x -> r x"),
)  # fmt: skip
_DENSE = (
  ("mlp/gate", "mlp.w13_dn.weight", "mlp.gate_proj.weight",
   "(f g=0) d -> d f", "f d -> d f"),
  ("mlp/up", "mlp.w13_dn.weight", "mlp.up_proj.weight",
   "(f g=1) d -> d f", "f d -> d f"),
  ("mlp/down", "mlp.w2_md.weight", "mlp.down_proj.weight", "d f -> f d"),
  ("mlp/scale", "mlp.global_scale", "mlp.global_scale", "i -> i"),
)  # fmt: skip
_SPARSE = (
  ("mlp/router", "mlp.gate.weight", "mlp.gate.weight", "c d -> d c"),
  ("mlp/scale", "mlp.gate.global_scale", "mlp.gate.global_scale", "i -> i"),
  ("mlp/bias", "mlp.gate.bias", "mlp.gate.e_score_correction_bias", "e -> e"),
  ("mlp/gate", "mlp.experts.w13_weight", "mlp.experts.gate_up_proj",
   "e (f g=0) d -> e d f", "e (g=0 f) d -> e d f"),
  ("mlp/up", "mlp.experts.w13_weight", "mlp.experts.gate_up_proj",
   "e (f g=1) d -> e d f", "e (g=1 f) d -> e d f"),
  ("mlp/down", "mlp.experts.w2_weight", "mlp.experts.down_proj",
   "e d f -> e f d"),
  ("mlp/shared_gate", "mlp.shared_experts.shared_w13_weight",
   "mlp.shared_experts.gate_proj", "s (f g=0) d -> d s f", "s f d -> d s f"),
  ("mlp/shared_up", "mlp.shared_experts.shared_w13_weight",
   "mlp.shared_experts.up_proj", "s (f g=1) d -> d s f", "s f d -> d s f"),
  ("mlp/shared_down", "mlp.shared_experts.shared_w2_weight",
   "mlp.shared_experts.down_proj", "s d f -> s f d"),
)  # fmt: skip
_MTP = (
  ("hidden_norm/scale", "hidden_norm.weight", "", "d -> d"),
  ("token_norm/scale", "embed_norm.weight", "", "d -> d"),
  ("projection", "input_proj.weight", "", "d j -> j d"),
)
_AUDIO = (
  ("embed/dmel/table", "encoder.weight",
   "embed_audio_tokens.embed_audio_tokens.weight", "l d -> l d"),
  ("embed/dmel/norm/scale", "final_norm.weight", "norm.weight", "d -> d"),
)  # fmt: skip
# `#` is the layer of the hMLP; the last norm has a name of its own.
_VISION = (
  ("embed/hmlp/kernel_#", "layers.linear_#.weight",
   "encoder_layers.#.projection.weight", "o p -> p o"),
)  # fmt: skip
_VISION_NORM = (
  ("embed/hmlp/norm_#/scale", "layers.norm_#.weight",
   "encoder_layers.#.layer_norm.weight", "o -> o"),
)  # fmt: skip
_VISION_LAST_NORM = (
  ("embed/hmlp/norm_#/scale", "final_norm.weight", "final_norm.weight",
   "o -> o"),
)  # fmt: skip
_BALANCE = "mlp/bias"  # the one that is moved by a rule and not by a gradient
# Kept in float32 in the published files; all others are bfloat16.
FLOAT32 = ("mlp.gate.bias", "mlp.gate.global_scale")


def place(
  layer: int, *, where: stacking.Layout
) -> tuple[tuple[str, ...], tuple[int, ...]]:
  """Where the trunk's layer lies: its path, and its index in a stack."""
  path, index = where.place(layer)
  return ("trunk", *path), index


def mtp_place(layer: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
  """The same for a layer of multi-token prediction."""
  return ("mtp", f"layer_{layer:02d}"), ()


def rules(
  config: ModelConfig, *, layout: Layout, towers: bool, scan_layers: bool
) -> list[Rule]:
  """Every tensor of a checkpoint.

  Args:
    config: ours.
    layout: whose names. `MODULES` has no multi-token prediction.
    towers: whether audio and vision are there; text-only models lack them.
    scan_layers: whether our layers are stacked in blocks.
  """
  where = stacking.Layout.of(config, scan_layers=scan_layers)
  released = layout is Layout.RELEASED
  inner = "model.language_model" if towers else "model"
  text, head = ("model.llm.",) * 2 if released else (f"{inner}.", "")
  base = {"d": config.d_model, "v": config.vocab_size, "i": 1, "g": 2}
  base["k"] = config.conv_kernel
  result = _rows(_ONCE, layout=layout, theirs=text, sizes=base)
  result += _rows(_UNEMBEDDING, layout=layout, theirs=head, sizes=base)
  for layer in range(config.num_layers):
    sizes = base | _layer_sizes(
      config,
      is_global=config.is_global(layer),
      is_dense=config.is_dense(layer),
    )
    path, index = place(layer, where=where)
    result += _rows(
      _LAYER + (_DENSE if config.is_dense(layer) else _SPARSE),
      layout=layout,
      theirs=f"{text}layers.{layer}.",
      sizes=sizes,
      path=path,
      index=index,
    )
  if released:
    result += _mtp_rules(config, base=base)
  if towers:
    result += _tower_rules(config, layout=layout, base=base)
  return result


def _layer_sizes(
  config: ModelConfig, *, is_global: bool, is_dense: bool
) -> dict[str, int]:
  experts, shared = config.num_experts, config.num_shared_experts
  return {
    "n": config.num_heads if is_global else config.swa_num_heads,
    "m": config.num_kv_heads if is_global else config.swa_num_kv_heads,
    "h": config.head_dim if is_global else config.swa_head_dim,
    "r": config.d_rel,
    "x": config.rel_extent if is_global else config.sliding_window,
    "f": config.d_ff if is_dense else config.expert_d_ff,
    "e": experts,
    "s": shared,
    "c": experts + shared,
  }


def _mtp_rules(config: ModelConfig, *, base: Mapping[str, int]) -> list[Rule]:
  result = []
  for layer in range(config.num_mtp_layers):
    sizes = {**base, "j": 2 * config.d_model} | _layer_sizes(
      config, is_global=config.mtp_is_global(layer), is_dense=True
    )
    path, index = mtp_place(layer)
    theirs = f"model.mtp.layers.{layer}."
    common = dict(layout=Layout.RELEASED, sizes=sizes, index=index)
    result += _rows(_MTP, theirs=theirs, path=path, **common)
    result += _rows(
      _LAYER + _DENSE,
      theirs=f"{theirs}transformer_block.",
      path=(*path, "layer"),
      **common,
    )
  return result


def _tower_rules(
  config: ModelConfig, *, layout: Layout, base: Mapping[str, int]
) -> list[Rule]:
  released = layout is Layout.RELEASED
  audio = "model.audio." if released else "model.audio_tower."
  vision = "model.visual." if released else "model.vision_tower."
  levels = config.dmel_channels * config.dmel_levels
  result = _rows(
    _AUDIO, layout=layout, theirs=audio, sizes={**base, "l": levels}
  )
  widths = (3, *config.hmlp_widths, config.d_model)
  last = len(embed.HMLP_FOLDS) - 1
  for i, (frames, side) in enumerate(embed.HMLP_FOLDS):
    norms = _VISION_LAST_NORM if i == last else _VISION_NORM
    numbered = [
      tuple(item.replace("#", str(i)) for item in row)
      for row in _VISION + norms
    ]
    sizes = {"p": widths[i] * frames * side * side, "o": widths[i + 1]}
    result += _rows(numbered, layout=layout, theirs=vision, sizes=sizes)
  return result


def _rows(
  table,
  *,
  layout: Layout,
  theirs: str,
  sizes: Mapping[str, int],
  path: tuple[str, ...] = (),
  index: tuple[int, ...] = (),
) -> list[Rule]:
  """The rules of one table, its names put behind a prefix."""
  result = []
  for ours, released, modules, *lines in table:
    foreign = released if layout is Layout.RELEASED else modules
    line = lines[0] if layout is Layout.RELEASED else lines[-1]
    collection = "router" if ours == _BALANCE else "params"
    parsed = dims.parse(line, sizes=sizes)
    result.append(
      Rule(
        path=(collection, *path, *ours.split("/")),
        index=index,
        name=theirs + foreign,
        dims=parsed,
        vocabulary=parsed.ours.index("v") if "v" in parsed.ours else None,
      )
    )
  return result
