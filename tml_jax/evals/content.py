"""Predictions on recorded conversations: right words, decisions and sound.

For: the numbers of content and losses by kind of token, by teacher forcing.
Not for: timing (`panel`), which is measured live. Start reading at `forced`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import Config
from tml_jax.evals import sums as sums_lib
from tml_jax.evals.sums import Sums
from tml_jax.models import flow_head, interaction
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import dmel, packing
from tml_jax.streams.batch import Batch
from tml_jax.streams.frame import Frame, Kind

_BATCH = 4


def forced(
  config: Config,
  *,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  recordings: list[list[Frame]],
) -> Sums:
  """Predictions of text and mel, given all that was recorded before."""
  sequences = packing.pack(recordings, config=config.streams)
  empty = packing.empty_sequence(config.streams)
  sequences += [empty] * (-len(sequences) % _BATCH)
  result = sums_lib.nothing()
  for first in range(0, len(sequences), _BATCH):
    batch = batch_lib.stack(sequences[first : first + _BATCH], like=empty)
    key = jax.random.fold_in(jax.random.key(0), first)
    text, mels = jax.device_get(
      _predict(variables, batch, key, model=model, config=config)
    )
    used = batch.speech.weights > 0
    # Sums of squares in float64: their difference is what is wanted.
    target = batch.speech.mel[used].astype(np.float64)
    misses = [np.square(mel[used] - target).sum() for mel in mels]
    result += Sums(
      text=text.astype(np.float64),
      misses=np.array(misses),
      mel=target.sum(axis=(0, 1)),
      power=float(np.square(target).sum()),
      frames=target.shape[0] * target.shape[1],
    )
  return result


@functools.partial(jax.jit, static_argnames=("model", "config"))
def _predict(variables, batch: Batch, key, *, model, config: Config):
  """Sums [kinds, 3] (right, nats, count), a sample of mel, expected mel."""
  hidden, _ = model.apply(variables, batch.packed, method=model.hidden)
  rows = interaction.take(hidden, batch.targets.positions)
  logits = model.apply(variables, rows, method=model.logits)
  picked = jnp.take_along_axis(logits, batch.targets.tokens[..., None], -1)[
    ..., 0
  ]
  used = batch.targets.positions < hidden.shape[1]
  right = picked >= logits.max(-1)
  nats = jax.nn.logsumexp(logits, -1) - picked
  sums = []
  for kind in Kind:
    mask = used & (batch.targets.kinds == kind)
    sums.append([(mask & right).sum(), jnp.where(mask, nats, 0).sum()])
    sums[-1].append(mask.sum())
  sums = jnp.array(sums, jnp.float32)
  condition = interaction.take(hidden, batch.speech.positions)
  noise = jax.random.normal(key, batch.speech.mel.shape)
  bound = model.bind(variables)
  mels = [
    jnp.clip(
      flow_head.sample(
        bound.velocity,
        cond_D=condition,
        null_D=bound.null_condition(),
        noise_FC=noise * temperature,
        config=flow,
      ),
      dmel.LOG_MIN,
      dmel.LOG_MAX,
    )
    for temperature, flow in (
      (config.sample.flow_temperature, config.model.flow),
      # At time 0 the noise says nothing: noise + velocity is the expectation.
      (1.0, dataclasses.replace(config.model.flow, steps=1, map_weight=0.0)),
    )
  ]
  return sums, mels
