"""dMel: audio as 80 channels x 16 levels, 20 tokens a second; and fine mel.

For: turning samples into model inputs (dMel) and flow targets (fine mel), and
generated fine mel back into dMel. Not for: waveforms from mel
(`vocoder.griffin_lim`). Start reading at `dmel`.

Both transforms look at the past only: frame i ends with its hop, its window
reaches back. Sources: Bai et al., dMel (arXiv 2407.15835); the constants are
those of Inkling's audio front end, and `tests/streams/test_dmel.py` compares
with the published feature extractor.
"""

import functools

import numpy as np

from tml_jax.config import streams as streams_config
from tml_jax.streams import clock

LEVELS = streams_config.DMEL_LEVELS
LOG_MIN, LOG_MAX = -7.0, 2.0  # log10 of mel magnitude
WINDOW = 2 * clock.TOKEN_SAMPLES  # 100 ms
FINE_WINDOW = 4 * clock.FINE_SAMPLES  # 50 ms
_FLOOR = np.float32(1e-10)
_BLOCK = 256  # windows whose spectra are in memory at once
_CENTRES = np.linspace(LOG_MIN, LOG_MAX, LEVELS).astype(np.float32)
_EDGES = (_CENTRES[1:] + _CENTRES[:-1]) / 2
# A Hann window of twice the length doubles the magnitude of a steady tone.
_POOL_GAIN = np.float32(np.log10(WINDOW / FINE_WINDOW))


