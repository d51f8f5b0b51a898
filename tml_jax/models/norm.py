"""RMSNorm in float32, and the one way this model declares a parameter.

For: every module of `models/`; where their weights and activations lie on a
mesh. Not for: LayerNorm (the flow head has its own). Start at `param`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn


def param(
  module: nn.Module,
  *,
  name: str,
  init: Callable[..., jax.Array],
  shape: Sequence[int],
  names: Sequence[str | None],
) -> jax.Array:
  """Declares a float32 parameter that carries its logical axis names."""
  boxed = nn.with_logical_partitioning(init, tuple(names))
  return module.param(name, boxed, tuple(shape), jnp.float32)


def whole(weight: jax.Array, *, names: Sequence[str | None]) -> jax.Array:
  """A weight with all of "embed" on every device.

  Where a weight is small beside what it multiplies, the compiler may else
  bring the whole global batch to each piece of the weight.
  """
  kept = tuple(None if name == "embed" else name for name in names)
  return nn.with_logical_constraint(weight, kept)


def spread(x: jax.Array) -> jax.Array:
  """[B, T, ...] cut over the mesh axes of "batch" and "time".

  The second dim is positions, or slots that are filled in their order. Said at
  block boundaries, and wherever else a device would hold or compute a whole
  sequence that is cut over devices.
  """
  return nn.with_logical_constraint(
    x, ("batch", "time", *[None] * (x.ndim - 2))
  )


def rms_norm(x: jax.Array, *, scale: jax.Array, eps: float) -> jax.Array:
  """x / rms(x) * scale over the last dim, computed in float32."""
  x32 = x.astype(jnp.float32)
  mean_square = jnp.mean(x32 * x32, axis=-1, keepdims=True)
  return (x32 * jax.lax.rsqrt(mean_square + eps) * scale).astype(x.dtype)


class RMSNorm(nn.Module):
  """`rms_norm` with its learned scale."""

  size: int
  eps: float

  def setup(self):
    self.scale = param(
      self,
      name="scale",
      init=nn.initializers.ones,
      shape=(self.size,),
      names=("norm",),
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    return rms_norm(x, scale=self.scale, eps=self.eps)
