"""Words by a Whisper model of yours, in a folder as transformers saves it.

For: `--recogniser=whisper:PATH`. Not for: fetching a model; nothing is read
from a network. Start reading at `Whisper`. Times of words are those of the
model's attention over the sound (A. Radford et al., ICML 2023; dynamic time
warping as in its reference code).
"""

import functools
import importlib.util
import json
import math
import pathlib
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data.mend import recognition
from tml_jax.streams import clock
from tml_jax.streams.timeline import Word

_GENERATION = "generation_config.json"


class Whisper:
  """A model on the CPU."""

  def __init__(self, path: pathlib.Path, *, languages: tuple[str, ...]):
    self.languages = languages
    self._path = path

  def words(self, audio: np.ndarray, *, language: str) -> list[Word]:
    chosen: dict[str, str] = {}
    if self.languages != ("en",):  # models of English alone take none
      chosen["task"] = "transcribe"
      if language:
        chosen["language"] = language.replace("_", "-").partition("-")[0]
    found = self._pipeline(
      {"raw": audio, "sampling_rate": clock.SAMPLE_RATE},
      return_timestamps="word",
      generate_kwargs=chosen,
    )
    lasts = len(audio) / clock.SAMPLE_RATE
    words = []
    for each in found["chunks"]:
      start, end = each["timestamp"]
      # The last word of a stretch may have no end.
      start = 0.0 if start is None else min(max(0.0, float(start)), lasts)
      end = lasts if end is None else min(max(start, float(end)), lasts)
      words += [Word(start, end, text) for text in each["text"].split()]
    return [w for w in words if math.isfinite(w.start + w.end)]

  @functools.cached_property
  def _pipeline(self) -> Any:
    import transformers

    library: Any = transformers  # its types name tasks one by one
    return library.pipeline(
      "automatic-speech-recognition",
      model=library.WhisperForConditionalGeneration.from_pretrained(
        self._path, local_files_only=True
      ),
      tokenizer=library.WhisperTokenizerFast.from_pretrained(
        self._path, local_files_only=True
      ),
      feature_extractor=library.WhisperFeatureExtractor.from_pretrained(
        self._path, local_files_only=True
      ),
      device="cpu",
    )


@recognition.register_recogniser("whisper")
def open_whisper(argument: str) -> Whisper:
  """The model in the folder `argument`.

  Raises:
    errors.UserError: it is no such folder, or a package is missing.
  """
  path = pathlib.Path(argument)
  if not argument or not (path / _GENERATION).is_file():
    raise errors.UserError(
      f"--recogniser=whisper:{argument}: there is no {_GENERATION}; name a"
      " folder in which transformers has saved a Whisper model and its"
      " processor"
    )
  for package in ("torch", "transformers"):
    if importlib.util.find_spec(package) is None:
      raise errors.UserError(
        f"--recogniser=whisper needs {package}: pip install 'tml_jax[torch]'"
      )
  try:
    config = json.loads((path / _GENERATION).read_text(encoding="utf-8"))
    tokens = config.get("lang_to_id") or {}
    has_heads = bool(config.get("alignment_heads"))
  except (ValueError, AttributeError) as error:
    raise errors.UserError(
      f"{path / _GENERATION} is broken: {error}; save the model again"
    ) from error
  if not has_heads:
    raise errors.UserError(
      f"{path / _GENERATION} has no alignment_heads, which tell the times of"
      " words: take a model that has them"
    )
  languages = tuple(sorted(token.strip("<|>") for token in tokens)) or ("en",)
  return Whisper(path, languages=languages)
