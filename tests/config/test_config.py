"""The config tree: goldens, checks of values, text form."""

import dataclasses
import enum
import re

import pytest

from experiments import interaction
from tests import goldens
from tml_jax import config as config_lib
from tml_jax import errors
from tml_jax.config import Config
from tml_jax.config import streams as streams_config
from tml_jax.config import text as config_text


@pytest.mark.parametrize("size", interaction.SIZES)
def test_every_number_equals_the_golden(size):
  # To accept a change: python -m tests.goldens
  golden = goldens.config_path(size).read_text(encoding="utf-8")
  assert goldens.config_of(size) == golden


@pytest.mark.parametrize("size", interaction.SIZES)
def test_text_and_back_is_the_same_config(size):
  config = interaction.get_config(size)
  assert config.name == size
  text = config_text.to_text(config)
  again = config_text.from_text(text, source="test")
  assert again == config
  assert hash(again) == hash(config)
  assert config_text.to_text(again) == text


def test_frozen():
  config = interaction.tiny()
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.model.num_layers = 3


def _replace(config: Config, *, path: str, value) -> Config:
  section, _, rest = path.partition(".")
  if rest:
    value = _replace(getattr(config, section), path=rest, value=value)
  return dataclasses.replace(config, **{section: value})


@pytest.mark.parametrize(
  "path, value, fix",
  [
    ("streams.video_height", 100, "multiple of 40, for instance 120"),
    ("streams.seq_len", 100, "at most streams.seq_len = 100"),
    ("streams.max_patches", 11, "has 12 patches"),
    ("streams.silence_weight", -1.0, "at least 0"),
    ("streams.max_text_in", 2, "at least 3"),
    ("streams.max_text_out", 2, "at least 3"),
    ("streams.max_targets", 8, "one frame with sound, video and text takes 9"),
    ("streams.max_audio", 7, "takes 8"),
    ("model.num_heads", 3, "multiple of model.num_kv_heads = 2"),
    ("model.swa_num_heads", 5, "multiple of model.swa_num_kv_heads = 2"),
    ("model.attention_pattern", "LLX", "L (sliding window) and G (global)"),
    ("model.attention_pattern", "", "L (sliding window) and G (global)"),
    ("model.vocab_size", 1000, "control rows + model.vocab_padding = 1024"),
    ("model.vocab_padding", 1, "model.vocab_padding = 1025"),
    ("model.experts_per_token", 9, "from 1 to model.num_experts = 8"),
    ("model.num_dense_layers", 5, "at most model.num_layers = 4"),
    ("model.num_layers", 0, "at least 1"),
    ("model.rms_norm_eps", 0.0, "above 0"),
    ("model.clock_features", 7, "even"),
    ("model.clock_features", -2, "at least 0"),
    ("model.dmel_channels", 40, "must be 80"),
    ("model.dmel_levels", 8, "must be 16"),
    ("model.hmlp_widths", (16, 0, 64), "at least 1"),
    ("model.flow.condition_drop", 1.5, "at most 1"),
    ("model.flow.mel_std", 0.0, "above 0"),
    ("model.flow.time_features", 3, "even"),
    ("data.logical_shards", 3, "multiple of data.logical_shards = 3"),
    ("data.mixture", ("reply",), "SOURCE:WEIGHT"),
    ("data.mixture", ("reply:-1",), "SOURCE:WEIGHT"),
    ("data.mixture", ("reply:1", "reply:2"), "named twice"),
    ("data.voices", (), "at least one"),
    ("data.voices", ("a:b", "a:c", "a:b"), "named twice"),
    ("data.heldout_share", 0.0, "between 0 and 1"),
    ("train.accumulation_steps", 3, "multiple of train.accumulation_steps"),
    ("train.steps", 0, "at least 1"),
    ("streams.turn_ms", 80, "whole tokens of 50 ms"),
    ("streams.turn_ms", 1000, "one of 50, 100"),
    ("streams.turn_ms", 0, "50, 100, 200, 400, 600, 800"),
    ("train.seed", 2**32, "at most 4294967295"),
    ("train.execution.moe_buffer", 0.0, "at least 0.1"),
    ("train.execution.loss_chunk", 0, "at least 1"),
    (
      "train.execution.moe_matmul",
      config_lib.MoeMatmul.MEGABLOX,
      "set train.execution.moe_dispatch=all_gather",
    ),
    ("train.load_balance_loss_weight", -0.1, "at least 0"),
    ("train.mtp_loss_weight", -0.1, "at least 0"),
    ("train.mtp_loss_weight", 0.3, "set model.num_mtp_layers=1"),
    ("train.optim.learning_rate", 0.0, "above 0"),
    ("train.optim.b2", 1.0, "below 1"),
    ("mesh.expert", 0, "at least 1"),
    ("mesh.seq", 5, "streams.seq_len = 768: cannot be cut into 5"),
    ("sample.top_p", 0.0, "above 0"),
  ],
)
def test_a_value_that_cannot_work_is_refused(path, value, fix):
  with pytest.raises(errors.UserError) as error:
    _replace(interaction.tiny(), path=path, value=value)
  message = str(error.value)
  assert fix in message
  assert str(value) in message or isinstance(value, tuple)


