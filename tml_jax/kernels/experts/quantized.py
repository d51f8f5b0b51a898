"""A layer's routed experts in 8 bits: half of their bytes in memory.

For: `tiled` and `grouped`, which multiply by them; `live/program.py`, which
makes them of trained weights. Not for: other weights (`low_precision.py`).
Start at `quantize`.

8 bits and a scale for each expert and output: the scale multiplies the product,
so that a TPU reads 8 bits only. `jax.lax.ragged_dot` takes them as they are
where the chip multiplies them: int8 on v5p and v6e, float8 on TPU7x. Elsewhere
libtpu 0.0.42 writes the weights out in float32 first and reads six times the
bytes, so that is refused (`chips.require`).

Rows are in a session's own dtype; a train step has them in 8 bits too, and
goes back through the same weights. It has one scale for each expert: a scale
for each output is, beside many rows, an array as large as what it multiplies.

Legend: E experts, I inputs, O outputs, P rows in order of experts.
"""

import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from tml_jax.kernels import low_precision, mesh


def _over(dim: int) -> jax.lax.RaggedDotDimensionNumbers:
  """Rows of P times the weights of their experts, over this dim of those."""
  return jax.lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((1,), (dim,)), ((), ())),
    lhs_ragged_dimensions=[0],
    rhs_group_dimensions=[0],
  )


_OVER_INPUTS, _OVER_OUTPUTS = _over(1), _over(2)


@flax.struct.dataclass
class Quantized:
  """One weight of all experts; the weight is values * scales.

  Attributes:
    values_EIO: int8 or a float8.
    scales_E1O: float32; 1 wide where an expert has one scale.
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

  def product(
    self, rows_PI: jax.Array | low_precision.Rounded, *, size_E: jax.Array
  ) -> jax.Array:
    """Each row times its expert's weights, [P, O]; for TPUs.

    Args:
      rows_PI: expert by expert.
      size_E: how many rows each expert has.
    """
    return self._product(rows_PI, _OVER_INPUTS, size_E=size_E)

  def back(
    self, rows_PO: low_precision.Rounded, *, size_E: jax.Array
  ) -> jax.Array:
    """Each row times its expert's transposed weights, [P, I]; for TPUs.

    Experts have one scale each.
    """
    return self._product(rows_PO, _OVER_OUTPUTS, size_E=size_E)

  def _product(self, rows, dims, *, size_E):
    is_rounded = isinstance(rows, low_precision.Rounded)
    made = rows.values if is_rounded else rows
    # Integers are summed as integers; a float is rounded before its scale.
    exact = jnp.issubdtype(made.dtype, jnp.integer)
    product = jax.lax.ragged_dot_general(
      made,
      self.values_EIO,
      size_E,
      dims,
      preferred_element_type=jnp.int32 if exact else rows.dtype,
    )
    scales = self._scales(size_E, rows=len(made))
    if is_rounded:
      return (product * (rows.scales * scales)).astype(rows.dtype)
    return product * scales.astype(rows.dtype)

  def _scales(self, size_E: jax.Array, *, rows: int) -> jax.Array:
    """Of each row's expert, float32 [P, O or 1]."""
    place_P = jnp.arange(rows)
    expert_P = jnp.sum(place_P[:, None] >= jnp.cumsum(size_E), axis=1)
    return jnp.take(self.scales_E1O[:, 0], expert_P, axis=0, mode="clip")


def is_quantized(leaf: Any) -> bool:
  return isinstance(leaf, Quantized)


def quantize(
  weight_EIO: jax.Array,
  dtype: DTypeLike = jnp.int8,
  *,
  axes: tuple[int, ...] = (0, 2),
) -> Quantized:
  """The nearest of 8 bits; the largest weight of each output has the largest.

  Args:
    weight_EIO: any floats.
    dtype: int8 or a float8.
    axes: those along which scales differ; (0,) for one of each expert.

  Raises:
    errors.UserError: qwix is not installed.
  """
  values_EIO, scales_E1O = low_precision.quantize(
    jnp.asarray(weight_EIO), dtype, axes=axes
  )
  return Quantized(values_EIO=values_EIO, scales_E1O=scales_E1O)


def in_8_bits(weights: Any, *, form: low_precision.Form | None) -> Any:
  """Weights as a train step multiplies by them; None without a form."""
  if form is None:
    return None
  return jax.tree.map(
    lambda w: quantize(w, form.values, axes=(0,)).astype(w.dtype),
    jax.lax.stop_gradient(weights),
  )


@jax.named_scope("gather_weights")
def gathered(
  weights: Any, *, frame: mesh.Frame, form: low_precision.Form | None
) -> Any:
  """`in_8_bits` of `frame.whole(weights)`, of which 8 bits travel.

  Args:
    weights: the parts on this device, in a map over devices.
    frame: of that map.
    form: of the products.
  """
  if form is None:
    return None

  def one(weight_EIO, dims):
    axes = (*frame.gathered(dims[1]), *frame.gathered(dims[2]))
    largest_E11 = jnp.max(jnp.abs(weight_EIO), axis=(1, 2), keepdims=True)
    largest_E11 = jax.lax.pmax(largest_E11, axes) if axes else largest_E11
    # Beside the largest of the whole, a part is rounded as the whole is.
    beside_E1O = jnp.broadcast_to(largest_E11, weight_EIO[:, :1].shape)
    low = quantize(
      jnp.concatenate([weight_EIO, beside_E1O], 1), form.values, axes=(0,)
    )
    return Quantized(
      values_EIO=frame.whole_of(low.values_EIO[:, :-1], dims),
      scales_E1O=frame.whole_of(low.scales_E1O, (dims[0], None, None)),
      dtype=str(weight_EIO.dtype),
    )

  return jax.tree.map(one, jax.lax.stop_gradient(weights), frame.names)
