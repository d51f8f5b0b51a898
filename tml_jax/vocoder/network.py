"""Linear magnitudes behind fine mel: what a vocoder has to guess.

For: the network, its plain counterpart `interpolate`, and `fit` that makes
either agree with the mel. Not for: phases and sound (`phase`,
`vocoder.stream`). Start at `Vocoder`. Blocks: ConvNeXt as in Vocos (Siuzdak,
arXiv 2306.00814), causal; no frame waits for a later one.

Vocos lets the network give phases as well. Phase runs on from frame to frame
without end, which a network that sees half a second cannot do; what makes its
phases fit is a discriminator, days of training. Here `phase` makes phases that
fit from the magnitudes, and the network has what 80 mel channels leave open:
harmonics above 1 kHz, which are closer than the channels.

Legend: B sessions, N frames, C channels, M mel channels, F bins of the
spectrum, W width.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tml_jax.models import flow_head, norm
from tml_jax.streams import clock, dmel
from tml_jax.vocoder import griffin_lim, phases
from tml_jax.vocoder.config import VocoderModelConfig

_MAX_GAIN = 12.0  # of the network over `interpolate`, as natural logarithm
_LAYER_SCALE = 0.2  # a block's share at the start
_TINY = 1e-12
# Of bins that are multiplied together: 0.5, 1, 2, 4 and 8 kHz.
_BAND_EDGES = (0, 25, 50, 100, 200, phases.BINS)

Histories = dict[str, Any]  # by name of the convolution: last inputs [B, K, C]


class CausalConv(nn.Module):
  """Each channel by itself over this frame and `kernel` - 1 before it."""

  channels: int
  kernel: int

  @nn.compact
  def __call__(
    self, x_BNC: jax.Array, history_BKC: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """The result and the history of the next call."""
    taps = norm.param(
      self,
      name="taps",
      init=nn.initializers.normal(self.kernel**-0.5),
      shape=(self.kernel, self.channels),
      names=(None, "vocoder"),
    )
    bias = norm.param(
      self,
      name="bias",
      init=nn.initializers.zeros,
      shape=(self.channels,),
      names=("vocoder",),
    )
    known = jnp.concatenate([history_BKC, x_BNC], axis=1)
    count = x_BNC.shape[1]
    y = sum(known[:, k : k + count] * taps[k] for k in range(self.kernel))
    return y + bias, known[:, count:]


class Block(nn.Module):
  """ConvNeXt: a convolution over time, then two layers at each frame."""

  config: VocoderModelConfig

  @nn.compact
  def __call__(self, x_BNW, sounds_BN1, history_BKW):
    width, hidden = self.config.width, self.config.hidden
    y, history = CausalConv(width, self.config.kernel, name="time")(
      x_BNW * sounds_BN1, history_BKW
    )
    y = flow_head.layer_norm(y)
    names = ("vocoder", None)
    y = flow_head.Linear(width, hidden, names, "float32", name="expand")(y)
    y = jax.nn.gelu(y)
    y = flow_head.Linear(hidden, width, names, "float32", name="contract")(y)
    scale = norm.param(
      self,
      name="scale",
      init=nn.initializers.constant(_LAYER_SCALE),
      shape=(width,),
      names=("vocoder",),
    )
    return x_BNW + scale * y, history


class Vocoder(nn.Module):
  """Magnitudes of frames from their mel and the mel before."""

  config: VocoderModelConfig

  def setup(self):
    config = self.config
    width, names = config.width, ("vocoder", None)
    self.input = flow_head.Linear(clock.MEL_CHANNELS, width, names, "float32")
    self.input_time = CausalConv(width, config.kernel)
    self.blocks = [Block(config) for _ in range(config.depth)]
    self.output = flow_head.Linear(
      width, phases.BINS, names, "float32", init=nn.initializers.zeros
    )

  def __call__(
    self, mel_BNM: jax.Array, sounds_BN: jax.Array, histories: Histories
  ) -> tuple[jax.Array, Histories]:
    """Takes the next N frames.

    Args:
      mel_BNM: log10 fine mel.
      sounds_BN: false where there is silence; a frame after silence is a
        first frame, whatever was before.
      histories: from the call before, or `start`.

    Returns:
      Magnitudes [B, N, F], zero where there is silence, and histories.
    """
    sounds_BN1 = sounds_BN[..., None].astype(jnp.float32)
    x = (mel_BNM - self.config.mel_mean) / self.config.mel_std
    after = {}
    x = self.input(x) * sounds_BN1
    x, after["input"] = self.input_time(x, histories["input"])
    x = flow_head.layer_norm(x)
    for i, block in enumerate(self.blocks):
      name = f"block_{i}"
      x, after[name] = block(x, sounds_BN1, histories[name])
    gain = _MAX_GAIN * jnp.tanh(
      self.output(flow_head.layer_norm(x)) / _MAX_GAIN
    )
    return interpolate(mel_BNM) * jnp.exp(gain) * sounds_BN1, after

  def start(self, *, batch_size: int) -> Histories:
    """Histories before the first frame."""
    shape = (batch_size, self.config.kernel - 1, self.config.width)
    names = ["input"] + [f"block_{i}" for i in range(self.config.depth)]
    return {name: jnp.zeros(shape) for name in names}


def example(
  config: VocoderModelConfig, *, batch_size: int, frames: int
) -> tuple[jax.Array, jax.Array, Histories]:
  """Arguments of a first call, for tracing."""
  mel = jnp.zeros((batch_size, frames, clock.MEL_CHANNELS))
  sounds = jnp.ones((batch_size, frames), bool)
  return mel, sounds, Vocoder(config).start(batch_size=batch_size)


def interpolate(mel: jax.Array) -> jax.Array:
  """Smooth magnitudes [..., F] through log10 mel [..., M]."""
  filters_FM, reach_F = _filters()
  mean = jnp.power(10.0, mel) / filters_FM.sum(axis=0)  # of each channel
  return mean @ filters_FM.T / reach_F


def fit(magnitudes: jax.Array, *, mel: jax.Array) -> jax.Array:
  """Magnitudes [..., F] near the given ones whose mel is `mel`.

  The multiplicative update of Lee and Seung (2001) for the Kullback-Leibler
  divergence; from `interpolate`, as `vocoder.griffin_lim.magnitudes`. What the
  network gives is a median where it is not sure, and too soft: PESQ of six
  held-out prompts goes from 3.44 to 3.59, error from 2.33 to 2.16 dB.
  """
  _, reach_F = _filters()
  wanted = jnp.power(10.0, mel)

  def update(_, result):
    ratio = wanted / jnp.maximum(_to_mel(result), _TINY)
    return result * (_from_mel(ratio) / reach_F)

  return jax.lax.fori_loop(0, griffin_lim.MEL_ITERATIONS, update, magnitudes)


@dataclasses.dataclass(frozen=True)
class _Band:
  """Neighbouring bins and the channels that they touch.

  Attributes:
    bins: of the spectrum.
    channels: of the mel.
    filters: [bins, channels].
  """

  bins: slice
  channels: slice
  filters: np.ndarray


@functools.cache
def _bands() -> tuple[_Band, ...]:
  """All filters. A bin touches two of 80 channels, so most of them are 0."""
  filters_FM, _ = _filters()
  bands = []
  for bins in itertools.starmap(slice, itertools.pairwise(_BAND_EDGES)):
    (touched,) = filters_FM[bins].any(axis=0).nonzero()
    channels = slice(int(touched[0]), int(touched[-1]) + 1)
    bands.append(_Band(bins, channels, filters_FM[bins, channels]))
  return tuple(bands)


def _to_mel(magnitudes: jax.Array) -> jax.Array:
  """[..., F] times the filters, [..., M]; a sixth of the whole product."""
  size = clock.MEL_CHANNELS
  no_padding = [(0, 0)] * (magnitudes.ndim - 1)
  return sum(
    jnp.pad(
      magnitudes[..., band.bins] @ band.filters,
      [*no_padding, (band.channels.start, size - band.channels.stop)],
    )
    for band in _bands()
  )


def _from_mel(mel: jax.Array) -> jax.Array:
  """[..., M] times the transposed filters, [..., F]."""
  parts = [mel[..., band.channels] @ band.filters.T for band in _bands()]
  return jnp.concatenate(parts, axis=-1)


def _filters() -> tuple[np.ndarray, np.ndarray]:
  filters_FM = dmel.mel_filters(dmel.FINE_WINDOW)
  return filters_FM, np.maximum(filters_FM.sum(axis=1), np.float32(_TINY))
