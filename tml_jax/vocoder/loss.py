"""What the vocoder minimises.

For: `train_vocoder`. Not for: the interaction model (`training/losses.py`), nor
the step (`training/step.py`). Start at `Spectra`. The predicted spectrum is
compared with the recorded one, and its sound with the recording at other
resolutions; that sound has the recorded phases, as `phase` cannot be asked for
a gradient.

Legend: B examples, S samples, N frames, F bins, M mel channels.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.streams import clock, dmel
from tml_jax.vocoder import network, phases
from tml_jax.vocoder.config import VocoderConfig

PAST = phases.WINDOW - phases.HOP  # samples before an example's first frame
# Windows of the multi-resolution distance, a quarter apart (Parallel WaveGAN,
# arXiv 1910.11480), beside the vocoder's own of 800.
RESOLUTIONS = (320, 1600)
_FLOOR = 1e-2  # of magnitudes in logarithms: -80 dB of a loud harmonic
_TINY = 1e-7

Batch = dict[str, jax.Array]


def spectra(audio_BS: jax.Array) -> jax.Array:
  """Complex spectra [B, N, F] of all frames that lie in `audio_BS`."""
  return stft(audio_BS, window=phases.WINDOW, hop=phases.HOP)


def stft(audio_BS: jax.Array, *, window: int, hop: int) -> jax.Array:
  """Spectra under a Hann window, of all frames that lie in `audio_BS`."""
  count = (audio_BS.shape[-1] - window) // hop + 1
  at = np.arange(count)[:, None] * hop + np.arange(window)
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
  return jnp.fft.rfft(audio_BS[:, at] * hann.astype(np.float32), axis=-1)


def fine_mel(magnitudes: jax.Array) -> jax.Array:
  """`dmel.fine_mel` of magnitude spectra."""
  mel = magnitudes @ dmel.mel_filters(dmel.FINE_WINDOW)
  return jnp.clip(
    jnp.log10(jnp.maximum(mel, 10.0**dmel.LOG_MIN)), dmel.LOG_MIN, dmel.LOG_MAX
  )


def sound(spectra_BNF: jax.Array) -> jax.Array:
  """Inverse of `spectra` where four frames overlap, [B, (N - 3) * hop]."""
  frames = jnp.fft.irfft(spectra_BNF, n=phases.WINDOW, axis=-1)
  frames = frames * jnp.asarray(phases.hann())
  blocks = frames.reshape(*frames.shape[:2], phases.OVERLAP, phases.HOP)
  count = frames.shape[1] - phases.OVERLAP + 1
  total = sum(
    blocks[:, phases.OVERLAP - 1 - i : phases.OVERLAP - 1 - i + count, i]
    for i in range(phases.OVERLAP)
  )
  weight = np.square(phases.hann()).reshape(phases.OVERLAP, -1).sum(axis=0)
  return (total / weight).reshape(len(frames), -1)


def distance(magnitudes: jax.Array, *, wanted: jax.Array) -> jax.Array:
  """Mean error of logarithms plus spectral convergence, [B]."""

  def log(x):
    return jnp.log(jnp.maximum(x, _FLOOR))

  dims = (-2, -1)
  error = jnp.mean(jnp.abs(log(magnitudes) - log(wanted)), axis=dims)
  square = jnp.sum(jnp.square(magnitudes - wanted), axis=dims)
  norm = jnp.sqrt(jnp.sum(jnp.square(wanted), axis=dims))
  return error + jnp.sqrt(square + _TINY) / (norm + 1.0)


def multi_resolution(sound_BS: jax.Array, *, wanted_BS: jax.Array) -> jax.Array:
  """Mean `distance` over `RESOLUTIONS`, [B]."""
  total = 0.0
  for window in RESOLUTIONS:
    pair = [
      jnp.sqrt(jnp.square(z.real) + jnp.square(z.imag) + _TINY)
      for z in (
        stft(audio, window=window, hop=window // 4)
        for audio in (sound_BS, wanted_BS)
      )
    ]
    total += distance(pair[0], wanted=pair[1])
  return total / len(RESOLUTIONS)


class Sums(NamedTuple):
  """Sums over the pieces of a batch, float32.

  Attributes:
    magnitude: `distance` of the predicted spectrum.
    stft: `multi_resolution` of its sound.
    mel: mean error of its mel.
    pieces: how many.
    frames: of all pieces.
  """

  magnitude: jax.Array
  stft: jax.Array
  mel: jax.Array
  pieces: jax.Array
  frames: jax.Array


class Spectra:
  """The vocoder's objective: `loss`, the mean over all pieces.

  `training.objective.Objective` says what each part is for.
  """

  shown = ("magnitude", "stft", "mel")
  counted: Mapping[str, str] = {"frames": "frames"}

  def denominators(self, batch: Batch) -> float:
    """Pieces of the global batch."""
    return float(len(batch["audio"]))

  def loss(
    self,
    params,
    *,
    collections: Mapping[str, Any],
    batch: Batch,
    keys_B: jax.Array,
    denominators: float,
    model: network.Vocoder,
    config: VocoderConfig,
  ) -> tuple[jax.Array, Sums]:
    """Part of these pieces in the global batch's mean, and its terms.

    Args:
      params: of the network.
      collections: the network has no others.
      batch: `audio` [B, S], pieces that begin `PAST` samples before their
        first frame.
      keys_B: not used, nothing here is random.
      denominators: pieces of the global batch.
      model: the network.
      config: weights of the terms.
    """
    del collections, keys_B
    audio_BS = batch["audio"]
    spectra_BNF = spectra(audio_BS)
    wanted_BNF = jnp.abs(spectra_BNF)
    mel_BNM = fine_mel(wanted_BNF)
    magnitudes_BNF, _ = model.apply(
      {"params": params},
      mel_BNM,
      jnp.ones(mel_BNM.shape[:2], bool),
      model.start(batch_size=len(audio_BS)),
    )
    direction = spectra_BNF / jnp.maximum(wanted_BNF, _TINY)
    made_BS = sound(magnitudes_BNF * direction)
    mel_error = jnp.abs(fine_mel(magnitudes_BNF) - mel_BNM)
    sums = Sums(
      magnitude=distance(magnitudes_BNF, wanted=wanted_BNF).sum(),
      stft=multi_resolution(
        made_BS, wanted_BS=audio_BS[:, PAST : PAST + made_BS.shape[1]]
      ).sum(),
      mel=jnp.mean(mel_error, axis=(-2, -1)).sum(),
      pieces=jnp.float32(len(audio_BS)),
      frames=jnp.float32(np.prod(mel_BNM.shape[:2])),
    )
    train = config.train
    total = (
      train.magnitude_weight * sums.magnitude
      + train.stft_weight * sums.stft
      + train.mel_weight * sums.mel
    )
    return total / denominators, sums

  def load_KLE(self, sums: Sums) -> None:
    """There is no router."""

  def scalars(self, sums: Sums) -> dict[str, float]:
    """The terms as means over pieces, `loss/NAME`, and `frames`."""
    result = {"frames": float(sums.frames)}
    for name in self.shown:
      result[f"loss/{name}"] = float(getattr(sums, name) / sums.pieces)
    return result


def samples(config: VocoderConfig) -> int:
  """Of a piece: its windows, and what its first frame needs before them."""
  return PAST + config.data.windows * clock.TICKS.samples


def example(config: VocoderConfig, *, batch_size: int) -> Batch:
  """Zeros in the shapes of a batch."""
  return {"audio": jnp.zeros((batch_size, samples(config)))}


def step_flops(config: VocoderConfig) -> float:
  """FLOPs of the network in a step, forward and backward.

  Its matmuls and convolutions as in `training.flops`; transforms of the loss
  are not counted.
  """
  m = config.model
  layer = m.kernel * m.width + 2 * m.width * m.hidden
  ends = (clock.MEL_CHANNELS + m.kernel + phases.BINS) * m.width
  frames = config.data.windows * clock.TICKS.fine_frames
  forward = 2 * frames * (ends + m.depth * layer)
  return 3 * config.train.global_batch_size * forward
