"""Real speech for tests: the recorded prompts where Debian's package is."""

import functools
import glob

import numpy as np
import pytest

from tml_jax.data import media, source

PROMPTS = "/usr/share/asterisk/sounds/en_US_f_Allison"


@functools.cache
def clips(count: int = 40) -> list[np.ndarray]:
  """Recorded English prompts, float32 at 16 kHz; skips without the package."""
  paths = sorted(glob.glob(f"{PROMPTS}/*.g722"))
  if not paths:
    pytest.skip("needs Debian's asterisk-core-sounds-en-g722")
  result = []
  for path in paths[:count]:
    try:
      result.append(media.sound(path)[0])
    except source.BadRecording:
      pass  # the package has empty ones
  return result
