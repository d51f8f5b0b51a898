"""Losses of one microbatch: text, decisions and the flow of speech.

For: what the gradient is taken of. Not for: the optimizer (`step`). Start
reading at `loss`, which `Pretraining` hands to the step. Every sum is over
valid targets and divided once, by the count of the whole global batch, so that
accumulation and sharding change nothing.

Legend: B sequences, T positions, N targets, S `<speak>` positions, K noise
draws, D d_model, V vocabulary, F fine frames, C mel channels; in loads: K kinds
of token, L MoE layers, E experts; in sums: K kinds of target, M entries of the
mixture, Z layers of multi-token prediction.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp

from tml_jax.config import Config
from tml_jax.data import mixture
from tml_jax.models import flow_head, interaction, moe, norm
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import dmel, frame
from tml_jax.streams.batch import Batch
from tml_jax.training import metrics


@flax.struct.dataclass
class Denominators:
  """Weights of all valid targets of a global batch."""

  text: jax.Array  # float32
  flow: jax.Array
  sequences: jax.Array  # that are not all padding


@flax.struct.dataclass
class Sums:
  """Sums over a microbatch, added up over the step for metrics.

  Attributes:
    cross_entropy: [kinds] float32, unweighted.
    correct: [kinds] targets predicted right.
    count: [kinds] valid targets.
    by_source: the same by entry of the mixture.
    flow: squared error of the predicted mel, standardised, window mean.
    flow_count: `<speak>` positions.
    load_KLE: router choices by token kind, MoE layer and expert.
    tokens: positions that are not padding.
    balance: `moe.load_balance`, mean over MoE layers and sequences; 0 where it
      has no weight.
    further: of layers of multi-token prediction; Z = 0 where they have no
      weight.
  """

  cross_entropy: jax.Array
  correct: jax.Array
  count: jax.Array
  by_source: "BySource"
  flow: jax.Array
  flow_count: jax.Array
  load_KLE: jax.Array
  tokens: jax.Array
  balance: jax.Array
  further: "Further"


@flax.struct.dataclass
class Further:
  """Sums of each layer of multi-token prediction, [Z] float32.

  Layer k (from 0) is asked for the targets that have k + 1 positions of their
  segment before the one that predicts them.

  Attributes:
    weighed: cross-entropy times the weights of the targets.
    cross_entropy, correct, count: as in `Sums`, over all kinds.
  """

  weighed: jax.Array
  cross_entropy: jax.Array
  correct: jax.Array
  count: jax.Array


@flax.struct.dataclass
class BySource:
  """Sums of the targets of each entry of the mixture, [M] float32.

  Attributes:
    names: of the entries; no array, so that it comes along unchanged.
    cross_entropy, correct, count, flow, flow_count: as in `Sums`, over all
      kinds.
  """

  names: tuple[str, ...] = flax.struct.field(pytree_node=False)
  cross_entropy: jax.Array
  correct: jax.Array
  count: jax.Array
  flow: jax.Array
  flow_count: jax.Array


@jax.named_scope("denominators")
def denominators(batch: Batch) -> Denominators:
  """Counts a global batch; at least 1, so that an empty one has no loss."""
  return Denominators(
    text=jnp.maximum(batch.targets.weights.sum(), 1.0),
    flow=jnp.maximum(batch.speech.weights.sum(), 1.0),
    sequences=jnp.maximum(_is_used(batch).sum(), 1.0),
  )


def _is_used(batch: Batch) -> jax.Array:
  return (batch.packed.segment_ids > 0).any(axis=1).astype(jnp.float32)


def loss(
  params,
  *,
  collections: Mapping[str, Any],
  batch: Batch,
  keys_B: jax.Array,
  denominators: Denominators,
  model: interaction.InteractionModel,
  config: Config,
) -> tuple[jax.Array, Sums]:
  """Loss of a microbatch as its part of the global batch's mean.

  Args:
    params: trained parameters.
    collections: the router's selection-only balance biases.
    batch: B sequences.
    keys_B: one random key per sequence: noise does not depend on how the
      global batch is cut.
    denominators: of the global batch.
    model: the model.
    config: weights of the losses, noise on fed-back audio.

  Returns:
    The scalar loss and the sums for metrics.
  """
  variables = {"params": params, **collections}
  noise_B, flow_B = jnp.moveaxis(jax.vmap(jax.random.split)(keys_B), 1, 0)
  batch = disturb_own_audio(batch, noise_B, share=config.train.feedback_noise)
  weight = config.train.load_balance_loss_weight
  (hidden_BTD, aux), collected = model.apply(
    variables,
    batch.packed,
    method=model.hidden,
    mutable=[moe.BALANCE] if weight else [],
  )

  h_BND = interaction.take(hidden_BTD, batch.targets.positions)
  logits = unembed(params, model=model)
  entropy_BN, right_BN = score(
    h_BND,
    targets_BN=batch.targets.tokens,
    logits=logits,
    chunk=config.train.execution.loss_chunk,
  )
  text = (entropy_BN * batch.targets.weights).sum() / denominators.text

  further = _further(
    variables,
    hidden_BTD,
    batch=batch,
    logits=logits,
    model=model,
    config=config,
  )
  flow_BS = flow_error(
    variables, hidden_BTD, batch=batch, keys_B=flow_B, model=model
  )
  flow = flow_BS.sum() / denominators.flow

  balance = jnp.zeros(())  # summed over layers, as in Switch
  for loss_LB in jax.tree.leaves(collected):
    loss_B = loss_LB.reshape(-1, len(keys_B)).sum(axis=0)
    balance += (loss_B * _is_used(batch)).sum() / denominators.sequences

  valid_BN = batch.targets.positions < hidden_BTD.shape[1]
  kinds_BNK = jax.nn.one_hot(batch.targets.kinds, len(frame.Kind))
  kinds_BNK *= valid_BN[..., None]
  sums = Sums(
    cross_entropy=jnp.einsum("bn,bnk->k", entropy_BN, kinds_BNK),
    correct=jnp.einsum("bn,bnk->k", right_BN.astype(jnp.float32), kinds_BNK),
    count=kinds_BNK.sum((0, 1)),
    by_source=_by_source(
      batch,
      names=tuple(mixture.weights(config)),
      valid_BN=valid_BN,
      entropy_BN=entropy_BN,
      right_BN=right_BN,
      flow_BS=flow_BS,
    ),
    flow=flow_BS.sum(),
    flow_count=batch.speech.weights.sum(),
    load_KLE=aux.load_KLE,
    tokens=(batch.packed.segment_ids > 0).sum().astype(jnp.float32),
    balance=balance / max(1, aux.load_KLE.shape[1]),
    further=further,
  )
  total = text + config.train.flow_loss_weight * flow
  if config.train.mtp_loss_weight:
    # Each over all targets, also those that it is not asked for: equation 24.
    mean = further.weighed.mean() / denominators.text
    total += config.train.mtp_loss_weight * mean
  return (total + weight * balance if weight else total), sums


@jax.named_scope("further")
def _further(
  variables,
  hidden_BTD: jax.Array,
  *,
  batch: Batch,
  logits: Callable[[jax.Array], jax.Array],
  model,
  config: Config,
) -> Further:
  """DeepSeek-V3's objective (arXiv 2412.19437, section 2.2), at the targets.

  A target is the token behind its position p. Layer k predicts it from the
  state at p - 1 - k, having read all tokens up to p.
  """
  if not config.train.mtp_loss_weight:
    return Further(*jnp.zeros((4, 0)))
  hidden_ZBTD = model.apply(
    variables, batch.packed, hidden_BTD=hidden_BTD, method=model.mtp_hidden
  )
  targets, segments_BT = batch.targets, batch.packed.segment_ids
  layers = []
  for k, layer_BTD in enumerate(hidden_ZBTD):
    from_BN = targets.positions - 1 - k
    clipped_BN = jnp.clip(from_BN, 0, segments_BT.shape[1] - 1)
    last_BN = jnp.minimum(targets.positions, segments_BT.shape[1] - 1)
    asked_BN = (
      (from_BN >= 0)
      & (targets.positions < segments_BT.shape[1])
      & (
        jnp.take_along_axis(segments_BT, clipped_BN, axis=1)
        == jnp.take_along_axis(segments_BT, last_BN, axis=1)
      )
    ).astype(jnp.float32)
    entropy_BN, right_BN = score(
      interaction.take(layer_BTD, clipped_BN),
      targets_BN=targets.tokens,
      logits=logits,
      chunk=config.train.execution.loss_chunk,
    )
    layers.append(
      Further(
        weighed=(entropy_BN * asked_BN * targets.weights).sum(),
        cross_entropy=(entropy_BN * asked_BN).sum(),
        correct=(right_BN * asked_BN).sum(),
        count=asked_BN.sum(),
      )
    )
  return jax.tree.map(lambda *each: jnp.stack(each), *layers)


@jax.named_scope("by_source")
def _by_source(
  batch: Batch,
  *,
  names: tuple[str, ...],
  valid_BN: jax.Array,
  entropy_BN: jax.Array,
  right_BN: jax.Array,
  flow_BS: jax.Array,
) -> BySource:
  """Sums by the entry of the mixture, of which the `names` are in order."""
  of_BNM = jax.nn.one_hot(batch.targets.sources, len(names))
  of_BNM *= valid_BN[..., None]
  of_BSM = jax.nn.one_hot(batch.speech.sources, len(names))
  return BySource(
    names=names,
    cross_entropy=jnp.einsum("bn,bnm->m", entropy_BN, of_BNM),
    correct=jnp.einsum("bn,bnm->m", right_BN.astype(jnp.float32), of_BNM),
    count=of_BNM.sum((0, 1)),
    flow=jnp.einsum("bs,bsm->m", flow_BS, of_BSM),
    flow_count=jnp.einsum("bs,bsm->m", batch.speech.weights, of_BSM),
  )


def unembed(params, *, model) -> Callable[[jax.Array], jax.Array]:
  """The model's logits with an unembedding that is brought together once.

  Else every chunk of `score` would gather it, and reduce its gradient; that is
  summed over chunks in the model's dtype, like over devices.
  """
  weight = params["unembedding"].astype(model.execution.dtype)
  weight = norm.whole(weight, names=("embed", "vocab"))
  head = {"params": {"unembedding": weight}}
  return lambda h: model.apply(head, h, method=model.logits)


@jax.named_scope("text_loss")
def score(
  h_BND: jax.Array,
  *,
  targets_BN: jax.Array,
  logits: Callable[[jax.Array], jax.Array],
  chunk: int,
) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy of each target, and whether it is predicted right.

  Right means no logit is larger; cheaper than an argmax on a CPU.

  Args:
    h_BND: hidden states at the targets.
    targets_BN: tokens.
    logits: float32 logits [..., V] of hidden states.
    chunk: targets of a sequence whose logits exist at once, in the gradient
      too, which computes them again.
  """

  def one_chunk(h_BND, targets_BN):
    logits_BNV = logits(norm.spread(h_BND))
    log_z_BN = jax.nn.logsumexp(logits_BNV, axis=-1)
    picked_BN = jnp.take_along_axis(logits_BNV, targets_BN[..., None], axis=-1)[
      ..., 0
    ]
    return log_z_BN - picked_BN, picked_BN >= logits_BNV.max(axis=-1)

  batch, count = targets_BN.shape
  if count <= chunk:
    return one_chunk(h_BND, targets_BN)

  def cut(x):
    x = jnp.pad(x, [(0, 0), (0, -count % chunk)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(batch, -1, chunk, *x.shape[2:]), 1, 0)

  def join(x):
    return jnp.moveaxis(x, 0, 1).reshape(batch, -1)[:, :count]

  again = jax.checkpoint(one_chunk, prevent_cse=False)
  results = jax.lax.map(
    lambda each: again(*each), (cut(h_BND), cut(targets_BN))
  )
  return jax.tree.map(join, results)


@jax.named_scope("flow_loss")
def flow_error(
  variables, hidden_BTD: jax.Array, *, batch: Batch, keys_B: jax.Array, model
) -> jax.Array:
  """Weighted flow-matching error of each `<speak>` position, float32 [B, S]."""
  condition_BSD = norm.spread(
    interaction.take(hidden_BTD, batch.speech.positions)
  )
  null_D = model.apply(variables, method=model.null_condition)

  def velocity(x, t, condition, span=0.0):
    return model.apply(variables, x, t, condition, span, method=model.velocity)

  def one_sequence(mel_SFC, condition_SD, key):
    return flow_head.flow_loss(
      velocity,
      mel_FC=mel_SFC,
      cond_D=condition_SD,
      null_D=null_D,
      rng=key,
      config=model.config.flow,
    )

  error_BS = jax.vmap(one_sequence)(batch.speech.mel, condition_BSD, keys_B)
  return error_BS * batch.speech.weights


@jax.named_scope("feedback_noise")
def disturb_own_audio(
  batch: Batch, keys_B: jax.Array, *, share: float
) -> Batch:
  """Moves `share` of the own-audio levels up or down by one.

  In a session the model hears its own generated audio, not the recorded one;
  the noise makes it robust to the difference (dMel, arXiv 2407.15835, masks
  spans; CALM, arXiv 2509.06926, adds noise).
  """
  inputs = batch.packed.inputs
  levels = inputs.audio_dmel

  def steps(key):
    uniform = jax.random.uniform(key, levels.shape[1:])
    return jnp.where(
      uniform < share / 2, -1, jnp.where(uniform > 1 - share / 2, 1, 0)
    )

  moved = levels.astype(jnp.int32) + jax.vmap(steps)(keys_B)
  moved = jnp.clip(moved, 0, dmel.LEVELS - 1).astype(levels.dtype)
  own = (inputs.audio_streams == batch_lib.OWN)[..., None]
  noisy = inputs._replace(audio_dmel=jnp.where(own, moved, levels))
  return batch._replace(packed=batch.packed._replace(inputs=noisy))


class Pretraining:
  """The objective of the interaction model: `loss` over recordings.

  `objective.Objective` says what each part is for.
  """

  shown = ("say", "text", "onset", "stop", "flow", "mtp_1")
  counted: Mapping[str, str] = {"tokens": "tok"}
  denominators = staticmethod(denominators)
  loss = staticmethod(loss)
  scalars = staticmethod(metrics.summarise)

  def load_KLE(self, sums: Sums) -> jax.Array:
    return sums.load_KLE


PRETRAINING = Pretraining()
