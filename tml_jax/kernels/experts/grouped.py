"""Routed experts by grouped matmul: the form for TPUs.

For: `experts.py`. Not for: the exchange between devices (`dispatch.py`). Start
at `grouped`; the plain form it must equal is `experts.reference`.

Choices are sorted by expert. A buffer of P rows takes the first P of them. What
does not fit, on a device whose experts are asked for more than most, takes
further turns of a loop that is empty otherwise: an uneven load costs time, no
token is dropped, and memory does not depend on the load. The products are jax's
megablox kernels, which skip tiles without rows. Their transposes are written
out: XLA's own gradient of a ragged product with respect to the weights is a
dense product over all experts. `trunk.remat` may keep "hidden", gate and up.

Rows move by gathers in both directions. From tokens to the buffer that is
plain. Back, a buffer in order of tokens is added up within each token (at most
k rows, so k - 1 shifted adds), and each token takes its first row: a scatter
would write row by row. Choices are sorted as one integer of expert and number:
XLA takes 22 s to compile a stable sort of three arrays of 786,432 for a TPU and
6 s for that.

The share of a choice multiplies the row before the last product, where a row is
narrower; its gradient then needs no output of the expert.

Legend: N tokens, k choices of a token, E experts, D d_model, F expert_d_ff,
P rows of the buffer, Q = N * k choices.
"""

import dataclasses
import functools

import flax
import jax
import jax.numpy as jnp
from jax import ad_checkpoint

# The package hides the module behind a function of its name.
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

from tml_jax.kernels import low_precision
from tml_jax.kernels.experts import quantized

# Rows, contraction and columns of a kernel's tile: at d_model 4096 and
# expert_d_ff 2048 above the ridge of v5p (285 FLOP a byte) and within VMEM.
TILE = (512, 1024, 1024)
# The gradient of weights also holds float32 sums, read and written: with the
# tile above it takes 24 MiB of a kernel's 16.
GRADIENT_TILE = (1024, 512)
# Where the turns behind the first one run, in the names of operations.
OVERFLOW = "overflow"
_FURTHER = 8  # their buffers are this much smaller


@flax.struct.dataclass
class Plan:
  """Choices as numbers, expert first: expert << bits | token * k + i."""

  key_Nk: jax.Array
  sorted_Q: jax.Array  # those of no expert last
  end_E: jax.Array  # place in `sorted_Q` behind the last choice of an expert


@flax.struct.dataclass
class Turn:
  """The part of a plan that lies in a buffer."""

  size_E: jax.Array
  token_P: jax.Array  # N where the row is empty
  slot_P: jax.Array  # which of its token's choices the row is
  row_P: jax.Array  # row of the buffer, in order of tokens
  owner_P: jax.Array  # its token; N behind the last
  first_N: jax.Array  # where a token's rows begin in that order
  count_N: jax.Array


@dataclasses.dataclass(frozen=True)
class Static:
  """Sizes, and how kernels run.

  Attributes:
    rows: P of the first turn.
    further: P of the others.
    tile: rows of a kernel's tile, which divide both.
    interpret: without a TPU.
    form: of products in 8 bits.
  """

  rows: int
  further: int
  tile: int
  interpret: bool
  form: low_precision.Form | None


