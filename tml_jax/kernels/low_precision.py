"""Matrix products of a train step in 8 bits.

For: `product`, of rows with a weight; `models/` ask for it where a rule of
`train.low_precision` names the weight. Not for: the products of experts, which
take `FORMS` and `rounded` from here (`kernels/experts/`), nor what a session
reads (`sample.expert_weights`). Start at `product`.

A row has a scale, and so has an output of a weight; both multiply the result.
In the backward pass the scale of the outputs goes to their gradient first,
which is then rounded row by row: so the 8 bits of the weight serve again. The
gradient of a weight is a product in the rows' own dtype.

The fixed form takes no maximum of the rows: they are clipped to 224, which is
half of what e4m3 holds (the calibration that MaxText's `fp8_full` has).

Legend: I inputs, O outputs; "..." any dims of rows.
"""

import dataclasses
import functools

import flax
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from tml_jax import errors
from tml_jax.config import Precision


@dataclasses.dataclass(frozen=True)
class Form:
  """How a product is rounded.

  Attributes:
    values: dtype of rows and weights.
    gradients: dtype of what comes back.
    calibration: of rows, in qwix's words.
  """

  values: str
  gradients: str
  calibration: str = "absmax"


_FP8 = Form(values="float8_e4m3fn", gradients="float8_e5m2")
FORMS = {
  Precision.INT8: Form(values="int8", gradients="int8"),
  Precision.FP8: _FP8,
  Precision.FP8_FIXED: dataclasses.replace(_FP8, calibration="fixed,-224,224"),
}


def quantize(
  array: jax.Array,
  dtype: DTypeLike,
  *,
  axes: tuple[int, ...],
  calibration: str = "absmax",
) -> tuple[jax.Array, jax.Array]:
  """8 bits, and float32 scales: the array is about their product.

  Args:
    array: any floats.
    dtype: int8 or a float8.
    axes: those along which scales differ; the scales are 1 wide in the others.
    calibration: qwix's method.

  Raises:
    errors.UserError: qwix is not installed.
  """
  try:
    import qwix
  except ImportError as error:
    raise errors.UserError(
      "8 bits (train.low_precision, sample.expert_weights) need qwix: pip"
      " install 'tml_jax[tpu]'"
    ) from error
  made = qwix.quantize(
    array.astype(jnp.float32),
    dtype,
    channelwise_axes=axes,
    calibration_method=calibration,
  )
  return made.qvalue, made.scale


@flax.struct.dataclass
class Rounded:
  """Rows in 8 bits, which are about values * scales.

  Attributes:
    values: int8 or a float8, [..., I].
    scales: float32, [..., 1].
    dtype: that the rows had.
  """

  values: jax.Array
  scales: jax.Array
  dtype: str = flax.struct.field(pytree_node=False)


def rounded(
  x: jax.Array, dtype: DTypeLike, *, calibration: str = "absmax"
) -> Rounded:
  """Rows [..., I] in 8 bits."""
  return Rounded(*rows(x, dtype, calibration=calibration), dtype=str(x.dtype))


def rows(
  x: jax.Array, dtype: DTypeLike, *, calibration: str = "absmax"
) -> tuple[jax.Array, jax.Array]:
  """8 bits of [..., I], and scales [..., 1]."""
  return quantize(
    x, dtype, axes=tuple(range(x.ndim - 1)), calibration=calibration
  )


def accumulator(dtype: DTypeLike) -> DTypeLike:
  """What products of 8 bits are summed in."""
  return jnp.int32 if jnp.issubdtype(dtype, jnp.integer) else jnp.float32


def product(x: jax.Array, weight_IO: jax.Array, *, form: Form) -> jax.Array:
  """x @ weight in 8 bits, [..., O] in the dtype of x [..., I]."""
  return _product(form, x, weight_IO)


def _dot(left: jax.Array, right: jax.Array, *, contract: int) -> jax.Array:
  """Over the last dim of `left` and dim `contract` of `right`, float32."""
  dims = (((left.ndim - 1,), (contract,)), ((), ()))
  made = jax.lax.dot_general(
    left, right, dims, preferred_element_type=accumulator(left.dtype)
  )
  return made.astype(jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(form: Form, x, weight_IO):
  return _forward(form, x, weight_IO)[0]


def _forward(form: Form, x, weight_IO):
  row_values, row_scale = rows(x, form.values, calibration=form.calibration)
  values_IO, scale_1O = quantize(weight_IO, form.values, axes=(1,))
  y = _dot(row_values, values_IO, contract=0) * row_scale * scale_1O[0]
  like = jnp.zeros((), weight_IO.dtype)
  return y.astype(x.dtype), (x, values_IO, scale_1O, like)


def _backward(form: Form, saved, dy):
  x, values_IO, scale_1O, like = saved
  dy_values, dy_scale = rows(dy * scale_1O[0], form.gradients)
  dx = _dot(dy_values, values_IO, contract=1) * dy_scale
  over = tuple(range(x.ndim - 1))
  d_weight_IO = jax.lax.dot_general(
    x, dy, ((over, over), ((), ())), preferred_element_type=jnp.float32
  )
  return dx.astype(x.dtype), d_weight_IO.astype(like.dtype)


_product.defvjp(_forward, _backward)
