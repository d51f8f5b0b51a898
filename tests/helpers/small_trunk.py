"""A model small enough for a test, with every parameter drawn at random."""

import dataclasses

import flax
import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers import small
from tml_jax.config import ModelConfig
from tml_jax.models import execution, interaction
from tml_jax.streams import batch as batch_lib
from tml_jax.streams.batch import Packed

TURN = 3
# Three layers of which the first is dense, two shared experts, and everything
# that is one, off or far away in `small` at a value that shows.
_FIELDS = {
  "model.num_layers": 3,
  "model.attention_pattern": "LLG",
  "model.sliding_window": 8,
  "model.d_rel": 4,
  "model.rel_extent": 12,
  "model.log_scaling_floor": 5,
  "model.log_scaling_alpha": 0.3,
  "model.num_dense_layers": 1,
  "model.d_ff": 48,
  "model.num_shared_experts": 2,
  "model.expert_d_ff": 16,
  "model.route_scale": 4.0,
  "model.logits_divisor": 2.0,
  "model.hmlp_widths": (4, 8, 16),
  "model.clock_features": 8,
  "model.init_std": 0.02,
  "model.query_norm_init": 1.0,
  "model.flow.width": 16,
  "model.flow.depth": 2,
  "model.flow.time_features": 8,
  "model.flow.steps": 4,
  "model.flow.mel_mean": -2.0,
  "model.flow.mel_std": 1.5,
}
# Too few rows for control tokens: a trunk knows none but the turn's.
CONFIG = dataclasses.replace(small.config(_FIELDS).model, vocab_size=40)
EXECUTION = dataclasses.replace(execution.PLAIN, turn_token=TURN)


def config(**changes) -> ModelConfig:
  return dataclasses.replace(CONFIG, **changes)


def model(config, **changes) -> interaction.InteractionModel:
  """With `changes` of `EXECUTION`."""
  return interaction.InteractionModel(
    config, dataclasses.replace(EXECUTION, **changes)
  )


def batch(segments: list[list[int]], *, seed: int = 0, length: int) -> Packed:
  """Rows of segments of the given lengths, padded; random content.

  A quarter of the valid positions is audio, one position of a segment of
  more than four is a patch.
  """
  rng = np.random.default_rng(seed)
  rows = len(segments)
  inputs = batch_lib.empty_inputs(
    (rows, length), audio=length, patches=4, pad=0
  )
  inputs.tokens[:] = rng.integers(0, CONFIG.vocab_size, (rows, length))
  inputs.windows[:] = rng.integers(0, 9000, (rows, length))
  inputs.audio_streams[:] = rng.integers(0, 2, (rows, length))
  segment_ids, positions = np.zeros((2, rows, length), np.int32)
  for row, lengths in enumerate(segments):
    start, audio, patches = 0, [], []
    for index, count in enumerate(lengths):
      span = slice(start, start + count)
      segment_ids[row, span] = index + 1
      positions[row, span] = np.arange(count)
      chosen = start + rng.permutation(count)
      audio += list(chosen[: count // 4])
      patches += list(chosen[-1:]) if count > 4 else []
      start += count
    inputs.audio_positions[row, : len(audio)] = audio
    inputs.patch_positions[row, : len(patches[:4])] = patches[:4]
  inputs.audio_dmel[:] = rng.integers(0, 16, (rows, length, 80), np.uint8)
  inputs.patches[:] = rng.integers(0, 256, inputs.patches.shape, np.uint8)
  return Packed(inputs, segment_ids, positions)


def changed(packed: Packed, **arrays) -> Packed:
  """With other arrays of its inputs."""
  return packed._replace(inputs=packed.inputs._replace(**arrays))


def variables(model, *, seed: int = 0):
  """Variables with the zeros and ones of initialisation drawn anew."""
  shapes = flax.linen.unbox(
    jax.eval_shape(model.init, jax.random.key(0), batch([[3]], length=4))
  )
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = jax.tree_util.keystr(path)
    noise = rng.standard_normal(leaf.shape).astype(np.float32)
    if "norm" in name or "scale" in name:
      return 1 + 0.2 * noise
    if "conv" in name or "bias" in name or "profiles" in name:
      return 0.4 * noise
    fan_in = leaf.shape[-2] if leaf.ndim > 1 else 1
    return noise / np.sqrt(fan_in).astype(np.float32)

  drawn = jax.tree_util.tree_map_with_path(draw, shapes)
  return jax.tree.map(jnp.asarray, drawn)
