"""RMSNorm in float32, and the one way this model declares a parameter.

For: every module of `models/`; where their weights and activations lie on a
mesh. Not for: LayerNorm (the flow head has its own). Start at `param`.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from tml_jax.config import Numerics

ROWS = 128  # of a tile, and of dense products, with invariant numerics


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


def rowwise(function, *arrays: jax.Array, numerics: Numerics, lead: int = 2):
  """`function` of arrays whose `lead` first dims are rows.

  It treats each row alone. With invariant numerics it meets them in tiles of
  one shape, as the order of its sums may depend on how many there are.
  """
  if numerics is Numerics.DEFAULT:
    return function(*arrays)
  shape = arrays[0].shape[:lead]
  count = math.prod(shape)

  def flat(x):
    return x.reshape(count, *x.shape[lead:])

  out = in_tiles(function, *map(flat, arrays), rows=ROWS)
  return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), out)


def in_tiles(function, *arrays: jax.Array, rows: int):
  """`function` of arrays cut into tiles of so many rows, one after another.

  At least two: XLA dissolves a loop of one turn, and compiles what is around
  it into it, barriers or not.
  """
  count = arrays[0].shape[0]
  if not count:
    return function(*arrays)
  padding = max(2, -(-count // rows)) * rows - count

  def cut(x):
    filling = jnp.broadcast_to(x[:1], (padding, *x.shape[1:]))
    return jnp.concatenate([x, filling]).reshape(-1, rows, *x.shape[1:])

  out = jax.lax.map(lambda tile: function(*tile), tuple(map(cut, arrays)))
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], out)


class RMSNorm(nn.Module):
  """`rms_norm` of [B, T, ...] with its learned scale."""

  size: int
  eps: float
  numerics: Numerics = Numerics.DEFAULT

  def setup(self):
    self.scale = param(
      self,
      name="scale",
      init=nn.initializers.ones,
      shape=(self.size,),
      names=("norm",),
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    norm = functools.partial(rms_norm, scale=self.scale, eps=self.eps)
    return rowwise(norm, x, numerics=self.numerics)
