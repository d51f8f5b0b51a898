"""SwiGLU over routed experts: every chosen (token, expert) pair, none dropped.

For: the routed half of `moe.py`. Not for: choosing experts. Start at
`apply`; `tiled` is the fast form on a CPU, `gathered` that of a few tokens,
`grouped.py` the one on a TPU,
`dispatch.py` and `exchange.py` bring tokens to the experts of other devices,
`reference` is the plain form of the tests. Measurements: benchmarks/moe.py.

The fast form sorts the N*k choices by expert and pads each expert's share to
whole tiles of M rows, so that every tile multiplies one expert's weights. A
loop runs over the tiles in use (their number depends on the data, the buffer
does not). The gradient is written by hand for two reasons: the permutation is
then a gather in both directions (a scatter is serial on a CPU), and such a
loop has no automatic transpose.

Legend: N tokens, k choices of a token, E experts, D d_model, F expert_d_ff,
P padded rows, M rows of a tile, I tiles.
"""

import functools
import math

import flax
import jax
import jax.numpy as jnp

from tml_jax.config import (
  PLAIN,
  ExecutionConfig,
  MoeDispatch,
  MoeMatmul,
  Numerics,
)
from tml_jax.kernels import low_precision
from tml_jax.kernels.experts import dispatch, exchange, grouped, quantized


@flax.struct.dataclass
class Weights:
  """One layer's routed experts; each of them may be `quantized.Quantized`."""

  gate_EDF: jax.Array | quantized.Quantized
  up_EDF: jax.Array | quantized.Quantized
  down_EFD: jax.Array | quantized.Quantized

  def astype(self, dtype: str) -> "Weights":
    return jax.tree.map(
      lambda x: x.astype(dtype), self, is_leaf=quantized.is_quantized
    )

  @property
  def names(self) -> "Weights":
    """Logical names of the dims of each array."""
    return Weights(
      *(
        quantized.Quantized(names, (names[0], None, names[2]), dtype=x.dtype)
        if quantized.is_quantized(x)
        else names
        for x, names in (
          (self.gate_EDF, NAMES.gate_EDF),
          (self.up_EDF, NAMES.up_EDF),
          (self.down_EFD, NAMES.down_EFD),
        )
      )
    )


# Choices (tokens times k) up to which `gathered` is the form of one device: an
# output token of one session. There it takes 0.76 (wide) to 1.39 (tiny) times
# as long as tiles; at 4 sessions 1.2 to 2.9 times, as XLA's CPU compiler copies
# what it gathers (benchmarks/session.md).
GATHERED_CHOICES = 8

# Logical names of the dims. "expert_mlp" is cut like "mlp" and then like
# "embed": D of `down` would leave a device half a row of 128 lanes.
NAMES = Weights(
  gate_EDF=("experts", "embed", "mlp"),
  up_EDF=("experts", "embed", "mlp"),
  down_EFD=("experts", "expert_mlp", "model"),
)


def reference(
  x_ND: jax.Array,
  *,
  weights: Weights,
  experts_Nk: jax.Array,
  shares_Nk: jax.Array,
) -> jax.Array:
  """Every expert on every token, then the chosen shares: the plain form."""
  gate = jnp.einsum("nd,edf->enf", x_ND, weights.gate_EDF)
  up = jnp.einsum("nd,edf->enf", x_ND, weights.up_EDF)
  out = jnp.einsum("enf,efd->end", jax.nn.silu(gate) * up, weights.down_EFD)
  num_experts = weights.gate_EDF.shape[0]
  share_NE = jnp.einsum(
    "nk,nke->ne", shares_Nk, jax.nn.one_hot(experts_Nk, num_experts)
  )
  return jnp.einsum("ne,end->nd", share_NE.astype(out.dtype), out)


def gathered(
  x_ND: jax.Array,
  *,
  weights: Weights,
  experts_Nk: jax.Array,
  shares_Nk: jax.Array,
) -> jax.Array:
  """Each choice reads its expert's weights: no rows are sorted or padded.

  Reads [N, k, D, F] three times, so for the few tokens of a live session.
  """
  gate_NkF = jnp.einsum("nd,nkdf->nkf", x_ND, weights.gate_EDF[experts_Nk])
  up_NkF = jnp.einsum("nd,nkdf->nkf", x_ND, weights.up_EDF[experts_Nk])
  hidden_NkF = jax.nn.silu(gate_NkF) * up_NkF
  out_NkD = jnp.einsum(
    "nkf,nkfd->nkd", hidden_NkF, weights.down_EFD[experts_Nk]
  )
  return jnp.sum(out_NkD * shares_Nk[..., None].astype(out_NkD.dtype), axis=1)


