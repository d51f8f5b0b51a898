"""Runs of the Inkling commands on small random models."""

import re

import pytest

from tests.helpers import commands, small
from tml_jax.config import streams as streams_config
from tml_jax.config import text as config_text
from tml_jax.interop.inkling import config as config_lib

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


INKLING = ("-m", "tml_jax.interop.inkling")


def save_text_model(path, text):
  """Random `InklingForCausalLM` with the settings of our config."""
  torch.manual_seed(0)
  values = config_lib.to_json(text, dtype="float32")["text_config"]
  values |= dict(unpadded_vocab_size=text.streams.text_vocab_size)
  model = transformers.InklingForCausalLM(
    transformers.InklingTextConfig(**values)
  )
  model.save_pretrained(path, max_shard_size="30MB")
  return model


def tiny_model(**changes):
  """The config of `small.flags`, and further changes of the model."""
  config = small.run({f"model.{name}": v for name, v in changes.items()})
  rows = config.model.vocab_size - streams_config.CONTROL_ROWS
  return config_text.with_fields(config, {"streams.text_vocab_size": rows})


def run(*args):
  result = commands.run(*args, timeout=400)
  assert result.returncode == 0, result.stderr[-3000:]
  return result


def losses(result):
  return re.findall(r"step (\d)/\d  loss ([\d.]+)", result.stderr)
