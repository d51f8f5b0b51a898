"""How a session draws what it says.

For: `SampleConfig`. Not for: steps of the flow (`config/model.py`).
"""

import dataclasses
import enum

from tml_jax.config import checks

MAX_BIAS = 100.0  # e^100: nothing else counts


class ExpertWeights(enum.StrEnum):
  """In what routed experts are held while sessions run."""

  MODEL = "model"  # train.dtype
  # A scale for each expert and output: half the bytes.
  INT8 = "int8"  # v5p, v6e and CPUs
  FP8 = "fp8"  # TPU7x


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
  """Of text, decisions and sound, and what a session remembers."""

  temperature: float  # of text and decisions; 0 = greedy
  top_p: float
  flow_temperature: float  # standard deviation of the flow's initial noise
  griffin_lim_iterations: int
  # What global layers see of a session: so many positions back (6 a window of
  # 200 ms listening, 11 speaking), and its first ones for good.
  horizon: int
  sinks: int
  expert_weights: ExpertWeights
  # Added to the logits of text and `<speak>` where the agent is silent: above
  # 0 it begins to speak more readily, below 0 less. Behind a turn detector
  # this is where it is asked whether the turn is over.
  onset_bias: float = 0.0
  # Output tokens that layers of multi-token prediction draft behind each one,
  # to be read with it; what is said stays the same. 0 = none.
  draft_tokens: int = 0

  def __post_init__(self) -> None:
    checks.require_range(
      self,
      section="sample",
      names="temperature flow_temperature griffin_lim_iterations sinks"
      " draft_tokens",
      low=0,
    )
    checks.require_range(self, section="sample", names="horizon", low=1)
    checks.require_range(
      self,
      section="sample",
      names="onset_bias",
      low=-MAX_BIAS,
      high=MAX_BIAS,
    )
    checks.require(
      0 < self.top_p <= 1,
      f"sample.top_p = {self.top_p}: above 0, at most 1 (1 = all tokens)",
    )
