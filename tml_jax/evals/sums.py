"""Sums of predictions over conversations, and their numbers.

For: the numbers of content and losses by kind of token. Not for: predicting
(`content`) or timing (`panel`). Start reading at `Sums`. Nothing here imports
jax.
"""

import dataclasses
from typing import Any

import numpy as np

from tml_jax.streams import clock
from tml_jax.streams.frame import Kind

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
