"""Inkling of transformers, small, with every parameter drawn anew.

Those that start at one or zero are drawn too (norms, scales, router bias,
convolutions), so that no term of the formula can hide.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


AUDIO, IMAGE = 7, 8
# A window shorter than the sequence, other head counts in sliding layers, an
# extent shorter than the sequence, log scaling from a floor within it.
BASE = dict(
  vocab_size=96,
  hidden_size=48,
  num_hidden_layers=3,
  num_attention_heads=4,
  num_key_value_heads=2,
  head_dim=16,
  swa_num_attention_heads=6,
  swa_num_key_value_heads=2,
  swa_head_dim=8,
  sliding_window_size=8,
  d_rel=5,
  rel_extent=13,
  log_scaling_n_floor=6,
  log_scaling_alpha=0.3,
  layer_types=["hybrid_sliding", "hybrid_sliding", "hybrid"],
  mlp_layer_types=["dense", "sparse", "sparse"],
  intermediate_size=56,
  moe_intermediate_size=24,
  n_routed_experts=8,
  num_experts_per_tok=3,
  n_shared_experts=2,
  route_scale=2.5,
  logits_mup_width_multiplier=3.0,
  max_position_embeddings=64,
  pad_token_id=None,
)


def randomise(model, seed):
  """Draws every parameter and buffer of the checkpoint anew."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, tensor in model.state_dict().items():
      noise = torch.randn(tensor.shape, generator=generator)
      if "norm" in name or "scale" in name:
        tensor.copy_(1 + 0.3 * noise)
      elif "conv1d" in name:
        tensor.copy_(0.5 * noise)
      elif "correction_bias" in name:
        tensor.copy_(0.3 * noise)
      elif "rel_logits" in name:
        tensor.copy_(noise)
      else:
        tensor.copy_(noise * 1.5 / tensor.shape[-1] ** 0.5)
  return model.eval()


def text_model(seed=0, **changes):
  config = transformers.InklingTextConfig(
    **(BASE | changes), attn_implementation="eager"
  )
  return randomise(transformers.InklingForCausalLM(config), seed)


def multimodal_model(seed=0):
  config = transformers.InklingConfig(
    text_config=BASE,
    audio_config=dict(n_mel_bins=80, mel_vocab_size=16),
    vision_config=dict(n_layers=4),
    audio_token_id=AUDIO,
    image_token_id=IMAGE,
    attn_implementation="eager",
  )
  model = transformers.InklingForConditionalGeneration(config)
  return randomise(model, seed)


def tokens_of(model, shape, seed=1):
  vocab = model.config.get_text_config().vocab_size
  return np.random.default_rng(seed).integers(9, vocab, shape)


def logits_of(model, tokens, **inputs):
  with torch.no_grad():
    return model(torch.tensor(tokens), **inputs).logits.numpy()
