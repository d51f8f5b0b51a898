"""A layer's routed experts in 8 bits: half of their bytes in memory.

For: `tiled` and `grouped`, which multiply by them; `live/program.py`, which
makes them of trained weights. Not for: training. Start at `quantize`.

An integer and a scale for each expert and output: the scale multiplies the
product, so that a TPU reads integers only. `jax.lax.ragged_dot` takes them as
they are; with `float8_e4m3fn` libtpu 0.0.42 writes the weights out in float32
first and reads six times the bytes, so there is no such form.

Legend: E experts, I inputs, O outputs, P rows in order of experts.
"""

import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp

from tml_jax import errors


@flax.struct.dataclass
class Quantized:
  """One weight of all experts; the weight is values * scales.

  Attributes:
    values_EIO: int8.
    scales_E1O: float32.
    dtype: of what comes out.
  """

  values_EIO: jax.Array
  scales_E1O: jax.Array
  dtype: str = flax.struct.field(pytree_node=False, default="float32")

  @property
  def shape(self) -> tuple[int, ...]:
    return self.values_EIO.shape

  def astype(self, dtype: str) -> "Quantized":
    """The same integers, with products in another dtype."""
    return dataclasses.replace(self, dtype=str(jnp.dtype(dtype)))

  def __getitem__(self, experts: jax.Array) -> jax.Array:
    """The weights of some experts, [..., I, O] in `dtype`."""
    values = self.values_EIO[experts].astype(self.dtype)
    return values * self.scales_E1O[experts].astype(self.dtype)

  def product(self, rows_PI: jax.Array, *, size_E: jax.Array) -> jax.Array:
    """Each row times its expert's weights, [P, O]; for TPUs.

    Args:
      rows_PI: expert by expert.
      size_E: how many rows each expert has.
    """
    product_PO = jax.lax.ragged_dot(
      rows_PI,
      self.values_EIO,
      size_E,
      preferred_element_type=rows_PI.dtype,
    )
    place_P = jnp.arange(len(rows_PI))
    expert_P = jnp.sum(place_P[:, None] >= jnp.cumsum(size_E), axis=1)
    scales_PO = jnp.take(self.scales_E1O[:, 0], expert_P, axis=0, mode="clip")
    return product_PO * scales_PO.astype(product_PO.dtype)


def is_quantized(leaf: Any) -> bool:
  return isinstance(leaf, Quantized)


def quantize(weight_EIO: jax.Array) -> Quantized:
  """The nearest integers; the largest weight of each output is 127.

  Raises:
    errors.UserError: qwix is not installed.
  """
  try:
    import qwix
  except ImportError as error:
    raise errors.UserError(
      "sample.expert_weights = int8 needs qwix: pip install 'tml_jax[tpu]'"
    ) from error
  made = qwix.quantize(
    jnp.asarray(weight_EIO, jnp.float32), jnp.int8, channelwise_axes=(0, 2)
  )
  return Quantized(values_EIO=made.qvalue, scales_E1O=made.scale)
