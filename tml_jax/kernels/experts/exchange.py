"""Tokens travel to the devices of their experts: all-to-all, by hand.

For: `experts.py`, where experts lie on many devices. Not for: small expert
groups, where `dispatch.py` gathers all tokens. Start at `all_to_all`.

A token goes once to each device that holds an expert of its, however many of
them are there, and takes its choices along; what comes back is the sum over the
experts of that device. So with k choices over G devices G (1 - (1 - 1/G)^k)
rows travel (4.4 for 6 over 8), not k, and a device never gets more rows than
the all-gather would give it.

Nothing is dropped and no buffer is made for the worst case: a device has S
slots for every other device, and as many rounds are run as the fullest pair of
devices needs. Their number is agreed among all devices.

Rows move by gathers in both directions: each token knows its slots and each
slot its token. An exchange with the sizes swapped is its own transpose, so the
gradient runs the same rounds again and sends x and dy where forward sent x.

Legend: N tokens of a device, k choices of a token, E experts of a device, D
d_model, G devices of an expert group, S slots of a pair of devices, R = G * S
rows of a round.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp

from tml_jax.kernels import mesh

# ------------------------------------------------- rows between devices


def padded(rows_RD, *, sent_G, received_G, axes):
  """Every slot travels, used or not; runs anywhere.

  Args:
    rows_RD: S rows for each device of `axes`, zeros in slots not in use.
    sent_G: used slots for each device.
    received_G: the same of what each device sends here.
    axes: the mesh axes of the expert group.

  Returns:
    S rows from each device, zeros in slots not in use.
  """
  del sent_G, received_G
  return jax.lax.all_to_all(rows_RD, axes, 0, 0, tiled=True)


def ragged(rows_RD, *, sent_G, received_G, axes):
  """`padded` for TPUs: only slots in use travel."""
  devices = sent_G.shape[0]
  slots = rows_RD.shape[0] // devices
  index = jax.lax.axis_index(axes)
  return jax.lax.ragged_all_to_all(
    rows_RD,
    jnp.zeros_like(rows_RD),
    jnp.arange(devices, dtype=jnp.int32) * slots,
    sent_G,
    jnp.full((devices,), index * slots, jnp.int32),
    received_G,
    axis_name=axes,
  )


# ------------------------------------------------------- who goes where


@flax.struct.dataclass
class Plan:
  """Slots of all rounds, from the side of the sender."""

  token_GN: jax.Array  # tokens for each device in order, then N
  target_Nk: jax.Array  # device of a choice
  place_Nk: jax.Array  # place of the token in that device's list
  first_Nk: jax.Array  # whether no earlier choice has the same device
  send_G: jax.Array  # tokens for each device
  receive_G: jax.Array  # tokens from each device
  rounds: jax.Array


@flax.struct.dataclass
class Round:
  token_R: jax.Array  # token of a slot, N if not in use
  slot_Nk: jax.Array  # slot of a choice; R if another choice has it, or now
  sent_G: jax.Array
  received_G: jax.Array


@dataclasses.dataclass(frozen=True)
class Static:
  """What is known while tracing.

  Attributes:
    axes: of the expert group.
    slots: S.
    swap: `padded` or `ragged`.
    local: as in `all_to_all`.
  """

  axes: tuple[str, ...]
  slots: int
  swap: Callable[..., jax.Array]
  local: Callable[..., jax.Array]

  @property
  def devices(self) -> int:
    return jax.lax.axis_size(self.axes)


def slots_of(
  tokens: int, *, per_token: int, experts: int, devices: int, buffer: float
) -> int:
  """S: `buffer` times the tokens for one device under an even load.

  Args:
    tokens: N.
    per_token: k.
    experts: of all devices.
    devices: G.
    buffer: execution.moe_buffer.
  """
  others = experts - experts // devices
  reached = 1 - math.comb(others, per_token) / math.comb(experts, per_token)
  rows = min(tokens, math.ceil(buffer * tokens * reached))
  return 8 * -(-rows // 8)


def _plan(experts_Nk: jax.Array, *, here: int, static: Static) -> Plan:
  tokens, per_token = experts_Nk.shape
  target_Nk = experts_Nk // here
  group = jnp.arange(static.devices, dtype=target_Nk.dtype)
  onehot_NkG = target_Nk[..., None] == group
  goes_NG = jnp.any(onehot_NkG, axis=1)
  place_NG = jnp.cumsum(goes_NG, axis=0, dtype=jnp.int32) - 1
  index_N = jnp.arange(tokens, dtype=jnp.int32)
  token_GN = jnp.sort(jnp.where(goes_NG.T, index_N, tokens), axis=1)
  earlier_kk = jnp.tri(per_token, k=-1, dtype=bool)
  same_Nkk = target_Nk[:, :, None] == target_Nk[:, None, :]
  send_G = jnp.sum(goes_NG, axis=0, dtype=jnp.int32)
  rounds = -(-jnp.max(send_G) // static.slots)
  # Among all devices of the mesh, not only those that exchange: the loop is
  # one program for all of them.
  everywhere = jax.sharding.get_abstract_mesh().axis_names
  return Plan(
    token_GN=jnp.pad(
      token_GN,
      ((0, 0), (0, -tokens % static.slots)),
      constant_values=tokens,
    ),
    target_Nk=target_Nk,
    place_Nk=jnp.sum(jnp.where(onehot_NkG, place_NG[:, None], 0), axis=-1),
    first_Nk=~jnp.any(same_Nkk & earlier_kk, axis=-1),
    send_G=send_G,
    receive_G=jax.lax.all_to_all(send_G, static.axes, 0, 0, tiled=True),
    rounds=jax.lax.pmax(rounds, everywhere),
  )


def _round(plan: Plan, index, *, static: Static) -> Round:
  slots = static.slots
  start = index * slots
  token_GS = jax.lax.dynamic_slice_in_dim(plan.token_GN, start, slots, axis=1)
  place_Nk = plan.place_Nk - start
  now_Nk = plan.first_Nk & (place_Nk >= 0) & (place_Nk < slots)
  slot_Nk = plan.target_Nk * slots + place_Nk
  return Round(
    token_R=token_GS.reshape(-1),
    slot_Nk=jnp.where(now_Nk, slot_Nk, token_GS.size),
    sent_G=jnp.clip(plan.send_G - start, 0, slots),
    received_G=jnp.clip(plan.receive_G - start, 0, slots),
  )


# ------------------------------------------------- there and back again


def _rows(array: jax.Array, index: jax.Array, *, fill: int = 0) -> jax.Array:
  """Rows of `array`; `fill` where the index is out of range."""
  return jnp.take(array, index, axis=0, mode="fill", fill_value=fill)


def _there(x_ND: jax.Array, turn: Round, *, static: Static) -> jax.Array:
  """Rows of this device's experts, [R, D]."""
  return static.swap(
    _rows(x_ND, turn.token_R),
    sent_G=turn.sent_G,
    received_G=turn.received_G,
    axes=static.axes,
  )


