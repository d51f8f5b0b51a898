"""Loss and step of the vocoder.

For: `train_vocoder`. Not for: the interaction model (`step`, `losses`). Start
at `create`. The predicted spectrum is compared with the recorded one, and its
sound with the recording at other resolutions; that sound has the recorded
phases, as `phase` cannot be asked for a gradient.

Legend: B examples, S samples, N frames, F bins, M mel channels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from tml_jax.streams import dmel
from tml_jax.training import optim
from tml_jax.training import state as state_lib
from tml_jax.vocoder import network, phases
from tml_jax.vocoder.config import VocoderConfig

PAST = phases.WINDOW - phases.HOP  # samples before an example's first frame
# Windows of the multi-resolution distance, a quarter apart (Parallel WaveGAN,
# arXiv 1910.11480), beside the vocoder's own of 800.
RESOLUTIONS = (320, 1600)
_FLOOR = 1e-2  # of magnitudes in logarithms: -80 dB of a loud harmonic
_TINY = 1e-7

Scalars = dict[str, jax.Array]


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


def loss(
  params,
  audio_BS: jax.Array,
  *,
  model: network.Vocoder,
  config: VocoderConfig,
) -> tuple[jax.Array, Scalars]:
  """Mean over examples, and its terms.

  Args:
    params: of the network.
    audio_BS: pieces that begin `PAST` samples before their first frame.
    model: the network.
    config: weights of the terms.
  """
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
  terms = {
    "magnitude": distance(magnitudes_BNF, wanted=wanted_BNF),
    "stft": multi_resolution(
      made_BS, wanted_BS=audio_BS[:, PAST : PAST + made_BS.shape[1]]
    ),
    "mel": jnp.mean(jnp.abs(fine_mel(magnitudes_BNF) - mel_BNM), axis=(-2, -1)),
  }
  terms = {name: jnp.mean(term) for name, term in terms.items()}
  train = config.train
  total = (
    train.magnitude_weight * terms["magnitude"]
    + train.stft_weight * terms["stft"]
    + train.mel_weight * terms["mel"]
  )
  return total, {f"loss/{name}": term for name, term in terms.items()}


def create_state(config: VocoderConfig) -> state_lib.TrainState:
  """A fresh state; `router` is empty, as there is none."""
  model = network.Vocoder(config.model)
  params = model.init(
    jax.random.key(config.train.seed),
    *network.example(config.model, batch_size=1, frames=1),
  )["params"]
  params = nn.meta.unbox(params)
  return state_lib.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    router={},
    opt_state=_optimizer(config).init(params),
    ema=jax.tree.map(jnp.copy, params) if config.train.optim.ema_decay else (),
  )


def create(
  config: VocoderConfig,
) -> Callable[
  [state_lib.TrainState, jax.Array], tuple[state_lib.TrainState, Scalars]
]:
  """The compiled step: state and audio [B, S] to state and scalars."""
  model = network.Vocoder(config.model)
  optimizer, decay = _optimizer(config), config.train.optim.ema_decay

  def step(state, audio_BS):
    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(
      state.params, audio_BS, model=model, config=config
    )
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if decay:
      # The average of the first steps is of these alone.
      share = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
      ema = jax.tree.map(
        lambda old, new: share * old + (1 - share) * new, ema, params
      )
    after = state.replace(
      step=state.step + 1, params=params, opt_state=opt_state, ema=ema
    )
    scalars = {"loss": value, "grad_norm": optax.global_norm(gradient)}
    return after, scalars | terms

  return jax.jit(step, donate_argnums=0)


def _optimizer(config: VocoderConfig) -> optax.GradientTransformation:
  return optim.create(config.train.optim, steps=config.train.steps)
