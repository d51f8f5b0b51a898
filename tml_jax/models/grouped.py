"""Routed experts by grouped matmul: the form for TPUs.

For: `experts.py`. Not for: the exchange between devices (`dispatch.py`). Start
at `grouped`; the plain form it must equal is `experts.reference`.

Choices are sorted by expert. A buffer of P rows takes the first P of them, then
the next P, until none is left: an uneven load costs another turn of the loop,
never a token, and memory does not depend on the load. The products are jax's
megablox kernels, which skip tiles without rows. Their transposes are written
out: XLA's own gradient of a ragged product with respect to the weights is a
dense product over all experts.

Rows move by gathers in both directions. From tokens to the buffer that is
plain. Back, a buffer in order of tokens is added up within each token (at most
k rows, so k - 1 shifted adds), and each token takes its first row: a scatter
would write row by row. Numbers that belong to a choice move by sorting.

The share of a choice multiplies the row before the last product, where a row is
narrower; its gradient then needs no output of the expert.

Legend: N tokens, k choices of a token, E experts, D d_model, F expert_d_ff,
P rows of the buffer, Q = N * k choices.
"""

import functools

import flax
import jax
import jax.numpy as jnp

# The package hides the module behind a function of its name.
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

# Rows, contraction and columns of a kernel's tile: at d_model 4096 and
# expert_d_ff 2048 above the ridge of v5p (285 FLOP a byte) and within VMEM.
TILE = (512, 1024, 1024)
# The gradient of weights also holds float32 sums, read and written: with the
# tile above it takes 24 MiB of a kernel's 16.
GRADIENT_TILE = (1024, 512)


@flax.struct.dataclass
class Plan:
  """All choices in the order of their experts, those of no expert last."""

  order_Q: jax.Array  # choice (token * k + i) at each place
  share_Q: jax.Array  # float32, its share
  place_Nk: jax.Array  # inverse of `order_Q`
  end_E: jax.Array  # place behind the last choice of an expert


@flax.struct.dataclass
class Turn:
  """The part of a plan that lies in the buffer."""

  start: jax.Array
  size_E: jax.Array
  token_P: jax.Array  # N where the row is empty
  share_P: jax.Array
  row_P: jax.Array  # row of the buffer, in order of tokens
  owner_P: jax.Array  # its token; N behind the last
  first_N: jax.Array  # where a token's rows begin in that order
  count_N: jax.Array


