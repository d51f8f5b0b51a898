"""What a train step minimises, as the step sees it.

For: `step.create`, which takes any `Objective`. There are `losses.Pretraining`
and the vocoder's `loss.Spectra`. Not for: how it is minimised (`step`,
`optim`), nor where batches come from (`task`).
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax


class Objective(Protocol):
  """A loss that is a sum over the examples of a global batch.

  A batch is any pytree of arrays whose first dim is that of the examples: what
  one objective needs more of, it finds there (advantages of each sequence).
  Sums are divided once, by what `denominators` finds in the global batch, so
  that microbatches and meshes change nothing.

  Attributes:
    shown: NAME of each `loss/NAME` that a log line shows where there is one.
    counted: scalars that are also given a second, and their short names.
  """

  shown: tuple[str, ...]
  counted: Mapping[str, str]

  def denominators(self, batch: Any) -> Any:
    """A pytree that `loss` divides by, of the whole global batch."""

  def loss(
    self,
    params: Any,
    *,
    collections: Mapping[str, Any],
    batch: Any,
    keys_B: jax.Array,
    denominators: Any,
    model: Any,
    config: Any,
  ) -> tuple[jax.Array, Any]:
    """Part of a microbatch in the loss of its global batch.

    Args:
      params: the gradient is taken of.
      collections: what is beside them and gets no gradient, by name
        (`state.TrainState.collections`): the router's biases, the weights of a
        frozen reference.
      batch: a microbatch.
      keys_B: one random key per example: noise does not depend on the cut.
      denominators: of the global batch.
      model: the module that `params` are of.
      config: the experiment.

    Returns:
      The scalar loss, and sums for metrics: a pytree, added up over the
      microbatches of a step.
    """

  def load_KLE(self, sums: Any) -> jax.Array | None:
    """Router choices by kind, MoE layer and expert; None without a router."""

  def scalars(self, sums: Any) -> dict[str, float]:
    """Metrics of the sums of a step, which were fetched to the host."""