def test_what_rotation_by_time_needs():
  config = interaction.tiny()
  rope = config_lib.Position.TIME_ROPE
  rotated = _replace(config, path="model.position", value=rope)
  for path, value, fix in (
    ("model.head_dim", 31, "must be even"),
    ("model.num_mtp_layers", 1, "model.position=relative_bias"),
  ):
    _replace(config, path=path, value=value)
    with pytest.raises(errors.UserError, match=fix):
      _replace(rotated, path=path, value=value)


def test_the_harness_has_windows_of_its_own():
  tiny = interaction.tiny()
  streams = dataclasses.replace(tiny.streams, turn_ms=400)
  data = dataclasses.replace(tiny.data, layout=config_lib.Layout.TURNS)
  with pytest.raises(errors.UserError, match="set streams.turn_ms=200"):
    dataclasses.replace(tiny, streams=streams, data=data)


def test_a_dense_model_has_no_load_to_balance():
  config = interaction.tiny()
  dense = _replace(config, path="model.num_dense_layers", value=4)
  with pytest.raises(errors.UserError, match="all 4 layers are dense"):
    _replace(dense, path="train.load_balance_loss_weight", value=0.01)


@pytest.mark.parametrize(
  "path, value",
  [
    ("streams.max_audio", 6657),
    ("streams.max_patches", 6142),
    ("streams.max_speak", 770),
    ("streams.max_targets", 2562),
    ("train.execution.loss_chunk", 1281),
  ],
)
def test_what_lies_along_time_must_come_out_even(path, value):
  config = interaction.tml_interaction_small()
  config = _replace(config, path="mesh.seq", value=8)
  with pytest.raises(errors.UserError) as error:
    _replace(config, path=path, value=value)
  assert f"{path} = {value}: cannot be cut into 8" in str(error.value)


def test_layer_kinds_of_the_reference():
  model = interaction.tml_interaction_small().model
  layers = [i for i in range(model.num_layers) if model.is_global(i)]
  assert layers == [5, 11, 17, 23, 29, 35, 41]
  shipped = interaction.inkling_small_as_shipped().model
  assert [i for i in range(42) if shipped.is_dense(i)] == [0, 1]


def test_names_of_enum_members_are_their_values():
  # absl matches the names of members, config.txt holds values.
  for cls in vars(config_lib).values():
    if isinstance(cls, type) and issubclass(cls, enum.StrEnum):
      for member in cls:
        assert member.name.lower() == member.value


def test_control_tokens_fit_their_rows():
  from tml_jax.streams import frame

  assert len(frame.Control) <= streams_config.CONTROL_ROWS


@pytest.mark.parametrize(
  "line, problem",
  [
    ("model.num_layers 3", "test:1: expected `a.b.c = value`"),
    ("model.num_layers = __import__('os')", "test:1: expected"),
    ("model.num_layers = 3", "lacks"),
    ("model = 3", "has unknown fields ['model']"),
    ("", "lacks"),
  ],
)
def test_a_broken_config_txt_is_refused(line, problem):
  with pytest.raises(errors.UserError, match=re.escape(problem)):
    config_text.from_text(line, source="test")


def test_config_txt_with_a_wrong_type_is_refused():
  text = config_text.to_text(interaction.tiny())
  text = text.replace("model.num_layers = 4", "model.num_layers = 4.5")
  with pytest.raises(errors.UserError, match=r"4\.5: it takes an integer"):
    config_text.from_text(text, source="test")


def test_config_txt_that_is_no_text_is_refused(tmp_path):
  (tmp_path / "config.txt").write_bytes(b"\xff\xfe")
  with pytest.raises(errors.UserError, match=r"config\.txt is no text"):
    config_text.load(str(tmp_path / "config.txt"))


def test_diff_names_the_fields():
  old = interaction.tiny()
  new = _replace(old, path="model.num_layers", value=2)
  new = _replace(new, path="train.dtype", value=config_lib.Dtype.BFLOAT16)
  assert config_text.diff(old, new=new) == {
    "model.num_layers": "4 -> 2",
    "train.dtype": "'float32' -> 'bfloat16'",
  }
