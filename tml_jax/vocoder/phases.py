"""Phases of a stream of magnitude spectra from past frames and a few ahead.

For: sound of magnitudes while they arrive, one hop at a time. Not for: making
the magnitudes (`vocoder`). Start at `step`. Source: RTISI-LA (Zhu, Beauregard
and Wyse, Real-Time Signal Estimation From Modified Short-Time Fourier Transform
Magnitude Spectra, 2007); all frames that wait are updated at once here, which
one transform does for a batch.

Frames stand where `dmel.fine_mel` takes them: frame i ends with hop i. What is
estimated of a frame is kept as its windowed samples; a frame is committed, and
a hop of sound complete, when AHEAD later frames are known.

Legend: B sessions, K frames that wait (AHEAD + 1 with the newest), W samples
of a window, H of a hop, F bins of the spectrum.
"""

import flax
import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.streams import clock, dmel

HOP = clock.FINE_SAMPLES
WINDOW = dmel.FINE_WINDOW
BINS = WINDOW // 2 + 1
OVERLAP = WINDOW // HOP
# PESQ of eight held-out prompts, from true magnitudes: 3.00 with no frame
# ahead, 3.64 with two, and without a network 2.54 and 3.17; there
# momentum (Perraudin et al., 2013) adds 0.17.
AHEAD = 2
# PESQ of 12 English and 12 Russian held-out prompts without a network:
# 8 turns and 0.5: 3.38, 3.32; 6 and 0.5: 3.14, 3.24; 6 and 0.8: 3.39, 3.29;
# 5 and 0.8: 3.30, 3.19. Transforms are most of the time of a window's sound.
ITERATIONS = 6
MOMENTUM = 0.8
DELAY = WINDOW - HOP + AHEAD * HOP  # samples; 62.5 ms
_TINY = 1e-16  # of power: no phase below
_LEAST_WEIGHT = 0.1  # where a window of the newest frame falls to nothing


@flax.struct.dataclass
class State:
  """Between two frames.

  Attributes:
    sum_BW: windowed samples of committed frames, added up, from where the
      oldest waiting frame begins.
    waiting_BKW: estimates of the frames that are not committed, AHEAD.
    wanted_BKF: their magnitudes.
  """

  sum_BW: jax.Array
  waiting_BKW: jax.Array
  wanted_BKF: jax.Array


def start(*, batch_size: int) -> State:
  """Silence before the first frame."""
  return State(
    sum_BW=jnp.zeros((batch_size, WINDOW)),
    waiting_BKW=jnp.zeros((batch_size, AHEAD, WINDOW)),
    wanted_BKF=jnp.zeros((batch_size, AHEAD, BINS)),
  )


def step(state: State, wanted_BF: jax.Array) -> tuple[State, jax.Array]:
  """Takes the next frame, commits the oldest that waits.

  Args:
    state: of the stream.
    wanted_BF: magnitudes of the next frame; all zero where it is silent.

  Returns:
    The state after, and the next hop of sound [B, H], DELAY samples late.
  """
  newest_B1W = jnp.zeros_like(state.sum_BW)[:, None]
  frames_BKW = jnp.concatenate([state.waiting_BKW, newest_B1W], axis=1)
  wanted_BKF = jnp.concatenate([state.wanted_BKF, wanted_BF[:, None]], axis=1)
  past = jnp.pad(state.sum_BW, ((0, 0), (0, AHEAD * HOP)))
  window, before = jnp.asarray(hann()), None
  for i in range(ITERATIONS):
    sound = past + _overlap_add(frames_BKW)
    sound = sound / _weight(has_newest=i > 0)
    cut_BKW = jnp.stack(
      [sound[:, k * HOP : k * HOP + WINDOW] for k in range(AHEAD + 1)], axis=1
    )
    spectrum = jnp.fft.rfft(cut_BKW * window, axis=-1)
    # The newest frame has no spectrum of its own before the second turn.
    faster = spectrum if i < 2 else spectrum + MOMENTUM * (spectrum - before)
    before = spectrum
    frames_BKW = window * jnp.fft.irfft(
      wanted_BKF * _direction(faster), n=WINDOW, axis=-1
    )
  total_BW = state.sum_BW + frames_BKW[:, 0]
  hop_BH = total_BW[:, :HOP] / _full_weight()
  return State(
    sum_BW=jnp.pad(total_BW[:, HOP:], ((0, 0), (0, HOP))),
    waiting_BKW=frames_BKW[:, 1:],
    wanted_BKF=wanted_BKF[:, 1:],
  ), hop_BH


def hann() -> np.ndarray:
  """Periodic Hann window [W], as `dmel` uses."""
  phase = 2 * np.pi * np.arange(WINDOW) / WINDOW
  return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def _direction(spectrum: jax.Array) -> jax.Array:
  """Spectrum over its magnitude; a pulse mid-window where there is none.

  Silence has no phase: sound that sets in after it begins as that pulse.
  """
  # In real numbers: a complex absolute value and a division take four times as
  # long on a CPU.
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  is_heard = power > _TINY
  scale = jax.lax.rsqrt(jnp.where(is_heard, power, 1.0))
  pulse = np.where(np.arange(BINS) % 2, -1, 1).astype(np.float32)
  return jax.lax.complex(
    jnp.where(is_heard, spectrum.real * scale, pulse),
    jnp.where(is_heard, spectrum.imag * scale, 0.0),
  )


def _overlap_add(frames_BKW: jax.Array) -> jax.Array:
  """Sum of frames that begin a hop apart, [B, W + (K - 1) * H]."""
  count = frames_BKW.shape[1]
  return sum(
    jnp.pad(frames_BKW[:, k], ((0, 0), (k * HOP, (count - 1 - k) * HOP)))
    for k in range(count)
  )


def _full_weight() -> np.ndarray:
  """Sum of squared windows over a hop that all frames have reached, [H]."""
  return np.square(hann()).reshape(OVERLAP, HOP).sum(axis=0)


def _weight(*, has_newest: bool) -> np.ndarray:
  """Sum of squared windows from the oldest waiting frame on."""
  total = np.zeros(WINDOW + AHEAD * HOP + OVERLAP * HOP, np.float32)
  square = np.square(hann())
  for k in range(-OVERLAP + 1, AHEAD + (1 if has_newest else 0)):
    begin = k * HOP
    part = square[-begin:] if begin < 0 else square
    total[max(begin, 0) : max(begin, 0) + len(part)] += part
  return np.maximum(total[: WINDOW + AHEAD * HOP], _LEAST_WEIGHT)
