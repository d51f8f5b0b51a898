"""Real speech for tests: the recorded prompts where Debian's package is."""

import functools
import glob

import av
import numpy as np
import pytest

PROMPTS = "/usr/share/asterisk/sounds/en_US_f_Allison"


@functools.cache
def clips(count: int = 40) -> list[np.ndarray]:
  """Recorded English prompts, float32 at 16 kHz; skips without the package."""
  paths = sorted(glob.glob(f"{PROMPTS}/*.g722"))
  if not paths:
    pytest.skip("needs Debian's asterisk-core-sounds-en-g722")
  result = []
  for path in paths[:count]:
    with av.open(path) as container:
      frames = [f.to_ndarray()[0] for f in container.decode(audio=0)]
    if frames:
      result.append(np.concatenate(frames).astype(np.float32) / 32768)
  return result
