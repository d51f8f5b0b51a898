"""Model FLOPs of a step, and MFU.

For: the FLOPs that the model needs, whatever the program executes. Not for:
what XLA does (`cost_analysis` counts loop bodies once). Start at `step_flops`.

A matmul with W weights costs 2 W a position forward and 4 W backward.
Attention costs 2 * 2 * heads * head_dim * (keys in sight) forward, twice that
backward. Recomputation (remat) is not counted: MFU, not HFU
(PaLM, arXiv 2204.02311, appendix B).
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import Config, Position
from tml_jax.parallel import chips
from tml_jax.streams import clock

# Dense bfloat16 peak of one device, FLOP/s; vendors' published figures.
PEAKS = {
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  **{
    chip.device_kind: chip.peak_flops / chip.devices
    for chip in chips.CHIPS.values()
  },
  "NVIDIA H100 80GB HBM3": 989e12,
  "NVIDIA H200": 989e12,
}


def layer_flops(
  config: Config, *, is_global: bool, is_dense: bool, context: float
) -> float:
  """Forward FLOPs of one layer at one position seeing `context` keys."""
  m = config.model
  if is_global:
    heads, kv_heads, head_dim = m.num_heads, m.num_kv_heads, m.head_dim
    extent = m.rel_extent
  else:
    heads, kv_heads, head_dim = (
      m.swa_num_heads,
      m.swa_num_kv_heads,
      m.swa_head_dim,
    )
    extent = m.sliding_window
  d_rel = m.d_rel if m.position is Position.RELATIVE_BIAS else 0
  width = 2 * heads * head_dim + 2 * kv_heads * head_dim + heads * d_rel
  attention = 2 * m.d_model * width
  attention += 2 * 2 * heads * head_dim * context
  attention += 2 * heads * d_rel * extent
  if is_dense:
    feed_forward = 2 * 3 * m.d_model * m.d_ff
  else:
    active = m.experts_per_token + m.num_shared_experts
    feed_forward = 2 * 3 * m.d_model * m.expert_d_ff * active
    feed_forward += 2 * m.d_model * (m.num_experts + m.num_shared_experts)
  return attention + feed_forward


def step_flops(config: Config) -> float:
  """FLOPs of one optimizer step on full sequences, forward and backward.

  Every position is counted as filled, every slot of the payload arrays as
  used: the program computes them either way.
  """
  s, m = config.streams, config.model
  layers = [(m.is_global(i), m.is_dense(i)) for i in range(m.num_layers)]
  further = m.num_mtp_layers if config.train.mtp_loss_weight else 0
  layers += [(m.mtp_is_global(i), True) for i in range(further)]
  trunk = 0.0
  for is_global, is_dense in layers:
    context = s.seq_len / 2
    if not is_global:
      context = min(m.sliding_window, context)
    trunk += s.seq_len * layer_flops(
      config, is_global=is_global, is_dense=is_dense, context=context
    )
  trunk += further * s.seq_len * 2 * 2 * m.d_model**2  # joins the next token
  head = (1 + further) * 2 * s.max_targets * m.d_model * m.vocab_size
  per_draw = _velocity_flops(config)
  if m.flow.map_weight:  # value and tangent, and a target without gradient
    per_draw *= 1 + 2 + 1 / 3
  flow = s.max_speak * m.flow.draws * per_draw
  a, b, c = m.hmlp_widths
  per_patch = 2 * (128 * 75 * a + 32 * 4 * a * b + 2 * 16 * b * c)
  per_patch += 2 * 2 * c * m.d_model
  forward = trunk + head + flow + s.max_patches * per_patch
  return 3 * config.train.global_batch_size * forward


def tick_flops(config: Config, *, sessions: int, positions: int) -> float:
  """FLOPs of one window of live sessions that perceive and write `positions`.

  One output token is drawn, sound is made, and every session is as long as
  its layers remember.
  """
  m = config.model
  trunk = sum(
    layer_flops(
      config,
      is_global=m.is_global(layer),
      is_dense=m.is_dense(layer),
      context=config.sample.horizon if m.is_global(layer) else m.sliding_window,
    )
    for layer in range(m.num_layers)
  )
  head = 2 * m.d_model * m.vocab_size
  guided = 1 if m.flow.guidance == 1 else 2
  flow = m.flow.steps * guided * _velocity_flops(config)
  return sessions * (positions * trunk + head + flow)


def _velocity_flops(config: Config) -> float:
  m = config.model
  frames, width = clock.of(config.streams).fine_frames, m.flow.width
  mel = frames * m.dmel_channels
  return 2 * (2 * mel * width + m.flow.depth * (2 + 3) * width * width)


@functools.cache
def device_peak() -> tuple[float, str]:
  """FLOP/s of one device and where the number comes from.

  A device that is not in `PEAKS` (a CPU) is measured: the best of ten float32
  matmuls of 1024 x 1024. On CPU all devices share the cores; the number is
  divided among them.
  """
  kind = jax.devices()[0].device_kind
  if kind in PEAKS:
    return PEAKS[kind], f"published for {kind}"
  size = 1024
  x = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), "float32")
  matmul = jax.jit(lambda a: a @ a)
  matmul(x).block_until_ready()
  best = float("inf")
  for _ in range(10):
    start = time.perf_counter()
    matmul(x).block_until_ready()
    best = min(best, time.perf_counter() - start)
  return 2 * size**3 / best / jax.local_device_count(), "measured matmul"


def mfu(needed: float, *, seconds_per_step: float) -> float:
  """Model FLOPs `needed` by a step / (seconds * devices * peak of a device)."""
  peak, _ = device_peak()
  return needed / (seconds_per_step * jax.device_count() * peak)
