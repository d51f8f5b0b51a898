"""A model small enough for a test, with every parameter drawn at random."""

import dataclasses

import flax
import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import FlowConfig, ModelConfig
from tml_jax.models import execution, interaction
from tml_jax.streams import batch as batch_lib
from tml_jax.streams.batch import Packed

TURN = 3
CONFIG = ModelConfig(
  vocab_size=40,
  d_model=32,
  num_layers=3,
  attention_pattern="LLG",
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  swa_num_heads=4,
  swa_num_kv_heads=2,
  swa_head_dim=8,
  sliding_window=8,
  d_rel=4,
  rel_extent=12,
  log_scaling_floor=5,
  log_scaling_alpha=0.3,
  num_dense_layers=1,
  d_ff=48,
  num_experts=4,
  experts_per_token=2,
  num_shared_experts=2,
  expert_d_ff=16,
  route_scale=4.0,
  conv_kernel=4,
  rms_norm_eps=1e-6,
  logits_divisor=2.0,
  num_mtp_layers=0,
  dmel_channels=80,
  dmel_levels=16,
  hmlp_widths=(4, 8, 16),
  clock_features=8,
  init_std=0.02,
  query_norm_init=1.0,
  moe_tile=8,
  flow=FlowConfig(
    width=16,
    depth=2,
    time_features=8,
    draws=2,
    steps=4,
    condition_drop=0.1,
    guidance=1.0,
    mel_mean=-2.0,
    mel_std=1.5,
  ),
)
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
