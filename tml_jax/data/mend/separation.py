"""One mixed channel becomes two, by a separator.

For: the protocol, and `prepare --separate=NAME[:ARGUMENT]`. Not for: a
separator itself, which is a file in `separators`, or a plugin that registers
itself. Start reading at `separated`. Which of the two is the user's is told by
an option of the importer, never guessed.
"""

import functools
from collections.abc import Callable

import numpy as np

from tml_jax import registry
from tml_jax.data.source import BadRecording, Reason

# separator(audio): [n] float32 at 16 kHz to [2, n].
Separator = Callable[[np.ndarray], np.ndarray]

# factory(argument): raises errors.UserError where it cannot work.
SEPARATORS: registry.Registry[Callable[[str], Separator]] = registry.Registry(
  "separator", packages=("tml_jax.data.mend.separators",)
)
register_separator = SEPARATORS.register  # decorator of a factory


@functools.lru_cache(2)
def opened(chosen: str) -> Separator:
  """That of NAME or NAME:ARGUMENT, one for each process.

  Raises:
    errors.UserError: there is none, or it cannot work.
  """
  name, _, argument = chosen.partition(":")
  return SEPARATORS[name](argument)


def separated(audio: np.ndarray, *, chosen: str, name: str) -> np.ndarray:
  """[2, n] float32 of [n] in which two speak.

  Raises:
    BadRecording: the separator fails, or gives something else.
  """
  try:
    found = np.asarray(opened(chosen)(audio), np.float32)
  except Exception as error:  # whatever a model of somebody else raises
    raise BadRecording(
      Reason.FAILED, f"{name}: the separator {chosen}: {error!r:.200}"
    ) from error
  if found.shape != (2, len(audio)) or not np.isfinite(found).all():
    raise BadRecording(
      Reason.FAILED,
      f"{name}: the separator {chosen} gave {found.shape}, want finite"
      f" {(2, len(audio))}",
    )
  # What is over full scale is both turned down, so that levels stay in ratio.
  return found / np.float32(max(1.0, float(np.abs(found).max(initial=0.0))))