def _back(rows_RD: jax.Array, turn: Round, *, static: Static) -> jax.Array:
  """Sum of each token's rows in the order of its choices, float32."""
  rows_RD = static.swap(
    rows_RD,
    sent_G=turn.received_G,
    received_G=turn.sent_G,
    axes=static.axes,
  )
  return _sum(rows_RD, turn)


def _sum(rows_RD: jax.Array, turn: Round) -> jax.Array:
  return sum(
    _rows(rows_RD, slot_N).astype(jnp.float32) for slot_N in turn.slot_Nk.T
  )


def _small(rows_Rk: jax.Array, *, static: Static) -> jax.Array:
  """`padded` for a few numbers of each row, with rows as the long dim."""
  rows_GkS = rows_Rk.reshape(static.devices, static.slots, -1).swapaxes(1, 2)
  rows_GkS = jax.lax.all_to_all(rows_GkS, static.axes, 0, 0, tiled=True)
  return rows_GkS.swapaxes(1, 2).reshape(rows_Rk.shape)


def _choices(experts_Nk, shares_Nk, turn: Round, *, here: int, static: Static):
  """Experts (E: not here) and shares of the rows that arrive, [R, k]."""
  first_R = jnp.repeat(
    jnp.arange(static.devices, dtype=experts_Nk.dtype) * here, static.slots
  )
  own_Rk = _rows(experts_Nk, turn.token_R, fill=-1) - first_R[:, None]
  own_Rk = jnp.where((own_Rk >= 0) & (own_Rk < here), own_Rk, here)
  share_Rk = _rows(shares_Nk.astype(jnp.float32), turn.token_R)
  bits_Rk = jax.lax.bitcast_convert_type(share_Rk, jnp.int32)
  packed = jnp.concatenate([own_Rk.astype(jnp.int32), bits_Rk], axis=1)
  own_Rk, bits_Rk = jnp.split(_small(packed, static=static), 2, axis=1)
  return own_Rk, jax.lax.bitcast_convert_type(bits_Rk, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _exchanged(static, x_ND, weights, shares_Nk, experts_Nk, plan):
  here = jax.tree.leaves(weights)[0].shape[0]

  def body(index, y_ND):
    turn = _round(plan, index, static=static)
    own_Rk, share_Rk = _choices(
      experts_Nk, shares_Nk, turn, here=here, static=static
    )
    y_RD = static.local(
      _there(x_ND, turn, static=static),
      weights=weights,
      experts_Nk=own_Rk,
      shares_Nk=share_Rk,
    )
    return y_ND + _back(y_RD, turn, static=static)

  start = jnp.zeros(x_ND.shape, jnp.float32)
  y_ND = jax.lax.fori_loop(0, plan.rounds, body, start)
  return y_ND.astype(x_ND.dtype)


def _forward(static, x_ND, weights, shares_Nk, experts_Nk, plan):
  y_ND = _exchanged(static, x_ND, weights, shares_Nk, experts_Nk, plan)
  return y_ND, (x_ND, weights, shares_Nk, experts_Nk, plan)


def _backward(static, saved, dy_ND):
  x_ND, weights, shares_Nk, experts_Nk, plan = saved
  here = jax.tree.leaves(weights)[0].shape[0]

  def body(index, carry):
    dx_ND, grads, d_shares_Nk = carry
    turn = _round(plan, index, static=static)
    own_Rk, share_Rk = _choices(
      experts_Nk, shares_Nk, turn, here=here, static=static
    )

    def run(x_RD, weights, share_Rk):
      return static.local(
        x_RD, weights=weights, experts_Nk=own_Rk, shares_Nk=share_Rk
      )

    x_RD = _there(x_ND, turn, static=static)
    dy_RD = _there(dy_ND, turn, static=static)
    _, pull = jax.vjp(run, x_RD, weights, share_Rk)
    dx_RD, parts, d_share_Rk = pull(dy_RD)
    grads = jax.tree.map(lambda total, part: total + part, grads, parts)
    # A row has numbers only for the choices of the device it was on.
    d_shares_Nk += _sum(_small(d_share_Rk, static=static), turn)
    return dx_ND + _back(dx_RD, turn, static=static), grads, d_shares_Nk

  zeros = jax.tree.map(
    lambda a: jnp.zeros(a.shape, jnp.float32), (x_ND, weights, shares_Nk)
  )
  sums = jax.lax.fori_loop(0, plan.rounds, body, zeros)
  dx_ND, grads, d_shares_Nk = jax.tree.map(
    lambda total, a: total.astype(a.dtype), sums, (x_ND, weights, shares_Nk)
  )
  return dx_ND, grads, d_shares_Nk, None, None


_exchanged.defvjp(_forward, _backward)


def all_to_all(
  x_BTD: jax.Array,
  *,
  weights: Any,
  names: Any,
  experts_BTk: jax.Array,
  shares_BTk: jax.Array,
  local: Callable[..., jax.Array],
  buffer: float,
  swap: Callable[..., jax.Array],
) -> jax.Array:
  """Every device runs its experts on the tokens that chose them.

  Args:
    x_BTD: tokens, cut over the axes of "batch" and "time".
    weights: arrays whose first dim is "experts".
    names: logical names of their dims, the same tree.
    experts_BTk: chosen experts.
    shares_BTk: their shares, float32.
    local: as `experts.reference`, but experts that are not here have number E;
      `equal_share` tells it the choices that arrive under an even load.
    buffer: slots of a pair of devices over what an even load needs.
    swap: `padded` or `ragged`.

  Raises:
    ValueError: there is no mesh, or tokens are not cut over the expert axes.
  """
  frame = mesh.frame(names)
  if not frame.experts:
    raise ValueError("an exchange needs mesh axes for 'experts' in the rules")

  def device(x_BTD, weights, experts_BTk, shares_BTk):
    x_ND, experts_Nk, shares_Nk = (
      array.reshape(-1, array.shape[-1])
      for array in (x_BTD, experts_BTk, shares_BTk)
    )
    weights = frame.whole(weights)
    here = jax.tree.leaves(weights)[0].shape[0]
    devices = jax.lax.axis_size(frame.experts)
    static = Static(
      axes=frame.experts,
      slots=slots_of(
        x_ND.shape[0],
        per_token=experts_Nk.shape[1],
        experts=here * devices,
        devices=devices,
        buffer=buffer,
      ),
      swap=swap,
      local=functools.partial(local, equal_share=experts_Nk.size),
    )
    plan = _plan(experts_Nk, here=here, static=static)
    y_ND = _exchanged(static, x_ND, weights, shares_Nk, experts_Nk, plan)
    return frame.sum_of_mlp(y_ND).reshape(x_BTD.shape)

  return frame.map(device)(x_BTD, weights, experts_BTk, shares_BTk)
