"""English words by pocketsphinx, whose package holds its model.

For: `--recogniser=pocketsphinx`, where nothing else is installed. Not for:
good transcripts: of recorded prompts it gets 20 % of the words wrong
(benchmarks/vocoder.md).
Start reading at `Pocketsphinx`. D. Huggins-Daines et al., ICASSP 2006.
"""

import functools
import importlib.util
import re
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data.mend import recognition
from tml_jax.streams import clock
from tml_jax.streams.timeline import Word

_QUIET = clock.SAMPLE_RATE // 2  # samples on both sides, as of a microphone
_FRAME = 0.01  # seconds


class Pocketsphinx:
  """The decoder with its US English model."""

  languages = ("en",)

  def words(self, audio: np.ndarray, *, language: str) -> list[Word]:
    decoder = self._decoder
    pcm = np.round(np.clip(audio, -1, 1) * 32767).astype("<i2")
    decoder.start_utt()
    decoder.process_raw(
      np.pad(pcm, _QUIET).tobytes(), no_search=False, full_utt=True
    )
    decoder.end_utt()
    if decoder.hyp() is None:
      return []
    lasts, late = len(audio) / clock.SAMPLE_RATE, _QUIET / clock.SAMPLE_RATE
    found = []
    for each in decoder.seg():
      if re.match(r"[<\[+]", each.word):  # silence and noise
        continue
      start = min(max(0.0, each.start_frame * _FRAME - late), lasts)
      end = min(max(start, (each.end_frame + 1) * _FRAME - late), lasts)
      found.append(Word(start, end, re.sub(r"\(\d+\)$", "", each.word)))
    return found

  @functools.cached_property
  def _decoder(self) -> Any:
    import pocketsphinx

    return pocketsphinx.Decoder(samprate=clock.SAMPLE_RATE, loglevel="FATAL")


@recognition.register_recogniser("pocketsphinx")
def open_pocketsphinx(argument: str) -> Pocketsphinx:
  """Without an argument.

  Raises:
    errors.UserError: with one, or its package is not installed.
  """
  if argument:
    raise errors.UserError(
      f"--recogniser=pocketsphinx:{argument}: pocketsphinx takes no argument"
    )
  if importlib.util.find_spec("pocketsphinx") is None:
    raise errors.UserError(
      "--recogniser=pocketsphinx needs its package: pip install"
      " 'tml_jax[annotate]'"
    )
  return Pocketsphinx()
