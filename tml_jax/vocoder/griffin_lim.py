"""Waveform from fine mel without weights: Griffin-Lim.

For: listening to what a session said, offline. Not for: streaming. Start at
`render`; `of` has the settings of a run. Sources: Griffin and Lim (1984) with
the momentum of Perraudin et al. (2013); linear magnitudes from mel by the
multiplicative update of Lee and Seung (2001) for the Kullback-Leibler
divergence, which fits loud and soft channels by their ratio.

Frames stand where `dmel.fine_mel` takes them: frame i ends with its hop, so
the first three reach back before the sound, which is silence there.

Legend: N frames, F bins of the spectrum, M mel channels.
"""

import functools
from collections.abc import Callable

import numpy as np

from tml_jax.config import Config
from tml_jax.streams import clock, dmel

MEL_ITERATIONS = 30  # mel of the result within 0.05 dB of the target
_MOMENTUM = 0.99
_HOP = clock.FINE_SAMPLES
_OVERLAP = dmel.FINE_WINDOW // _HOP
_PAST = dmel.FINE_WINDOW - _HOP
_TINY = np.float32(1e-12)


def of(config: Config) -> Callable[[list[np.ndarray | None]], np.ndarray]:
  """`render` with the windows and the iterations of a run."""
  return functools.partial(
    render,
    grid=clock.of(config.streams),
    iterations=config.sample.griffin_lim_iterations,
    seed=0,
  )


def render(
  mels: list[np.ndarray | None],
  *,
  grid: clock.Grid,
  iterations: int,
  seed: int,
) -> np.ndarray:
  """The agent's track of a session.

  Args:
    mels: log10 fine mel [F, 80] that sounds in each window, None where
      quiet.
    grid: of the windows.
    iterations: of phase estimation.
    seed: of the initial phases.

  Returns:
    [windows * grid.samples] float32; digital silence where the agent is quiet.
  """
  audio = np.zeros(len(mels) * grid.samples, np.float32)
  start = 0
  while start < len(mels):
    stop = start
    while stop < len(mels) and mels[stop] is not None:
      stop += 1
    if stop > start:
      part = griffin_lim(
        np.stack(mels[start:stop]), iterations=iterations, seed=seed
      )
      first = start * grid.samples
      audio[first : first + len(part)] = part
    start = stop + 1
  return audio


def griffin_lim(mel: np.ndarray, *, iterations: int, seed: int) -> np.ndarray:
  """Sound of consecutive windows, with silence before and after.

  Args:
    mel: [windows, F, 80] log10 fine mel.
    iterations: of phase estimation.
    seed: of the initial phases.

  Returns:
    [samples] float32 at 16 kHz, clipped to [-1, 1].
  """
  mel_NM = mel.reshape(-1, clock.MEL_CHANNELS)
  wanted_NF = magnitudes(mel_NM)
  length = len(mel_NM) * _HOP
  random = np.random.default_rng(seed)
  phase = np.exp(2j * np.pi * random.random(wanted_NF.shape))
  audio = _overlap_add(wanted_NF * phase.astype(np.complex64), length=length)
  previous = np.float32(0)
  for _ in range(iterations):
    # Frames behind the last one have no wanted magnitude and are left out.
    spectrum = _spectrum(audio)[: len(wanted_NF)]
    ahead = spectrum + _MOMENTUM * (spectrum - previous)
    previous = spectrum
    ahead *= wanted_NF / np.maximum(np.abs(ahead), _TINY)
    audio = _overlap_add(ahead, length=length)
  return np.clip(audio, -1, 1).astype(np.float32)


def magnitudes(mel_NM: np.ndarray) -> np.ndarray:
  """Magnitude spectra [N, F] float32 whose mel is near 10 ** `mel_NM`."""
  filters_FM = dmel.mel_filters(dmel.FINE_WINDOW)
  target_NM = np.power(10.0, mel_NM).astype(np.float32)
  reach_F = np.maximum(filters_FM.sum(axis=1), _TINY)
  result_NF = target_NM @ filters_FM.T / reach_F
  for _ in range(MEL_ITERATIONS):
    ratio_NM = target_NM / np.maximum(result_NF @ filters_FM, _TINY)
    result_NF *= ratio_NM @ filters_FM.T / reach_F
  return result_NF


def _window() -> np.ndarray:
  """Periodic Hann window, as `dmel` uses."""
  phase = 2 * np.pi * np.arange(dmel.FINE_WINDOW) / dmel.FINE_WINDOW
  return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def _spectrum(audio: np.ndarray) -> np.ndarray:
  """Every frame that touches `audio`, [N + 3, F] complex."""
  padded = np.pad(audio, _PAST)
  frames = np.lib.stride_tricks.sliding_window_view(padded, dmel.FINE_WINDOW)
  return np.fft.rfft(frames[::_HOP] * _window(), axis=-1)


def _overlap_add(spectrum_NF: np.ndarray, *, length: int) -> np.ndarray:
  """Least-squares inverse of `_spectrum` (Griffin and Lim, equation 6)."""
  window = _window()
  frames = np.fft.irfft(spectrum_NF, n=dmel.FINE_WINDOW, axis=-1) * window
  total = _add_shifted(frames)
  weight = _add_shifted(np.broadcast_to(np.square(window), frames.shape))
  # The last samples lie in the falling end of the last window alone.
  audio = total / np.maximum(weight, 0.1)
  return audio[_PAST : _PAST + length]


def _add_shifted(frames: np.ndarray) -> np.ndarray:
  """Sums frames [N, window] that start a hop apart, [(N + 3) * hop]."""
  blocks = frames.reshape(len(frames), _OVERLAP, _HOP)
  total = np.zeros((len(frames) + _OVERLAP - 1, _HOP), blocks.dtype)
  for i in range(_OVERLAP):
    total[i : i + len(frames)] += blocks[:, i]
  return total.reshape(-1)
