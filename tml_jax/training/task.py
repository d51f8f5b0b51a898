"""What a run trains, as the train loop sees it.

For: `train.main`, which takes any `Task`. There are the interaction model
(`train.py`) and the vocoder (`train_vocoder.py`). Not for: what a step
minimises (`objective`). Start at `Task`. Nothing here imports jax: a task is
made before bad flags are refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Data(Protocol):
  """An endless iterator over the batches of this process.

  Attributes:
    identity: JSON values; what gives the state its meaning. The same in all
      processes.
  """

  identity: Mapping[str, Any]

  def __next__(self) -> Any:
    """Arrays [rows, ...] of the rows of the global batch that are here."""

  def get_state(self) -> dict[str, Any]:
    """`identity` and `shards`, positions by name (`loader.merge_states`)."""

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on bit for bit.

    Raises:
      errors.UserError: the state is of other data.
    """

  def close(self) -> None:
    """Ends what runs in the background."""


class Evaluation(Protocol):
  """Metrics inside training, on the first process alone.

  Attributes:
    every: steps between two.
  """

  every: int

  def check(self) -> None:
    """Refuses what `scalars` would refuse, before the first step."""

  def scalars(self, variables: Any) -> dict[str, float]:
    """With these weights, whole on this host."""


class Task(Protocol):
  """Whatever differs between the runs of two commands.

  Attributes:
    config: the experiment, with `train` (a `LoopConfig`), `mesh` and
      `compiler_options`.
    evaluation: inside training; None for never.
  """

  config: Any
  evaluation: Evaluation | None

  def check(self) -> None:
    """Refuses what can be refused before anything is written.

    Raises:
      errors.UserError: for instance a tokenizer that does not fit.
    """

  def keep(self, workdir: str) -> None:
    """Writes beside the config what else the run cannot be used without.

    The first process does so when the run has its state, new or resumed.
    """

  def check_rows(self, rows: Sequence[int]) -> None:
    """Refuses rows that the data cannot give one of several processes."""

  def data(self, *, rows: Sequence[int]) -> Data:
    """Opens the data.

    Raises:
      errors.UserError: it is missing or broken.
    """

  def program(self, *, mesh: Any) -> Any:
    """The `program.Program` of its step."""

  def step_flops(self) -> float:
    """Model FLOPs of a step, forward and backward."""