@functools.cache
def mel_filters(n_fft: int) -> np.ndarray:
  """Slaney mel filter bank with area normalisation, 0 Hz to Nyquist.

  Source: M. Slaney, Auditory Toolbox (1998): linear below 1 kHz at 200/3 Hz
  a mel, logarithmic above with 27 mels per factor 6.4.

  Args:
    n_fft: length of the transform.

  Returns:
    [n_fft // 2 + 1, MEL_CHANNELS] float32.
  """
  nyquist = clock.SAMPLE_RATE / 2
  top = 15 + 27 * np.log(nyquist / 1000) / np.log(6.4)
  mels = np.linspace(0, top, clock.MEL_CHANNELS + 2)
  edges = np.where(
    mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27)
  )
  bins = np.linspace(0, nyquist, n_fft // 2 + 1)[:, None]
  low, centre, high = edges[:-2], edges[1:-1], edges[2:]
  rising = (bins - low) / (centre - low)
  falling = (high - bins) / (high - centre)
  triangles = np.maximum(0, np.minimum(rising, falling))
  return (triangles * 2 / (high - low)).astype(np.float32)


def dmel(audio: np.ndarray, *, grid: clock.Grid = clock.TICKS) -> np.ndarray:
  """dMel tokens of a whole recording.

  Args:
    audio: [samples] float32 at 16 kHz; the last window may be partial.
    grid: of the windows.

  Returns:
    [windows * grid.audio_tokens, 80] uint8 levels: every window is complete,
    silence follows the last sample.
  """
  mel = _log_mel(audio, window=WINDOW, hop=clock.TOKEN_SAMPLES, grid=grid)
  return quantise(mel)


def fine_mel(
  audio: np.ndarray,
  past: np.ndarray | None = None,
  *,
  grid: clock.Grid = clock.TICKS,
) -> np.ndarray:
  """Log10 mel magnitudes every 12.5 ms, the target of the flow head.

  Args:
    audio: [samples] float32 at 16 kHz; the last window may be partial.
    past: samples just before `audio`; None at the start of a recording.
    grid: of the windows.

  Returns:
    [windows * grid.fine_frames, 80] float32, clamped to [LOG_MIN, LOG_MAX].
  """
  mel = _log_mel(
    audio, window=FINE_WINDOW, hop=clock.FINE_SAMPLES, grid=grid, past=past
  )
  return np.clip(mel, LOG_MIN, LOG_MAX)


def quantise(log_mel: np.ndarray) -> np.ndarray:
  """Nearest of the 16 level centres; a tie takes the lower. uint8."""
  return np.searchsorted(_EDGES, log_mel, side="left").astype(np.uint8)


def dequantise(levels: np.ndarray) -> np.ndarray:
  """Level centres, float32 log10 mel magnitude."""
  return _CENTRES[levels]


def pool_fine(mel: np.ndarray) -> np.ndarray:
  """Own-audio dMel tokens of fine mel: the mean magnitude of four frames.

  The same function serves recorded mel in training and generated mel in
  sampling, so both sides of the loop see the same tokens.

  Args:
    mel: [..., F, 80] log10 fine mel of one window.

  Returns:
    [..., F / 4, 80] uint8 levels.
  """
  shape = (*mel.shape[:-2], -1, clock.FINE_PER_TOKEN, mel.shape[-1])
  magnitude = np.power(np.float32(10), mel).reshape(shape).mean(axis=-2)
  return quantise(np.log10(np.maximum(magnitude, _FLOOR)) + _POOL_GAIN)


class DmelStream:
  """dMel of a live microphone, one window at a time.

  Equals `dmel` of the whole recording bit for bit: each window is
  transformed by the same calls on the same shapes.

  Attributes:
    past: [800] samples that the next window looks back on.
  """

  def __init__(self, grid: clock.Grid):
    self._grid = grid
    self.past = np.zeros(WINDOW - clock.TOKEN_SAMPLES, np.float32)

  def push(self, samples: np.ndarray) -> np.ndarray:
    """Tokens of the next window.

    Args:
      samples: [grid.samples] float32.

    Returns:
      [grid.audio_tokens, 80] uint8.

    Raises:
      ValueError: `samples` is not one window.
    """
    grid = self._grid
    if samples.shape != (grid.samples,):
      raise ValueError(
        f"a window has shape {samples.shape}; want ({grid.samples},): "
        f"{grid.ms} ms at {clock.SAMPLE_RATE} Hz"
      )
    samples = samples.astype(np.float32, copy=False)
    mel = _log_mel(
      samples,
      window=WINDOW,
      hop=clock.TOKEN_SAMPLES,
      grid=grid,
      past=self.past,
    )
    self.past = samples[len(samples) - len(self.past) :]
    return quantise(mel)


@functools.cache
def _hann(window: int) -> np.ndarray:
  """Periodic Hann window, float32."""
  phase = 2 * np.pi * np.arange(window) / window
  return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def _log_mel(
  audio: np.ndarray,
  *,
  window: int,
  hop: int,
  grid: clock.Grid,
  past: np.ndarray | None = None,
) -> np.ndarray:
  """Log10 of the Slaney mel of the magnitude spectrum, window by window.

  The mel product runs as one small matmul per window: BLAS rounds a product
  of other height differently, and streaming must equal offline.
  """
  windows = -(-len(audio) // grid.samples)
  padded = np.zeros(window - hop + windows * grid.samples, np.float32)
  if past is not None:
    tail = past[max(0, len(past) - (window - hop)) :]
    padded[window - hop - len(tail) : window - hop] = tail
  padded[window - hop : window - hop + len(audio)] = audio
  frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
  filters = mel_filters(window)
  per_window = grid.samples // hop
  result = np.empty((len(frames), filters.shape[-1]), np.float32)
  for start in range(0, len(frames), _BLOCK * per_window):
    block = frames[start : start + _BLOCK * per_window]
    spectrum = np.fft.rfft(block * _hann(window), axis=-1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    magnitude = np.sqrt(np.maximum(power, _FLOOR))
    mel = magnitude.reshape(-1, per_window, magnitude.shape[-1]) @ filters
    mel = np.log10(np.maximum(mel.reshape(len(block), -1), _FLOOR))
    result[start : start + len(block)] = mel
  return result
