"""A run small enough to start several times in one test."""

import dataclasses

import numpy as np

from experiments import interaction as sizes
from tml_jax.config import Config
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import packing
from tml_jax.streams.batch import Batch
from tml_jax.streams.frame import Burst, Control, Frame

# As flags, for runs in a process of their own.
FLAGS = (
  "--config=experiments/interaction.py:tiny_procedural",
  "--config.data.voices=procedural:low,procedural:high",
  "--config.data.logical_shards=2",
  "--config.data.group_size=2",
  "--config.model.num_layers=1",
  "--config.model.d_model=32",
  "--config.model.expert_d_ff=32",
  "--config.model.flow.width=32",
  "--config.model.flow.depth=1",
  "--config.train.global_batch_size=2",
  "--config.train.log_every=1",
  "--config.train.optim.warmup_steps=2",
)


def config(**mesh: int) -> Config:
  """Two layers, MoE, both kinds of attention; `mesh` sets axis sizes."""
  tiny = sizes.get_config("tiny")
  return dataclasses.replace(
    tiny,
    streams=dataclasses.replace(
      tiny.streams,
      text_vocab_size=64,
      video_height=40,
      video_width=40,
      seq_len=128,
      max_audio=96,
      max_patches=4,
      max_speak=8,
      max_targets=64,
    ),
    model=dataclasses.replace(
      tiny.model,
      vocab_size=128,
      d_model=32,
      num_layers=2,
      attention_pattern="LG",
      head_dim=8,
      swa_head_dim=8,
      sliding_window=32,
      rel_extent=64,
      num_experts=4,
      expert_d_ff=32,
      hmlp_widths=(4, 8, 8),
      moe_tile=8,
      init_std=0.1,
      flow=dataclasses.replace(tiny.model.flow, width=32, depth=1),
    ),
    train=dataclasses.replace(
      tiny.train,
      global_batch_size=8,
      optim=dataclasses.replace(
        tiny.train.optim, warmup_steps=0, router_bias_rate=0.01
      ),
    ),
    mesh=dataclasses.replace(tiny.mesh, **mesh),
  )


def batch(cfg: Config, *, seed: int) -> Batch:
  """A global batch of random frames with text, sound and pictures.

  The sequences hold different numbers of targets, so that an average taken
  per microbatch or per device would show.
  """
  random = np.random.default_rng(seed)
  sequences = []
  for row in range(cfg.train.global_batch_size):
    frames, own = [], None
    for k in range(2 + row):
      speak = bool(random.random() < 0.5)
      pictures = (2 * (random.random() < 0.2), 2, 40, 40, 3)
      message = Burst(Control.SHOW, tuple(random.integers(64, size=2)), True)
      frames.append(
        Frame(
          window=k,
          own_dmel=own,
          user_dmel=random.integers(16, size=(4, 80), dtype=np.uint8),
          patches=random.integers(256, size=pictures, dtype=np.uint8),
          text_in=(),
          say=tuple(random.integers(64, size=int(speak))),
          text_out=(message,) if random.random() < 0.2 else (),
          speak=speak,
          target_mel=random.normal(-2, 1, (16, 80)).astype(np.float32)
          if speak
          else None,
        )
      )
      own = random.integers(16, size=(4, 80), dtype=np.uint8) if speak else None
    sequences += packing.pack([frames[:1], frames[1:]], config=cfg.streams)
  stacked = batch_lib.stack(sequences, like=sequences[0])
  assert len(sequences) == cfg.train.global_batch_size
  assert (
    frame_lib.token_id(Control.QUIET, config=cfg.streams)
    in stacked.targets.tokens
  )
  return stacked
