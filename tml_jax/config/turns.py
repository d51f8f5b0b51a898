"""How a harness around a turn-based model takes turns.

For: `TurnsConfig`, of sessions behind a turn detector (`evals.turn_based`) and
of the data that such a model is trained on (`data.turns`), which are cut alike.
Not for: an interaction model, which decides itself. docs/panel.md has where the
defaults are from.
"""

import dataclasses
import enum

from tml_jax.config import checks
from tml_jax.config.streams import TICK_MS

_EPSILON = 1e-6


class Detector(enum.StrEnum):
  """What hears that the user speaks; see `data.vad`."""

  ENERGY = "energy"
  SILERO = "silero"


class SemanticEnd(enum.StrEnum):
  """Who says that a turn of the user is over."""

  MODEL = "model"  # is asked in every window of silence; `<quiet>`: not yet
  OFF = "off"  # the time-out: the model is asked once


class Start(enum.StrEnum):
  """When the model begins to make its reply."""

  SPECULATIVE = "speculative"  # in the first silence; in vain if he goes on
  AT_END = "at_end"  # of the turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class TurnsConfig:
  """The settings of a harness; those in seconds end with `_s`."""

  vad: Detector = Detector.ENERGY
  # Silence that ends a turn: from then on the model is asked.
  endpoint_s: float = 0.5
  semantic_end: SemanticEnd = SemanticEnd.MODEL
  # Silence in which the model is asked for the last time; afterwards it waits
  # for the next turn.
  maximum_silence_s: float = 3.0
  # Speech of the user that ends speech of the agent; what is shorter is heard
  # when that is over.
  minimum_interruption_s: float = 0.5
  # Silence after which an interrupted agent that said nothing since goes on
  # where it was cut; 0 = it never does.
  resume_after_false_s: float = 2.0
  start: Start = Start.SPECULATIVE

  @property
  def asks(self) -> int:
    """Windows in which the model is asked for a reply to one turn."""
    if self.semantic_end is SemanticEnd.OFF:
      return 1
    silence = self.maximum_silence_s - self.endpoint_s
    return 1 + int(1000 * silence / TICK_MS + _EPSILON)

  def __post_init__(self) -> None:
    checks.require_range(
      self,
      section="turns",
      names="endpoint_s minimum_interruption_s",
      low=0.1,
      high=10.0,
    )
    checks.require_range(
      self,
      section="turns",
      names="maximum_silence_s resume_after_false_s",
      low=0.0,
      high=60.0,
    )
    checks.require(
      self.semantic_end is SemanticEnd.OFF
      or self.maximum_silence_s >= self.endpoint_s,
      f"turns.maximum_silence_s = {self.maximum_silence_s}: at least"
      f" turns.endpoint_s = {self.endpoint_s}, or set turns.semantic_end=off",
    )
    checks.require(
      self.resume_after_false_s == 0
      or self.resume_after_false_s >= self.endpoint_s,
      f"turns.resume_after_false_s = {self.resume_after_false_s}: at least"
      f" turns.endpoint_s = {self.endpoint_s}, as an interruption is over then;"
      " or 0, never",
    )
