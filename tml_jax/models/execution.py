"""How a model runs: one value, handed down to every module.

For: `InteractionModel` and the modules below it, which have it beside their
`ModelConfig`. Not for: sizes, which are there. Start at `Execution.of`.
"""

import dataclasses

from tml_jax.config import (
  Config,
  ExecutionConfig,
  Numerics,
  Precision,
  RematPolicy,
)
from tml_jax.config import train as train_config
from tml_jax.streams import clock, frame


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution(ExecutionConfig):
  """The forms of `train.execution`, and what else a module asks for.

  Attributes:
    dtype: of activations.
    remat_policy: what the backward pass computes again.
    numerics: whether results may depend on what is computed beside them.
    grid: of the windows, each one micro-turn.
    turn_token: row of `<turn>` in the vocabulary, -1 where there is none.
    precision: rules of products in 8 bits (`models/precision.py`).
    within: path of a module that is applied by itself.
  """

  dtype: str
  remat_policy: RematPolicy
  numerics: Numerics
  grid: clock.Grid
  turn_token: int
  precision: tuple[tuple[str, Precision], ...] = ()
  within: tuple[str, ...] = ()

  @classmethod
  def of(cls, config: Config) -> "Execution":
    """As an experiment says."""
    train = config.train
    return cls(
      **vars(train.execution),
      dtype=str(train.dtype),
      remat_policy=train.remat_policy,
      numerics=config.numerics,
      grid=clock.of(config.streams),
      turn_token=frame.token_id(frame.Control.TURN, config=config.streams),
      precision=train.precision_rules,
    )

  def on_one_device(self) -> "Execution":
    """The same model to use and not to train: its layers one by one."""
    return dataclasses.replace(
      self,
      **vars(train_config.PLAIN),
      remat_policy=RematPolicy.NONE,
      precision=(),
    )


# float32 on one device, windows of 200 ms, and no `<turn>` in the vocabulary.
PLAIN = Execution(
  **vars(train_config.PLAIN),
  dtype="float32",
  remat_policy=RematPolicy.NONE,
  numerics=Numerics.DEFAULT,
  grid=clock.TICKS,
  turn_token=-1,
)
