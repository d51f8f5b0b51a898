"""Inkling of Hugging Face transformers as the oracle: logits to 1e-4.

Every parameter of the small random models is drawn anew, those that start at
one or zero included (norms, scales, router bias, convolutions), so that no
term of the formula can hide.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.inkling import (
  AUDIO,
  BASE,
  IMAGE,
  logits_of,
  multimodal_model,
  text_model,
  tokens_of,
)
from tml_jax import errors
from tml_jax.interop.inkling import model as inkling
from tml_jax.models import cache as cache_lib
from tml_jax.models import execution, interaction
from tml_jax.streams.batch import Chunk

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4

VARIANTS = {
  "mixed": {},
  "dense, window of the whole sequence": dict(
    mlp_layer_types=["dense"] * 3, sliding_window_size=32
  ),
  "moe, padded vocabulary, no log scaling": dict(
    mlp_layer_types=["sparse"] * 3,
    unpadded_vocab_size=83,
    log_scaling_n_floor=None,
  ),
  "global first, other head ratios": dict(
    layer_types=["hybrid", "hybrid_sliding", "hybrid"],
    num_attention_heads=6,
    num_key_value_heads=1,
    swa_num_key_value_heads=6,
    n_shared_experts=1,
    num_experts_per_tok=1,
  ),
  "extent beyond the sequence, window that divides nothing": dict(
    rel_extent=64, sliding_window_size=7, conv_kernel_size=2
  ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_text_logits_agree(name):
  model = text_model(seed=len(name), **VARIANTS[name])
  tokens = tokens_of(model, (2, 29))
  expected = logits_of(model, tokens)
  config, variables = inkling.from_hf(model.state_dict(), model.config)
  actual = inkling.text_logits(config, variables, tokens)
  assert actual.dtype == jnp.float32
  assert actual.shape == expected.shape
  # A test of noise would pass with any tolerance: the logits have a spread.
  assert expected.std() > 0.3
  np.testing.assert_allclose(actual, expected, atol=TOLERANCE, rtol=0)


def test_image_and_audio_paths_agree():
  model = multimodal_model()
  rng = np.random.default_rng(3)
  tokens = tokens_of(model, (2, 29))
  tokens[0, 3:9] = AUDIO
  tokens[1, 20:22] = AUDIO
  tokens[0, 12:13] = IMAGE
  tokens[1, 5:8] = IMAGE
  dmel = rng.integers(0, 16, (8, 80))
  pixels = rng.normal(size=(4, 2, 40, 40, 3)).astype(np.float32)
  expected = logits_of(
    model,
    tokens,
    audio_input_ids=torch.tensor(dmel)[None],
    pixel_values=torch.tensor(pixels),
  )
  config, variables = inkling.from_hf(model.state_dict(), model.config)
  assert config.hmlp_widths == (128, 320, 4800)
  actual = inkling.multimodal_logits(
    config,
    variables,
    tokens,
    dmel=dmel,
    pixel_patches=pixels,
    audio_token_id=AUDIO,
    image_token_id=IMAGE,
  )
  np.testing.assert_allclose(actual, expected, atol=TOLERANCE, rtol=0)
  without = inkling.text_logits(config, variables, tokens)
  assert np.abs(without - expected).max() > 0.1


@pytest.mark.parametrize("chunks", [[1] * 29, [7, 1, 1, 8, 3, 9]])
def test_cached_decode_agrees(chunks):
  """Their cache token by token, ours chunk by chunk."""
  model = text_model(seed=5)
  tokens = tokens_of(model, (1, 29))
  past, expected = None, []
  with torch.no_grad():
    for token in tokens[0]:
      output = model(
        torch.tensor([[token]]), past_key_values=past, use_cache=True
      )
      past = output.past_key_values
      expected.append(output.logits[0, 0].numpy())
  config, variables = inkling.from_hf(model.state_dict(), model.config)
  ours = interaction.InteractionModel(config, execution.PLAIN)
  cache = cache_lib.init_cache(
    config, batch_size=1, horizon=40, sinks=0, chunk=9, dtype="float32"
  )

  @jax.jit
  def step(chunk, cache):
    h, cache = ours.apply(variables, chunk, cache, method="extend")
    return ours.apply(variables, h, method="logits"), cache

  actual, start, size = [], 0, max(chunks)
  for count in chunks:
    piece = np.zeros((1, size), np.int64)
    piece[:, :count] = tokens[:, start : start + count]
    chunk = Chunk(inkling.whole_segments(piece).inputs, np.array([count]))
    logits, cache = step(chunk, cache)
    actual.append(logits[0, :count])
    start += count
  np.testing.assert_allclose(
    np.concatenate(actual), np.stack(expected), atol=TOLERANCE, rtol=0
  )


def test_bad_state_dicts_and_settings_are_named():
  model = text_model()
  state, config = model.state_dict(), model.config

  def refused(state, config):
    with pytest.raises(errors.UserError) as error:
      inkling.from_hf(state, config)
    return str(error.value)

  name = "model.layers.1.self_attn.k_sconv.conv1d.weight"
  message = refused({k: v for k, v in state.items() if k != name}, config)
  assert "missing" in message and name in message
  message = refused(state | {"model.extra": torch.zeros(2)}, config)
  assert "unexpected" in message and "model.extra" in message
  message = refused(state | {name: torch.zeros(3, 1, 4)}, config)
  assert name in message and "(3, 1, 4)" in message and "(16, 1, 4)" in message
  for change, shown in (
    (dict(hidden_act="gelu"), "hidden_act"),
    (
      dict(mlp_layer_types=["sparse", "dense", "sparse"]),
      "mlp_layer_types",
    ),
    (dict(attention_dropout=0.1), "attention_dropout"),
  ):
    other = transformers.InklingTextConfig(**(BASE | change))
    assert shown in refused(state, other)


def test_arrays_serve_as_well_as_tensors():
  model = text_model()
  arrays = {k: v.numpy() for k, v in model.state_dict().items()}
  config, variables = inkling.from_hf(arrays, model.config)
  same, again = inkling.from_hf(model.state_dict(), model.config)
  assert dataclasses.asdict(config) == dataclasses.asdict(same)
  jax.tree.map(np.testing.assert_array_equal, variables, again)
