"""Waveform from fine mel without weights: Griffin-Lim.

For: listening to what a session said, offline. Not for: streaming. Source:
Griffin and Lim (1984) with momentum (Perraudin et al., 2013), by librosa.
"""

import librosa
import numpy as np

from tml_jax.streams import clock
from tml_jax.streams import dmel

# Fine frame i ends with its hop, librosa's frame i is centred on i hops: ours
# is centred half a window earlier than its end.
_SHIFT = dmel.FINE_WINDOW // 2 - clock.FINE_SAMPLES
_TAIL_FRAMES = 3  # until the last sample has left every window


def griffin_lim(mel: np.ndarray, *, iterations: int, seed: int) -> np.ndarray:
  """Sound of consecutive windows.

  Args:
    mel: [windows, 16, 80] log10 fine mel.
    iterations: of phase estimation.
    seed: of the initial phases.

  Returns:
    [windows * 3200] float32 at 16 kHz, clipped to [-1, 1].
  """
  frames = mel.reshape(-1, clock.MEL_CHANNELS)
  silence = np.full((_TAIL_FRAMES, clock.MEL_CHANNELS), dmel.LOG_MIN)
  magnitude = librosa.feature.inverse.mel_to_stft(
    np.power(10.0, np.concatenate([frames, silence])).T.astype(np.float32),
    sr=clock.SAMPLE_RATE,
    n_fft=dmel.FINE_WINDOW,
    power=1.0,
  )
  audio = librosa.griffinlim(
    magnitude,
    n_iter=iterations,
    hop_length=clock.FINE_SAMPLES,
    n_fft=dmel.FINE_WINDOW,
    random_state=seed,
  )
  audio = audio[_SHIFT : _SHIFT + len(frames) * clock.FINE_SAMPLES]
  return np.clip(audio, -1, 1).astype(np.float32)


def render(
  mels: list[np.ndarray | None], *, iterations: int, seed: int
) -> np.ndarray:
  """The agent's track of a session.

  Args:
    mels: fine mel [16, 80] that sounds in each window, None where quiet.
    iterations: of phase estimation.
    seed: of the initial phases.

  Returns:
    [windows * 3200] float32; digital silence where the agent is quiet.
  """
  audio = np.zeros(len(mels) * clock.TURN_SAMPLES, np.float32)
  start = 0
  while start < len(mels):
    if mels[start] is None:
      start += 1
      continue
    stop = start
    while stop < len(mels) and mels[stop] is not None:
      stop += 1
    part = griffin_lim(
      np.stack(mels[start:stop]), iterations=iterations, seed=seed
    )
    first = start * clock.TURN_SAMPLES
    audio[first : first + len(part)] = part
    start = stop
  return audio
