"""The vocoder at every size: `--config=experiments/vocoder.py:SIZE`.

For: the sizes in `SIZES`. Not for: the interaction model. `--data_dir` is that
of `python -m tml_jax.prepare --config=experiments/interaction.py:tiny`.
"""

import dataclasses

from experiments import data, interaction
from tml_jax import errors
from tml_jax.config import MeshConfig, Optimizer
from tml_jax.vocoder.config import (
  VocoderConfig,
  VocoderDataConfig,
  VocoderModelConfig,
  VocoderTrainConfig,
)


def small() -> VocoderConfig:
  """Minutes on two cores. Russian stays unheard, to test on."""
  tiny = interaction.tiny()
  return VocoderConfig(
    name="small",
    model=VocoderModelConfig(
      width=192,
      depth=5,
      hidden=576,  # Vocos: three times the width
      kernel=7,  # Vocos; 37 frames with the input's, 460 ms
      mel_mean=tiny.model.flow.mel_mean,
      mel_std=tiny.model.flow.mel_std,
    ),
    data=VocoderDataConfig(
      voices=tuple(v for v in data.REAL_VOICES if v[-3:] != ":ru"),
      heldout_share=tiny.data.heldout_share,
      windows=6,
      gain_db=6.0,
      seed=0,
      dev_share=data.DEV_SHARE,
    ),
    train=VocoderTrainConfig(
      steps=1000,
      global_batch_size=16,
      accumulation_steps=1,
      seed=0,
      magnitude_weight=1.0,
      stft_weight=0.5,
      mel_weight=1.0,
      log_every=10,
      checkpoint_every=100,
      keep_checkpoints=2,
      optim=dataclasses.replace(
        tiny.train.optim,
        name=Optimizer.ADAMW,
        learning_rate=2e-3,
        warmup_steps=50,
        final_learning_rate_ratio=0.02,
        weight_decay=0.01,
        ema_decay=0.99,
      ),
    ),
    mesh=MeshConfig(
      data=1, fsdp=1, expert=1, tensor=1, seq=1, rules=("batch:data",)
    ),
  )


def small_procedural() -> VocoderConfig:
  """`small` where no speech package can be had."""
  config = small()
  return dataclasses.replace(
    config,
    name="small_procedural",
    data=dataclasses.replace(config.data, voices=data.PROCEDURAL_VOICES),
  )


SIZES = {"small": small, "small_procedural": small_procedural}


def get_config(name: str = "") -> VocoderConfig:
  """The config called SIZE, what follows --config's colon."""
  if name not in SIZES:
    raise errors.UserError(
      f"experiments/vocoder.py has no size {name!r}; write"
      f" experiments/vocoder.py:SIZE with one of {', '.join(SIZES)}"
    )
  return SIZES[name]()
