"""Which products of a train step are multiplied in 8 bits.

For: the rules of `train.low_precision`. Not for: the arithmetic
(`kernels/low_precision.py`). Start at `form_of`.

A product is named by its module and what it multiplies by:
`trunk/layer_01/attention/query`, key, value, output; `trunk/layer_00/mlp/gate`,
up, down of a dense layer; `trunk/layer_01/mlp/experts` and `shared` of a
mixture. Layers in a scan have `trunk/blocks/...`; a rule that names nothing is
told the names there are. Routers, norms, convolutions, the flow head,
embeddings and logits have no such name and stay in `train.dtype`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tml_jax import errors
from tml_jax.config import Precision
from tml_jax.kernels import low_precision

Rules = Sequence[tuple[str, Precision]]

ATTENTION = ("query", "key", "value", "output")
DENSE = ("gate", "up", "down")
EXPERTS, SHARED = "experts", "shared"


def form_of(module: nn.Module, product: str) -> low_precision.Form | None:
  """Of a product of a module with an `execution`; None: in its own dtype."""
  execution = module.execution
  name = "/".join([*execution.within, *module.path, product])
  for regex, precision in execution.precision:
    if re.fullmatch(regex, name):
      return low_precision.FORMS[precision]
  return None


def products(
  params: Mapping[str, Any], *, path: tuple[str, ...] = ()
) -> Iterator[str]:
  """Names of all products that a rule can name, in order.

  Args:
    params: of a module, arrays or whatever stands for them.
    path: of the module.
  """
  names: tuple[str, ...] = ()
  if {"router", *DENSE} <= params.keys():
    names = (EXPERTS, SHARED)
  elif {*ATTENTION, "query_norm"} <= params.keys():
    names = ATTENTION
  elif {*DENSE, "scale"} <= params.keys():
    names = DENSE
  yield from ("/".join([*path, name]) for name in names)
  for name, child in params.items():
    if isinstance(child, Mapping):
      yield from products(child, path=(*path, name))


def check(rules: Rules, *, params: Mapping[str, Any]) -> None:
  """That every rule names a product of this model.

  Raises:
    errors.UserError: one names none.
  """
  names = list(products(params)) if rules else []
  for regex, precision in rules:
    if not any(re.fullmatch(regex, name) for name in names):
      raise errors.UserError(
        f"train.low_precision: {regex}={precision} names no product of this"
        f" model, which has {', '.join(names)}"
      )


def dtype(precision: Precision) -> str:
  """What is multiplied, in JAX's words."""
  return low_precision.FORMS[precision].values


def times(
  x: jax.Array,
  weight: jax.Array,
  *,
  form: low_precision.Form | None,
  inputs: int = 1,
) -> jax.Array:
  """x times a weight whose first `inputs` dims are summed over.

  Args:
    x: [B, T, ...], as many last dims.
    weight: float32.
    form: of the product; None: in the dtype of x.
    inputs: how many.
  """
  if form is None:
    return jnp.tensordot(x, weight.astype(x.dtype), inputs)
  batch, length = x.shape[:2]
  rows = x.reshape(batch, length, -1)
  weight_IO = weight.reshape(rows.shape[-1], -1)
  y = low_precision.product(rows, weight_IO, form=form)
  return y.reshape(batch, length, *weight.shape[inputs:])
