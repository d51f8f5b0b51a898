"""Inkling checkpoints written by transformers, random and small or fake."""

import json
import math
import pathlib

import numpy as np
import torch
import transformers

from tests.helpers import inkling as oracle
from tml_jax.config import Config
from tml_jax.interop.inkling import config as config_lib
from tml_jax.interop.inkling import names as names_lib
from tml_jax.interop.inkling import safetensors_files

# 96 text tokens, then room for 64 control tokens.
VOCAB = dict(vocab_size=160, unpadded_vocab_size=96)
MTP = dict(num_mtp_layers=2, mtp_local_layer_ids=[0], log_scaling_n_floor=None)


def save_text(path: pathlib.Path, **changes) -> torch.nn.Module:
  """`InklingForCausalLM` in several files."""
  model = oracle.text_model(seed=3, **(VOCAB | changes))
  model.save_pretrained(path, max_shard_size="60KB")
  return model


def save_multimodal(path: pathlib.Path, **changes) -> torch.nn.Module:
  """`InklingForConditionalGeneration` with MTP layers, in several files.

  transformers has the MTP layers in a model of their own, which it reads and
  does not write: they are added here, named by our table.
  """
  base = oracle.BASE | VOCAB | MTP | changes
  config = transformers.InklingConfig(
    text_config=base,
    audio_config=dict(n_mel_bins=80, mel_vocab_size=16),
    vision_config=dict(n_layers=4),
    audio_token_id=oracle.AUDIO,
    image_token_id=oracle.IMAGE,
    attn_implementation="eager",
  )
  model = transformers.InklingForConditionalGeneration(config)
  oracle.randomise(model, 4).save_pretrained(path, max_shard_size="10MB")
  rules = names_lib.rules(
    our_model(path),
    layout=names_lib.Layout.RELEASED,
    towers=True,
    scan_layers=False,
  )
  generator = torch.Generator().manual_seed(5)
  tensors = {}
  for name, shape in {
    r.name: r.shape for r in rules if "mtp" in r.name
  }.items():
    noise = torch.randn(shape, generator=generator)
    wide = len(shape) == 2
    tensors[name] = noise / shape[-1] ** 0.5 if wide else 1 + 0.3 * noise
  from safetensors.torch import save_file

  save_file(tensors, path / "mtp.safetensors")
  index = path / safetensors_files.INDEX
  values = json.loads(index.read_text())
  values["weight_map"] |= dict.fromkeys(tensors, "mtp.safetensors")
  index.write_text(json.dumps(values))
  return load_multimodal(path)


def load_multimodal(path: pathlib.Path) -> torch.nn.Module:
  """Strict: no key is missing, unexpected or of another shape."""
  model, info = transformers.InklingForConditionalGeneration.from_pretrained(
    path, output_loading_info=True, attn_implementation="eager"
  )
  assert not any(info.values()), info
  return model.eval()


def our_model(path: pathlib.Path):
  """ModelConfig of a checkpoint's config.json."""
  from experiments import interaction

  values = json.loads((path / "config.json").read_text())
  settings = config_lib.Settings.read(values)
  fields = config_lib.architecture(settings, widths=(128, 320, 4800))
  fields |= config_lib.vocabulary(settings)
  import dataclasses

  return dataclasses.replace(interaction.get_config("tiny").model, **fields)


def save_fake(path: pathlib.Path, *, config: Config) -> dict[str, tuple]:
  """All files of a full-size checkpoint with headers and no data.

  Names and shapes of the model are those that transformers would save; those
  of the MTP layers come from our table.

  Returns:
    shapes by name.
  """
  values = config_lib.to_json(config, dtype="bfloat16")
  hf_config = transformers.InklingConfig(
    **{k: v for k, v in values.items() if k.endswith("_config")}
  )
  with torch.device("meta"):
    model = transformers.InklingForConditionalGeneration(hf_config)
  from transformers import core_model_loading

  saved = core_model_loading.revert_weight_conversion(model, model.state_dict())
  shapes = {name: tuple(tensor.shape) for name, tensor in saved.items()}
  rules = names_lib.rules(
    config.model,
    layout=names_lib.Layout.RELEASED,
    towers=True,
    scan_layers=False,
  )
  shapes |= {rule.name: rule.shape for rule in rules if ".mtp." in rule.name}
  dtypes = {
    name: np.dtype(np.float32)
    if name.endswith(names_lib.FLOAT32)
    else safetensors_files.DTYPES["BF16"]
    for name in shapes
  }
  sizes = {n: math.prod(s) * dtypes[n].itemsize for n, s in shapes.items()}
  files = safetensors_files.shards(sizes, limit=5 * 10**9)
  weight_map = {}
  for number, names in enumerate(files, start=1):
    file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
    weight_map |= dict.fromkeys(names, file)
    tensors = {name: (shapes[name], dtypes[name]) for name in names}
    header = safetensors_files._header_bytes(
      names, tensors=tensors, sizes=sizes
    )
    with open(path / file, "wb") as out:
      out.write(header)
      out.truncate(len(header) + sum(sizes[name] for name in names))
  text = json.dumps({"metadata": {}, "weight_map": weight_map})
  (path / safetensors_files.INDEX).write_text(text)
  del values[config_lib.OURS]  # a checkpoint of others has no such block
  values["text_config"]["unpadded_vocab_size"] = config.streams.text_vocab_size
  (path / "config.json").write_text(json.dumps(values))
  return shapes
