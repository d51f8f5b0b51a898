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
from tml_jax.models import flow_head, interaction
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock, dmel, packing
from tml_jax.streams.batch import Batch
from tml_jax.streams.frame import Frame, Kind

_BATCH = 4
_DB = 20.0  # a factor 10 in magnitude


@dataclasses.dataclass(frozen=True)
class Sums:
  """What adds up over conversations.

  Attributes:
    text: [`Kind` of token, (right, nats, count)].
    misses: [sampled or expected] sum of squared errors of mel.
    mel: [80] sum of target mel by channel.
    power: sum of squared target mel.
    frames: of target mel.
  """

  text: np.ndarray
  misses: np.ndarray
  mel: np.ndarray
  power: float
  frames: int

  def __add__(self, other: "Sums") -> "Sums":
    pairs = zip(
      dataclasses.astuple(self), dataclasses.astuple(other), strict=True
    )
    return Sums(*(a + b for a, b in pairs))

  def scalars(self) -> dict[str, float]:
    """The numbers; NaN where there was nothing to predict.

    Returns:
      text_accuracy (say tokens predicted right), text_loss (nats a token),
      message_accuracy and message_loss (the same of displayed text, drawing and
      calls), silence_loss, onset_loss, going_on_loss and stop_loss (nats of a
      decision, `frame.Kind`; unweighted, as training logs them), mel_db (RMS
      error of the flow head's sample in dB), mel_expected_db (of one step from
      the noise, the mel that the head expects), mel_mean_db (of always
      predicting the mean of these very targets, channel by channel).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
      of_kind = self.text / self.text[:, 2:]
      say, message = of_kind[Kind.SAY], of_kind[Kind.MESSAGE]
      values = np.float64(self.frames * clock.MEL_CHANNELS)
      mean = np.square(self.mel / np.float64(self.frames)).sum()
      spread = (self.power - mean * self.frames) / values
      sampled, expected = _DB * np.sqrt(self.misses / values)
      return {
        "text_accuracy": float(say[0]),
        "text_loss": float(say[1]),
        "message_accuracy": float(message[0]),
        "message_loss": float(message[1]),
        **{
          f"{kind.name.lower()}_loss": float(of_kind[kind][1])
          for kind in (Kind.SILENCE, Kind.ONSET, Kind.GOING_ON, Kind.STOP)
        },
        "mel_db": float(sampled),
        "mel_expected_db": float(expected),
        "mel_mean_db": float(_DB * np.sqrt(spread)),
      }


def nothing() -> Sums:
  """Of no conversation."""
  channels = np.zeros(clock.MEL_CHANNELS)
  return Sums(np.zeros((len(Kind), 3)), np.zeros(2), channels, 0.0, 0)


def to_json(sums: Sums) -> dict[str, Any]:
  """JSON values."""
  return {
    name: value.tolist() if isinstance(value, np.ndarray) else value
    for name, value in dataclasses.asdict(sums).items()
  }


def from_json(values: dict[str, Any]) -> Sums:
  """The inverse of `to_json`.

  Raises:
    ValueError, TypeError, KeyError: other values.
  """
  arrays = {k: np.array(values[k], float) for k in ("text", "misses", "mel")}
  sums = Sums(**values | arrays)
  for name, like in dataclasses.asdict(nothing()).items():
    found = np.asarray(getattr(sums, name))
    if found.shape != np.shape(like) or not np.isfinite(found).all():
      raise ValueError(f"{name} is of shape {found.shape}, or not finite")
  return sums


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
  result = nothing()
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
