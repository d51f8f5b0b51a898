"""A run small enough to start several times in one test."""

import numpy as np

from tests.helpers import small
from tml_jax.config import Config
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import packing
from tml_jax.streams.batch import Batch
from tml_jax.streams.frame import Burst, Control, Frame

# As flags, for runs in a process of their own.
FLAGS = small.flags()
# Short sequences with little in each, and a step that shows mistakes.
_FIELDS = {
  "streams.seq_len": 128,
  "streams.max_audio": 96,
  "streams.max_patches": 4,
  "streams.max_speak": 8,
  "streams.max_targets": 64,
  "model.init_std": 0.1,
  "data.mixture": ("reply:1.0", "draw:1.0"),
  "train.global_batch_size": 8,
  "train.optim.warmup_steps": 0,
  "train.optim.router_bias_rate": 0.01,
}


def config(**mesh: int) -> Config:
  """Two layers, MoE, both kinds of attention; `mesh` sets axis sizes."""
  axes = {f"mesh.{axis}": size for axis, size in mesh.items()}
  return small.config(_FIELDS | axes)


def batch(cfg: Config, *, seed: int) -> Batch:
  """A global batch of random frames with text, sound and pictures.

  Each sequence has a document, which is of the mixture's second entry.
  The sequences hold different numbers of targets, so that an average taken
  per microbatch or per device would show.
  """
  random = np.random.default_rng(seed)
  letters = np.random.default_rng([seed, 1])
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
    text = packing.Text.of(
      letters.integers(64, size=3 + row % 3).tolist(), config=cfg.streams
    )
    sequences += packing.pack(
      [frames[:1], frames[1:], text], config=cfg.streams, sources=[0, 0, 1]
    )
  stacked = batch_lib.stack(sequences, like=sequences[0])
  assert len(sequences) == cfg.train.global_batch_size
  assert (
    frame_lib.token_id(Control.QUIET, config=cfg.streams)
    in stacked.targets.tokens
  )
  return stacked
