"""Runs of the Inkling commands on small random models."""

import dataclasses
import re

import pytest

from experiments import interaction
from tests.helpers import commands
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
  """The config of `small.FLAGS`, and further changes of the model."""
  config = interaction.get_config("tiny_procedural")
  fields = dict(num_layers=1, d_model=32, expert_d_ff=32) | changes
  model = dataclasses.replace(config.model, **fields)
  streams = dataclasses.replace(
    config.streams, text_vocab_size=model.vocab_size - 64
  )
  return dataclasses.replace(config, model=model, streams=streams)


def run(*args):
  result = commands.run(*args, timeout=400)
  assert result.returncode == 0, result.stderr[-3000:]
  return result


def losses(result):
  return re.findall(r"step (\d)/\d  loss ([\d.]+)", result.stderr)