@flax.struct.dataclass
class Plan:
  """Where each choice goes: the same permutation seen from both sides."""

  token_P: jax.Array  # source token of a padded row; N where the row is empty
  choice_P: jax.Array  # source choice (token * k + i); N * k where empty
  slot_Nk: jax.Array  # padded row of a choice
  expert_I: jax.Array  # expert of a tile
  used_tiles: jax.Array  # scalar


@jax.named_scope("plan")
def plan(experts_Nk: jax.Array, *, num_experts: int, tile: int) -> Plan:
  """Lays the choices out in whole tiles of one expert each.

  A choice of expert `num_experts` is a choice of none.
  """
  tokens, per_token = experts_Nk.shape
  choices = tokens * per_token
  tiles = -(-choices // tile) + min(num_experts, choices)
  flat = experts_Nk.reshape(-1)
  index = jnp.arange(choices, dtype=jnp.int32)
  _, order = jax.lax.sort((flat, index), num_keys=1, is_stable=True)
  experts = jnp.arange(num_experts, dtype=flat.dtype)
  count_E = jnp.sum(flat[:, None] == experts, axis=0, dtype=jnp.int32)
  tiles_E = -(-count_E // tile)
  last_tile_E = jnp.cumsum(tiles_E)
  first_row_E = jnp.cumsum(count_E) - count_E
  first_slot_E = (last_tile_E - tiles_E) * tile
  expert_I = jnp.minimum(
    jnp.sum(jnp.arange(tiles)[:, None] >= last_tile_E, axis=1),
    num_experts - 1,
  )
  slot_P = jnp.arange(tiles * tile, dtype=jnp.int32).reshape(tiles, tile)
  offset = slot_P - first_slot_E[expert_I][:, None]
  row = jnp.minimum(first_row_E[expert_I][:, None] + offset, choices - 1)
  filled = offset < count_E[expert_I][:, None]
  choice_P = jnp.where(filled, order[row], choices).reshape(-1)
  rank = jnp.zeros_like(order).at[order].set(index, unique_indices=True)
  slot = first_slot_E[flat] + rank - first_row_E[flat]
  # The last tile is never in use: its rows are zeros, for choices of no expert.
  slot = jnp.where(flat < num_experts, slot, tiles * tile - 1)
  return Plan(
    token_P=jnp.where(choice_P < choices, choice_P // per_token, tokens),
    choice_P=choice_P,
    slot_Nk=slot.reshape(tokens, per_token),
    expert_I=expert_I,
    used_tiles=last_tile_E[-1],
  )


def tiled(
  x_ND: jax.Array,
  *,
  weights: Weights,
  experts_Nk: jax.Array,
  shares_Nk: jax.Array,
  tile: int,
  form: low_precision.Form | None = None,
  low: Weights | None = None,
) -> jax.Array:
  """The fast form: see the top of this file.

  With a `form` it multiplies what a TPU multiplies in 8 bits, as floats; `low`
  are the weights in them, made here where they are not given.
  """
  layout = plan(experts_Nk, num_experts=weights.gate_EDF.shape[0], tile=tile)
  if low is None:
    low = quantized.in_8_bits(weights, form=form)
  return _tiled(tile, form, x_ND, weights, low, shares_Nk, layout)


@jax.named_scope("to_rows")
def _rows(array: jax.Array, index: jax.Array) -> jax.Array:
  """Rows of `array`; zeros where the index is out of range."""
  return jnp.take(array, index, axis=0, mode="fill", fill_value=0)


@jax.named_scope("combine")
def _combine(rows_PD, shares_Nk, layout):
  picked = rows_PD[layout.slot_Nk]
  return jnp.sum(picked * shares_Nk[..., None].astype(picked.dtype), axis=1)


def _write(buffer, value, start):
  return jax.lax.dynamic_update_slice_in_dim(buffer, value, start, axis=0)


def _rounded(x: jax.Array, *, form: low_precision.Form | None) -> jax.Array:
  """Rows as 8 bits hold them."""
  if form is None:
    return x
  values, scale = low_precision.rows(
    x, form.values, calibration=form.calibration
  )
  return (values.astype(jnp.float32) * scale).astype(x.dtype)


def _back(dy, weight, expert, *, form: low_precision.Form | None):
  """Rows times an expert's transposed weights, as `Quantized.back`."""
  if form is None:
    return dy @ weight[expert].T
  values, scale = low_precision.rows(dy, form.gradients)
  made = values.astype(dy.dtype) @ weight.values_EIO[expert].astype(dy.dtype).T
  return (made * (scale * weight.scales_E1O[expert])).astype(dy.dtype)


@jax.named_scope("tiles")
def _forward(tile, form, x_ND, weights, layout):
  """Runs the tiles; keeps gate and up for the gradient."""
  x_PD = _rows(x_ND, layout.token_P)
  rows, d_ff = x_PD.shape[0], weights.gate_EDF.shape[-1]

  def body(index, carry):
    out, gates, ups = carry
    start = index * tile
    expert = layout.expert_I[index]
    x = _rounded(jax.lax.dynamic_slice_in_dim(x_PD, start, tile), form=form)
    gate = x @ weights.gate_EDF[expert]
    up = x @ weights.up_EDF[expert]
    hidden = _rounded(jax.nn.silu(gate) * up, form=form)
    y = hidden @ weights.down_EFD[expert]
    return (
      _write(out, y, start),
      _write(gates, gate, start),
      _write(ups, up, start),
    )

  empty = jnp.zeros((rows, d_ff), x_ND.dtype)
  out_PD, gate_PF, up_PF = jax.lax.fori_loop(
    0, layout.used_tiles, body, (jnp.zeros_like(x_PD), empty, empty)
  )
  return x_PD, out_PD, gate_PF, up_PF


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _tiled(tile, form, x_ND, weights, low, shares_Nk, layout):
  weights = weights if low is None else low
  _, out_PD, _, _ = _forward(tile, form, x_ND, weights, layout)
  return _combine(out_PD, shares_Nk, layout)


def _tiled_forward(tile, form, x_ND, weights, low, shares_Nk, layout):
  weights = weights if low is None else low
  x_PD, out_PD, gate_PF, up_PF = _forward(tile, form, x_ND, weights, layout)
  saved = (x_PD, out_PD, gate_PF, up_PF, weights, shares_Nk, layout)
  return _combine(out_PD, shares_Nk, layout), saved


def _tiled_backward(tile, form, saved, dy_ND):
  x_PD, out_PD, gate_PF, up_PF, weights, shares_Nk, layout = saved
  d_shares = jnp.einsum(
    "nkd,nd->nk",
    out_PD[layout.slot_Nk],
    dy_ND,
    preferred_element_type=shares_Nk.dtype,
  )
  share_P = _rows(shares_Nk.reshape(-1), layout.choice_P).astype(dy_ND.dtype)
  dy_PD = _rows(dy_ND, layout.token_P) * share_P[:, None]

  def body(index, carry):
    dx_PD, grads = carry
    start = index * tile
    expert = layout.expert_I[index]
    x, dy, gate, up = (
      jax.lax.dynamic_slice_in_dim(rows, start, tile)
      for rows in (x_PD, dy_PD, gate_PF, up_PF)
    )
    activation, pull = jax.vjp(lambda g, u: jax.nn.silu(g) * u, gate, up)
    d_gate, d_up = pull(_back(dy, weights.down_EFD, expert, form=form))
    dx = _back(d_gate, weights.gate_EDF, expert, form=form)
    dx += _back(d_up, weights.up_EDF, expert, form=form)
    parts = Weights(
      gate_EDF=x.T @ d_gate, up_EDF=x.T @ d_up, down_EFD=activation.T @ dy
    )
    grads = jax.tree.map(
      lambda total, part: total.at[expert].add(part.astype(total.dtype)),
      grads,
      parts,
    )
    return _write(dx_PD, dx, start), grads

  # Sums over tiles are kept in float32 whatever the activations are.
  zeros = Weights(
    *(
      jnp.zeros(w.shape, jnp.float32)
      for w in (weights.gate_EDF, weights.up_EDF, weights.down_EFD)
    )
  )
  dx_PD, grads = jax.lax.fori_loop(
    0, layout.used_tiles, body, (jnp.zeros_like(x_PD), zeros)
  )
  dx_ND = jnp.sum(dx_PD[layout.slot_Nk], axis=1)
  grads = grads.astype(weights.gate_EDF.dtype)
  return dx_ND, grads, None, d_shares.astype(shares_Nk.dtype), None


_tiled.defvjp(_tiled_forward, _tiled_backward)


_SWAPS = {
  MoeDispatch.RAGGED_ALL_TO_ALL: exchange.ragged,
  MoeDispatch.PADDED_ALL_TO_ALL: exchange.padded,
}


def apply(
  x_BTD: jax.Array,
  *,
  weights: Weights,
  experts_BTk: jax.Array,
  shares_BTk: jax.Array,
  tile: int,
  execution: ExecutionConfig = PLAIN,
  numerics: Numerics = Numerics.DEFAULT,
  form: low_precision.Form | None = None,
) -> jax.Array:
  """Sum over a token's choices of share * expert(token), shaped as x.

  Args:
    x_BTD: tokens with any leading dims (two of them on a mesh).
    weights: of all experts, in the tokens' dtype.
    experts_BTk: chosen experts.
    shares_BTk: float32.
    tile: the largest tile of the tiled form.
    execution: which form, and how tokens reach it.
    numerics: invariant takes tiles of one size, however many tokens.
    form: of products in 8 bits.
  """
  if execution.moe_dispatch is MoeDispatch.AUTOMATIC:
    if numerics is Numerics.INVARIANT:
      mixture = functools.partial(tiled, tile=tile)
    elif experts_BTk.size <= GATHERED_CHOICES and form is None:
      mixture = gathered
    else:
      mixture = functools.partial(fitted, tile=tile, form=form)
    y_ND = mixture(
      x_BTD.reshape(-1, x_BTD.shape[-1]),
      weights=weights,
      experts_Nk=experts_BTk.reshape(-1, experts_BTk.shape[-1]),
      shares_Nk=shares_BTk.reshape(-1, shares_BTk.shape[-1]),
    )
    return y_ND.reshape(x_BTD.shape)
  num_experts = weights.gate_EDF.shape[0]

  def run(x_ND, *, equal_share, **keywords):
    if execution.moe_matmul is MoeMatmul.TILED:
      return fitted(x_ND, tile=tile, form=form, **keywords)
    rows = math.ceil(execution.moe_buffer * equal_share)
    return grouped.grouped(x_ND, rows=rows, form=form, **keywords)

  def local(x_ND, *, weights, low, experts_Nk, shares_Nk):
    here = weights.gate_EDF.shape[0]
    return run(
      x_ND,
      weights=weights,
      low=low,
      experts_Nk=experts_Nk,
      shares_Nk=shares_Nk,
      equal_share=experts_Nk.size * here / num_experts,
    )

  keywords = dict(
    weights=weights,
    names=weights.names,
    experts_BTk=experts_BTk,
    shares_BTk=shares_BTk,
  )
  if execution.moe_dispatch is MoeDispatch.ALL_GATHER:
    return dispatch.all_gather(x_BTD, local=local, form=form, **keywords)
  return exchange.all_to_all(
    x_BTD,
    local=run,
    buffer=execution.moe_buffer,
    swap=_SWAPS[execution.moe_dispatch],
    **keywords,
  )


def fitted(
  x_ND: jax.Array,
  *,
  weights: Weights,
  experts_Nk: jax.Array,
  shares_Nk: jax.Array,
  tile: int,
  form: low_precision.Form | None = None,
  low: Weights | None = None,
) -> jax.Array:
  """`tiled`, with tiles no larger than an expert's mean share of the choices.

  A power of two, at least 8: a live session brings few tokens at a time.
  """
  choices, num_experts = experts_Nk.size, weights.gate_EDF.shape[0]
  fitting = max(8, 1 << (choices // num_experts).bit_length())
  return tiled(
    x_ND,
    weights=weights,
    experts_Nk=experts_Nk,
    shares_Nk=shares_Nk,
    tile=min(tile, fitting),
    form=form,
    low=low,
  )