def grouped(
  x_ND: jax.Array,
  *,
  weights,
  experts_Nk: jax.Array,
  shares_Nk: jax.Array,
  rows: int,
  form: low_precision.Form | None = None,
  low=None,
  interpret: bool = False,
) -> jax.Array:
  """Sum over a token's choices of share * expert(token), [N, D].

  Args:
    x_ND: tokens.
    weights: `experts.Weights` in the tokens' dtype.
    experts_Nk: chosen experts; E stands for none.
    shares_Nk: float32.
    rows: P of the first turn, rounded up to whole tiles.
    form: of products in 8 bits, forward and to the gradients of tokens.
    low: the weights in them; made here where they are not given.
    interpret: runs the kernels without a TPU, for tests.
  """
  tile = min(TILE[0], 8 * -(-rows // 8))
  static = Static(
    rows=tile * -(-rows // tile),
    further=tile * -(-rows // (_FURTHER * tile)),
    tile=tile,
    interpret=interpret,
    form=form,
  )
  plan = _plan(experts_Nk, num_experts=weights.gate_EDF.shape[0], static=static)
  plan = ad_checkpoint.checkpoint_name(plan, "plan")
  first = _turn(plan, 0, rows=static.rows)
  first = ad_checkpoint.checkpoint_name(first, "plan")
  if low is None:
    low = quantized.in_8_bits(weights, form=form)
  return _grouped(static, x_ND, weights, low, shares_Nk, plan, first)


def _bits(choices: int) -> int:
  return max(1, (choices - 1).bit_length())


@jax.named_scope("plan")
def _plan(experts_Nk, *, num_experts: int, static: Static) -> Plan:
  choices = experts_Nk.size
  bits = _bits(choices)
  if (num_experts + 1) << bits > 2**31:
    raise ValueError(
      f"{choices} choices of {num_experts} experts on one device do not fit an"
      " int32: use more devices or smaller microbatches"
    )
  index_Nk = jnp.arange(choices, dtype=jnp.int32).reshape(experts_Nk.shape)
  key_Nk = (experts_Nk.astype(jnp.int32) << bits) | index_Nk
  count_E = jnp.sum(
    experts_Nk.reshape(-1, 1) == jnp.arange(num_experts),
    axis=0,
    dtype=jnp.int32,
  )
  sorted_Q = jax.lax.sort(key_Nk.reshape(-1), is_stable=False)
  behind = max(0, static.rows - choices) + static.further
  return Plan(
    key_Nk=key_Nk,
    sorted_Q=jnp.pad(sorted_Q, (0, behind), constant_values=2**31 - 1),
    end_E=jnp.cumsum(count_E),
  )


@jax.named_scope("turn")
def _turn(plan: Plan, start, *, rows: int) -> Turn:
  """Places `start` up to `start + rows` of the sorted choices."""
  tokens, per_token = plan.key_Nk.shape
  bits = _bits(plan.key_Nk.size)
  bounds_E = jnp.clip(plan.end_E - start, 0, rows)
  filled = bounds_E[-1]
  filled_P = jnp.arange(rows) < filled
  key_P = jax.lax.dynamic_slice_in_dim(plan.sorted_Q, start, rows)
  choice_P = key_P & ((1 << bits) - 1)
  choice_P = jnp.where(filled_P, choice_P, tokens * per_token)
  by_token_P, row_P = jax.lax.sort(
    (choice_P, jnp.arange(rows, dtype=jnp.int32)), num_keys=1, is_stable=False
  )
  last = plan.sorted_Q[start + jnp.maximum(filled, 1) - 1]
  inside_Nk = (plan.key_Nk >= plan.sorted_Q[start]) & (plan.key_Nk <= last)
  inside_Nk &= filled > 0
  count_N = jnp.sum(inside_Nk, axis=1, dtype=jnp.int32)
  return Turn(
    size_E=jnp.diff(bounds_E, prepend=0),
    token_P=choice_P // per_token,
    slot_P=choice_P % per_token,
    row_P=row_P,
    owner_P=by_token_P // per_token,
    first_N=jnp.cumsum(count_N) - count_N,
    count_N=count_N,
  )


@jax.named_scope("to_rows")
def _rows(array: jax.Array, index: jax.Array) -> jax.Array:
  """Rows of `array`; an index behind the last takes the last.

  Rows of no expert are in no group of the kernels and owned by no token, so
  that what they hold is never read. Zeros would be another pass over memory.
  """
  index = jnp.minimum(index, array.shape[0] - 1)
  return array.at[index].get(mode="promise_in_bounds")


@jax.named_scope("to_tokens")
def _to_tokens(rows_PD: jax.Array, turn: Turn, *, per_token: int) -> jax.Array:
  """Sum of each token's rows, [N, D]; rows without a token are not read."""
  rows, ahead = rows_PD.shape[0], per_token - 1
  # Rows in order of tokens, then some that stay zero, for tokens without any.
  padded = rows + 8
  padding = (0, padded + ahead - rows)
  owner = jnp.pad(turn.owner_P, padding, constant_values=-1)
  in_order = _rows(rows_PD, jnp.pad(turn.row_P, padding))

  def shifted(array, by):
    return jax.lax.slice_in_dim(array, by, by + padded)

  total = shifted(in_order, 0).astype(jnp.float32)
  for by in range(1, per_token):
    same = shifted(owner, by) == shifted(owner, 0)
    total += jnp.where(same[:, None], shifted(in_order, by), 0)
  total = jnp.where(shifted(owner, 0)[:, None] >= 0, total, 0)
  first_N = jnp.where(turn.count_N > 0, turn.first_N, rows)
  return _rows(total.astype(rows_PD.dtype), first_N)


@jax.named_scope("round")
def _rounded(array, *, static: Static, is_gradient: bool = False):
  """As products take it: in 8 bits where there is a form."""
  form = static.form
  if form is None:
    return array
  if is_gradient:
    return low_precision.rounded(array, form.gradients)
  return low_precision.rounded(array, form.values, calibration=form.calibration)


@jax.named_scope("product")
def _product(rows, weights, turn, *, static: Static, transposed=False):
  if quantized.is_quantized(weights):
    multiply = weights.back if transposed else weights.product
    return multiply(rows, size_E=turn.size_E)
  width = weights.shape[1] if transposed else weights.shape[2]
  return gmm(
    rows,
    weights,
    turn.size_E,
    preferred_element_type=rows.dtype,
    tiling=(static.tile, min(TILE[1], rows.shape[1]), min(TILE[2], width)),
    transpose_rhs=transposed,
    interpret=static.interpret,
  )


@jax.named_scope("weight_gradient")
def _weight_gradient(rows, d_rows, turn, *, static: Static):
  """rows^T @ d_rows of each expert, summed in float32."""
  return tgmm(
    rows.swapaxes(0, 1),
    d_rows,
    turn.size_E,
    preferred_element_type=rows.dtype,
    tiling=(
      static.tile,
      min(GRADIENT_TILE[0], rows.shape[1]),
      min(GRADIENT_TILE[1], d_rows.shape[1]),
    ),
    interpret=static.interpret,
  )


@jax.named_scope("share")
def _share(turn, shares_Nk) -> jax.Array:
  """Share of each row, [P, 1]."""
  mine = turn.slot_P[:, None] == jnp.arange(shares_Nk.shape[1])
  share_Pk = _rows(shares_Nk, turn.token_P)
  return jnp.sum(jnp.where(mine, share_Pk, 0), axis=1, keepdims=True)


def _taken(x_ND, turn: Turn):
  """Rows of the buffer, of each array of `x_ND`."""
  return jax.tree.map(lambda each: _rows(each, turn.token_P), x_ND)


def _hidden(turn, x_ND, weights, *, static):
  """Gate and up of the buffer's rows, rounded while they are few: tokens."""
  x_PD = _taken(_rounded(x_ND, static=static), turn)
  return tuple(
    _product(x_PD, each, turn, static=static)
    for each in (weights.gate_EDF, weights.up_EDF)
  )


def _output(turn, hidden, weights, shares_Nk, *, static) -> jax.Array:
  """[N, D] of one buffer."""
  gate, up = hidden
  scaled = jax.nn.silu(gate) * up * _share(turn, shares_Nk).astype(gate.dtype)
  scaled = _rounded(scaled, static=static)
  out_PD = _product(scaled, weights.down_EFD, turn, static=static)
  return _to_tokens(out_PD, turn, per_token=shares_Nk.shape[1])


def _gradients(turn, dy_ND, x_ND, weights, shares_Nk, hidden, *, static):
  """Of tokens, weights and shares, through one buffer."""
  per_token = shares_Nk.shape[1]
  product = functools.partial(_product, turn=turn, static=static)
  weight_gradient = functools.partial(
    _weight_gradient, turn=turn, static=static
  )
  x_PD, dy_PD = _rows(x_ND, turn.token_P), _rows(dy_ND, turn.token_P)
  activation, pull = jax.vjp(lambda g, u: jax.nn.silu(g) * u, *hidden)
  share = _share(turn, shares_Nk).astype(activation.dtype)
  round_ = functools.partial(_rounded, static=static, is_gradient=True)
  low_dy_PD = dy_PD if static.form is None else _taken(round_(dy_ND), turn)
  d_hidden = product(low_dy_PD, weights.down_EFD, transposed=True)
  d_share_P = jnp.sum(
    activation.astype(jnp.float32) * d_hidden, axis=1, dtype=jnp.float32
  )
  d_gate, d_up = pull(d_hidden * share)
  dx_PD = product(round_(d_gate), weights.gate_EDF, transposed=True)
  dx_PD += product(round_(d_up), weights.up_EDF, transposed=True)
  grads = type(weights)(
    gate_EDF=weight_gradient(x_PD, d_gate),
    up_EDF=weight_gradient(x_PD, d_up),
    down_EFD=weight_gradient(activation * share, dy_PD),
  )
  mine = turn.slot_P[:, None] == jnp.arange(per_token)
  d_share_Pk = jnp.where(mine, d_share_P[:, None], 0)
  return (
    _to_tokens(dx_PD, turn, per_token=per_token),
    grads,
    _to_tokens(d_share_Pk, turn, per_token=per_token),
  )


def _further(plan: Plan, one_turn, first, *, static: Static):
  """Adds `one_turn` of everything that the first buffer did not take."""
  if static.rows >= plan.key_Nk.size:
    return first

  def add(total, part):
    total_f32 = total.astype(jnp.float32) + part.astype(jnp.float32)
    return total_f32.astype(total.dtype)

  def body(index, total):
    start = static.rows + index * static.further
    turn = _turn(plan, start, rows=static.further)
    return jax.tree.map(add, total, one_turn(turn))

  left = jnp.maximum(plan.end_E[-1] - static.rows, 0)
  with jax.named_scope(OVERFLOW):
    return jax.lax.fori_loop(0, -(-left // static.further), body, first)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _grouped(static, x_ND, weights, low, shares_Nk, plan, first):
  return _grouped_forward(static, x_ND, weights, low, shares_Nk, plan, first)[0]


def _grouped_forward(static, x_ND, weights, low, shares_Nk, plan, first):
  weights = weights if low is None else low
  output = functools.partial(
    _output, weights=weights, shares_Nk=shares_Nk, static=static
  )
  hidden = _hidden(first, x_ND, weights, static=static)
  hidden = ad_checkpoint.checkpoint_name(hidden, "hidden")
  y_ND = _further(
    plan,
    lambda turn: output(turn, _hidden(turn, x_ND, weights, static=static)),
    output(first, hidden),
    static=static,
  )
  return y_ND, (x_ND, weights, shares_Nk, plan, first, hidden)


def _grouped_backward(static, saved, dy_ND):
  x_ND, weights, shares_Nk, plan, first, hidden = saved

  def one_turn(turn, hidden):
    return _gradients(
      turn, dy_ND, x_ND, weights, shares_Nk, hidden, static=static
    )

  dx_ND, grads, d_shares_Nk = _further(
    plan,
    lambda turn: one_turn(turn, _hidden(turn, x_ND, weights, static=static)),
    one_turn(first, hidden),
    static=static,
  )
  return dx_ND, grads, None, d_shares_Nk.astype(shares_Nk.dtype), None, None


_grouped.defvjp(_grouped_forward, _grouped_backward)
