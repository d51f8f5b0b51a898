"""Names and shapes of all tensors of Inkling-Small, without its data."""

import dataclasses
import json
import math

import flax
import jax
import pytest

from experiments import interaction
from tml_jax import errors
from tml_jax.interop.inkling import config as config_lib
from tml_jax.interop.inkling import importing, names
from tml_jax.training import state as state_lib

pytest.importorskip("transformers")
from tests.helpers import hf  # noqa: E402

# Of the published bfloat16 files, router biases and scales in float32.
PUBLISHED_BYTES = 531_912_898_740
# The published config.json, as far as it is about the model.
PUBLISHED = {
  "model_type": "inkling_mm_model",
  "text_config": {
    "model_max_length": 1048576,
    "hidden_size": 4096,
    "num_hidden_layers": 42,
    "vocab_size": 201024,
    "unpadded_vocab_size": 200058,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "swa_num_attention_heads": 32,
    "swa_num_key_value_heads": 8,
    "swa_head_dim": 128,
    "sliding_window_size": 512,
    "local_layer_ids": [i for i in range(42) if i % 6 != 5],
    "d_rel": 16,
    "rel_extent": 1024,
    "q_bias": False,
    "o_bias": False,
    "log_scaling_n_floor": 128000,
    "log_scaling_alpha": 0.1,
    "rms_norm_eps": 1e-06,
    "use_embed_norm": True,
    "logits_mup_width_multiplier": 16.0,
    "final_logit_softcapping": None,
    "use_sconv": True,
    "sconv_kernel_size": 4,
    "dense_mlp_idx": 2,
    "dense_intermediate_size": 16384,
    "intermediate_size": 2048,
    "n_routed_experts": 256,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "shared_expert_sink": True,
    "route_scale": 8.0,
    "use_gate_bias": True,
    "gate_activation": "sigmoid",
    "norm_after_topk": True,
    "use_global_scale": True,
  },
  "audio_config": {
    "decoder_dmodel": 4096,
    "n_mel_bins": 80,
    "mel_vocab_size": 16,
  },
  "vision_config": {
    "decoder_dmodel": 4096,
    "patch_size": 40,
    "temporal_patch_size": 2,
    "n_channels": 3,
    "n_layers": 4,
  },
  "mtp_config": {
    "num_nextn_predict_layers": 8,
    "chain_hidden_post_norm": False,
    "local_layer_ids": [0, 2, 4, 5, 6, 7],
  },
}


@pytest.fixture(scope="module")
def config():
  return interaction.get_config("inkling_small_as_shipped")


@pytest.fixture(scope="module")
def rules(config):
  return names.rules(
    config.model,
    layout=names.Layout.RELEASED,
    towers=True,
    scan_layers=config.train.execution.scan_layers,
  )


def test_published_settings_are_the_named_config(config):
  settings = config_lib.Settings.read(PUBLISHED)
  fields = config_lib.architecture(settings, widths=config.model.hmlp_widths)
  fields |= config_lib.vocabulary(settings)
  assert dataclasses.replace(config.model, **fields) == config.model
  assert settings.text_vocab_size == config.streams.text_vocab_size


def test_settings_survive_a_round_trip(config):
  values = config_lib.to_json(config, dtype="bfloat16")
  settings = config_lib.Settings.read(json.loads(json.dumps(values)))
  fields = config_lib.architecture(settings, widths=config.model.hmlp_widths)
  fields |= config_lib.vocabulary(settings)
  assert dataclasses.replace(config.model, **fields) == config.model


def test_bytes_are_those_of_the_published_files(rules):
  shapes = {rule.name: rule.shape for rule in rules}
  size = sum(
    math.prod(shape) * (4 if name.endswith(names.FLOAT32) else 2)
    for name, shape in shapes.items()
  )
  assert size == PUBLISHED_BYTES


def test_every_parameter_has_its_place(config, rules):
  model = state_lib.create_model(config)
  batch = jax.eval_shape(lambda: state_lib.example_batch(config, batch_size=1))
  shapes = jax.eval_shape(
    lambda key, packed: flax.linen.meta.unbox(model.init(key, packed)),
    jax.random.key(0),
    batch.packed,
  )
  ours = flax.traverse_util.flatten_dict(shapes)
  stacks = {}
  for rule in rules:
    assert rule.path in ours, rule.path
    stacks.setdefault(rule.path, set()).add(rule.index)
    depth = len(rule.index)
    assert ours[rule.path].shape[depth:] == rule.dims.shape, rule.path
  for path, indices in stacks.items():
    depth = len(next(iter(indices)))
    assert len(indices) == math.prod(ours[path].shape[:depth]), path
  left = {"/".join(path[1:3]) for path in ours if path not in stacks}
  assert {name for name in left if not name.startswith("flow_head")} == {
    "embed/clock",
    "embed/dmel",  # its streams
  }
  assert not any(path in stacks for path in ours if path[1] == "flow_head")


def test_full_size_files_without_data_pass_and_mistakes_are_listed(
  config, tmp_path
):
  shapes = hf.save_fake(tmp_path, config=config)
  assert len(shapes) > 800
  for model_from_src in (True, False):
    planned = importing.plan(
      config, src=str(tmp_path), model_from_src=model_from_src
    )
    assert planned.config.model == config.model
    assert planned.text_rows == 200058
    read = {rule.name for rules in planned.rules.values() for rule in rules}
    assert read == set(shapes)

  path = tmp_path / "config.json"
  values = json.loads(path.read_text())
  values["text_config"]["num_hidden_layers"] = 41
  for name in ("layer_types", "mlp_layer_types"):
    values["text_config"][name].pop()
  values["text_config"]["num_mtp_layers"] = 9
  values["text_config"]["n_routed_experts"] = 128
  path.write_text(json.dumps(values))
  with pytest.raises(errors.UserError) as error:
    importing.plan(config, src=str(tmp_path), model_from_src=True)
  message = str(error.value)
  assert "missing tensors: model.mtp.layers.8." in message
  assert "unexpected tensors: model.llm.layers.41.attn.k_norm" in message
  shape = "w13_weight is (256, 4096, 4096), config.json gives (128, 4096, 4096)"
  assert shape in message
  assert message.count("(128, 4096, 4096)") == 39  # every MoE layer left

  with pytest.raises(errors.UserError) as error:
    importing.plan(config, src=str(tmp_path), model_from_src=False)
  message = str(error.value)
  for shown in ("num_layers is 42", "num_experts is 256", "num_mtp_layers"):
    assert shown in message
