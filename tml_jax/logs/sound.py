"""Sound files of a session.

For: 16-bit WAV at 16 kHz, at once (`write_wav`) or window by window
(`Track`). Not for: making sound (`vocoder`). Start at `Track`.
"""

import pathlib
import struct
import wave

import numpy as np

from tml_jax.streams import clock

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def write_wav(path: pathlib.Path, *, channels: list[np.ndarray]) -> None:
  """16-bit PCM at 16 kHz."""
  with wave.open(str(path), "wb") as file:
    file.setnchannels(len(channels))
    file.setsampwidth(2)
    file.setframerate(clock.SAMPLE_RATE)
    file.writeframes(_pcm(np.stack(channels, axis=1)))


class Track:
  """What an agent says, in a file that grows and is whole after every window.

  Whoever kills the process finds a file of all windows so far. The file is in
  time with the session: the delay of the vocoder is taken out, and the first
  window, in which nothing can sound yet, is silent.
  """

  def __init__(self, path: pathlib.Path, *, grid: clock.Grid, delay: int):
    """Replaces the file; `delay` is in samples.

    Raises:
      OSError: it cannot be written.
    """
    self._parts: list[np.ndarray] = []
    self._skip, self._bytes = delay, 0
    # No buffer: what is written is there if the process ends.
    self._file = open(path, "wb", buffering=0)  # noqa: SIM115
    self.append(np.zeros(grid.samples, np.float32))

  def append(self, sound: np.ndarray) -> None:
    """Takes the sound of the next window, `delay` late."""
    skip = min(self._skip, len(sound))
    self._skip -= skip
    self._parts.append(sound[skip:])
    data = _pcm(sound[skip:])
    # Sound first: a header that knows less of it is right, too.
    self._file.seek(_HEADER.size + self._bytes)
    self._file.write(data)
    self._bytes += len(data)
    self._file.seek(0)
    self._file.write(_header(self._bytes))

  def close(self, *, samples: int) -> np.ndarray:
    """Closes the file; returns so many samples of it, float32."""
    self._file.close()
    sound = np.concatenate(self._parts)[:samples]
    return np.pad(sound, (0, samples - len(sound)))


def _pcm(samples: np.ndarray) -> bytes:
  samples = np.clip(samples, -1, 1)
  return np.round(samples * 32767).astype("<i2").tobytes()


def _header(size: int) -> bytes:
  """Of a file of one channel with `size` bytes of sound."""
  rate, width = clock.SAMPLE_RATE, 2
  return _HEADER.pack(
    *(b"RIFF", _HEADER.size - 8 + size, b"WAVE"),
    *(b"fmt ", 16, 1, 1, rate, rate * width, width, 8 * width),
    *(b"data", size),
  )