def grouped(
  x_ND: jax.Array,
  *,
  weights,
  experts_Nk: jax.Array,
  shares_Nk: jax.Array,
  rows: int,
  interpret: bool = False,
) -> jax.Array:
  """Sum over a token's choices of share * expert(token), [N, D].

  Args:
    x_ND: tokens.
    weights: `experts.Weights` in the tokens' dtype.
    experts_Nk: chosen experts; E stands for none.
    shares_Nk: float32.
    rows: P, rounded up to whole tiles.
    interpret: runs the kernels without a TPU, for tests.
  """
  tile = min(TILE[0], 8 * -(-rows // 8))
  rows = tile * -(-rows // tile)
  num_experts = weights.gate_EDF.shape[0]
  plan = _plan(
    experts_Nk,
    jax.lax.stop_gradient(shares_Nk),
    num_experts=num_experts,
    rows=rows,
  )
  return _grouped((rows, tile, interpret), x_ND, weights, shares_Nk, plan)


@jax.named_scope("plan")
def _plan(experts_Nk, shares_Nk, *, num_experts: int, rows: int) -> Plan:
  flat_Q = experts_Nk.reshape(-1)
  index_Q = jnp.arange(flat_Q.size, dtype=jnp.int32)
  _, order_Q, share_Q = jax.lax.sort(
    (flat_Q, index_Q, shares_Nk.astype(jnp.float32).reshape(-1)),
    num_keys=1,
    is_stable=True,
  )
  _, place_Q = jax.lax.sort((order_Q, index_Q), num_keys=1, is_stable=False)
  count_E = jnp.sum(
    flat_Q[:, None] == jnp.arange(num_experts), axis=0, dtype=jnp.int32
  )
  padding = (0, -flat_Q.size % rows)
  return Plan(
    order_Q=jnp.pad(order_Q, padding),
    share_Q=jnp.pad(share_Q, padding),
    place_Nk=place_Q.reshape(experts_Nk.shape),
    end_E=jnp.cumsum(count_E),
  )


@jax.named_scope("turn")
def _turn(plan: Plan, index, *, rows: int) -> Turn:
  tokens, per_token = plan.place_Nk.shape
  start = index * rows
  bounds_E = jnp.clip(plan.end_E - start, 0, rows)
  size_E = jnp.diff(bounds_E, prepend=0)
  choice_P = jax.lax.dynamic_slice_in_dim(plan.order_Q, start, rows)
  filled_P = jnp.arange(rows) < bounds_E[-1]
  choice_P = jnp.where(filled_P, choice_P, tokens * per_token)
  by_token_P, row_P = jax.lax.sort(
    (choice_P, jnp.arange(rows, dtype=jnp.int32)), num_keys=1, is_stable=False
  )
  inside_Nk = plan.place_Nk >= start
  inside_Nk &= plan.place_Nk < start + bounds_E[-1]
  count_N = jnp.sum(inside_Nk, axis=1, dtype=jnp.int32)
  return Turn(
    start=start,
    size_E=size_E,
    token_P=choice_P // per_token,
    share_P=jax.lax.dynamic_slice_in_dim(plan.share_Q, start, rows),
    row_P=row_P,
    owner_P=by_token_P // per_token,
    first_N=jnp.cumsum(count_N) - count_N,
    count_N=count_N,
  )


@jax.named_scope("to_rows")
def _rows(array: jax.Array, index: jax.Array) -> jax.Array:
  """Rows of `array`; zeros where the index is out of range."""
  return jnp.take(array, index, axis=0, mode="fill", fill_value=0)


@jax.named_scope("to_tokens")
def _to_tokens(rows_PD: jax.Array, turn: Turn, *, per_token: int) -> jax.Array:
  """Sum of each token's rows, [N, D]; rows without a token are not read."""
  rows, tokens = rows_PD.shape[0], turn.first_N.shape[0]
  filled_P = turn.owner_P < tokens
  sorted_PD = jnp.where(filled_P[:, None], rows_PD[turn.row_P], 0)
  padded = jnp.pad(sorted_PD, ((0, per_token - 1), (0, 0)))
  owners = jnp.pad(turn.owner_P, (0, per_token - 1), constant_values=-1)
  total = sorted_PD.astype(jnp.float32)
  for shift in range(1, per_token):
    same = owners[shift : shift + rows] == turn.owner_P
    total += jnp.where(same[:, None], padded[shift : shift + rows], 0)
  first_N = jnp.where(turn.count_N > 0, turn.first_N, rows)
  return _rows(total.astype(rows_PD.dtype), first_N)


@jax.named_scope("product")
def _product(rows, weights, turn, *, static, transposed=False):
  _, tile, interpret = static
  width = weights.shape[1] if transposed else weights.shape[2]
  tiling = (tile, min(TILE[1], rows.shape[1]), min(TILE[2], width))
  return gmm(
    rows,
    weights,
    turn.size_E,
    preferred_element_type=rows.dtype,
    tiling=tiling,
    transpose_rhs=transposed,
    interpret=interpret,
  )


@jax.named_scope("weight_gradient")
def _weight_gradient(rows, d_rows, turn, total, *, static):
  """`total` plus rows^T @ d_rows of each expert, float32."""
  _, tile, interpret = static
  tiling = (
    tile,
    min(GRADIENT_TILE[0], rows.shape[1]),
    min(GRADIENT_TILE[1], d_rows.shape[1]),
  )
  return tgmm(
    rows.swapaxes(0, 1),
    d_rows,
    turn.size_E,
    preferred_element_type=jnp.float32,
    tiling=tiling,
    existing_out=total,
    interpret=interpret,
  )


def _turns(plan: Plan, *, rows: int) -> jax.Array:
  return -(-plan.end_E[-1] // rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _grouped(static, x_ND, weights, shares_Nk, plan):
  rows = static[0]

  def body(index, y_ND):
    turn = _turn(plan, index, rows=rows)
    x_PD = _rows(x_ND, turn.token_P)
    gate = _product(x_PD, weights.gate_EDF, turn, static=static)
    up = _product(x_PD, weights.up_EDF, turn, static=static)
    hidden = jax.nn.silu(gate) * up * turn.share_P[:, None].astype(gate.dtype)
    out_PD = _product(hidden, weights.down_EFD, turn, static=static)
    return y_ND + _to_tokens(out_PD, turn, per_token=shares_Nk.shape[1])

  return jax.lax.fori_loop(
    0, _turns(plan, rows=rows), body, jnp.zeros_like(x_ND)
  )


def _grouped_forward(static, x_ND, weights, shares_Nk, plan):
  y_ND = _grouped(static, x_ND, weights, shares_Nk, plan)
  return y_ND, (x_ND, weights, shares_Nk, plan)


def _grouped_backward(static, saved, dy_ND):
  x_ND, weights, shares_Nk, plan = saved
  rows, per_token = static[0], shares_Nk.shape[1]

  def body(index, carry):
    dx_ND, grads, d_share_Q = carry
    turn = _turn(plan, index, rows=rows)
    product = functools.partial(_product, turn=turn, static=static)
    weight_gradient = functools.partial(_weight_gradient, static=static)
    x_PD, dy_PD = _rows(x_ND, turn.token_P), _rows(dy_ND, turn.token_P)
    with jax.named_scope("recomputed"):
      gate = product(x_PD, weights.gate_EDF)
      up = product(x_PD, weights.up_EDF)
    activation, pull = jax.vjp(lambda g, u: jax.nn.silu(g) * u, gate, up)
    share = turn.share_P[:, None].astype(gate.dtype)
    d_hidden = product(dy_PD, weights.down_EFD, transposed=True)
    d_share_P = jnp.sum(
      activation.astype(jnp.float32) * d_hidden, axis=1, dtype=jnp.float32
    )
    filled_P = turn.token_P < x_ND.shape[0]
    d_share_Q = jax.lax.dynamic_update_slice_in_dim(
      d_share_Q, jnp.where(filled_P, d_share_P, 0), turn.start, axis=0
    )
    d_gate, d_up = pull(d_hidden * share)
    dx_PD = product(d_gate, weights.gate_EDF, transposed=True)
    dx_PD += product(d_up, weights.up_EDF, transposed=True)
    grads = type(weights)(
      gate_EDF=weight_gradient(x_PD, d_gate, turn, grads.gate_EDF),
      up_EDF=weight_gradient(x_PD, d_up, turn, grads.up_EDF),
      down_EFD=weight_gradient(activation * share, dy_PD, turn, grads.down_EFD),
    )
    dx_ND += _to_tokens(dx_PD, turn, per_token=per_token)
    return dx_ND, grads, d_share_Q

  zeros = jax.tree.map(lambda w: jnp.zeros(w.shape, jnp.float32), weights)
  start = (jnp.zeros_like(x_ND), zeros, jnp.zeros_like(plan.share_Q))
  dx_ND, grads, d_share_Q = jax.lax.fori_loop(
    0, _turns(plan, rows=rows), body, start
  )
  grads = jax.tree.map(lambda g, w: g.astype(w.dtype), grads, weights)
  choices = shares_Nk.size
  _, d_shares = jax.lax.sort(
    (plan.order_Q[:choices], d_share_Q[:choices]), num_keys=1, is_stable=False
  )
  d_shares = d_shares.reshape(shares_Nk.shape).astype(shares_Nk.dtype)
  return dx_ND, grads, d_shares, None


_grouped.defvjp(_grouped_forward, _grouped_backward)
