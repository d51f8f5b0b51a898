"""Feed-forward layers: dense SwiGLU, and the sigmoid-routed mixture.

For: the second half of a layer. Not for: the arithmetic of routed experts
(`experts.py`) nor moving the router's bias (training does). Start at `MoE`.
Formulas: Inkling's, as in Hugging Face transformers 5.23.

Legend: B batch, T time, N tokens in any number of dims (B and T stay apart:
merged they would not stay cut over a mesh along both), D d_model, F d_ff, E
routed experts, S shared experts, k chosen experts, K kinds of token.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import ad_checkpoint

from tml_jax.config import ExpertWeights, ModelConfig
from tml_jax.kernels.experts import quantized, tiled
from tml_jax.models import norm, precision
from tml_jax.models.execution import Execution

_ROUTED = ("gate", "up", "down")
BALANCE = "balance"  # collection of `load_balance`, [B] of each layer


@flax.struct.dataclass
class Routing:
  """What the router decided; shares are float32 and sum to route scale."""

  experts_Nk: jax.Array
  shares_Nk: jax.Array
  shared_shares_NS: jax.Array


def choose(scores_NE: jax.Array, *, count: int) -> jax.Array:
  """Indices of the `count` largest scores, largest first; ties to the left.

  Repeated argmax: on a CPU XLA's top_k sorts whole rows.
  """
  columns = jnp.arange(scores_NE.shape[-1])
  chosen = []
  for _ in range(count):
    best = jnp.argmax(scores_NE, axis=-1)
    chosen.append(best)
    scores_NE = jnp.where(columns == best[..., None], -jnp.inf, scores_NE)
  return jnp.stack(chosen, axis=-1)


@jax.named_scope("route")
def route(
  logits_NX: jax.Array,
  *,
  bias_E: jax.Array,
  scale: jax.Array,
  experts_per_token: int,
) -> Routing:
  """Chooses experts by sigmoid + bias, weighs them without the bias.

  Args:
    logits_NX: float32, X = E routed then S shared.
    bias_E: selection-only balance bias.
    scale: route scale times the learned global scale.
    experts_per_token: k.
  """
  num_experts = bias_E.shape[0]
  routed = logits_NX[..., :num_experts]
  scores = jax.lax.stop_gradient(jax.nn.sigmoid(routed) + bias_E)
  chosen = choose(scores, count=experts_per_token)
  # A one-hot sum, not take_along_axis: its gradient is no scatter.
  onehot = chosen[..., None] == jnp.arange(num_experts)
  picked = jnp.sum(jnp.where(onehot, routed[..., None, :], 0.0), axis=-1)
  joint = jnp.concatenate([picked, logits_NX[..., num_experts:]], axis=-1)
  # softmax(log sigmoid(z)) = sigmoids normalised over the chosen and shared.
  shares = jax.nn.softmax(jax.nn.log_sigmoid(joint), axis=-1) * scale
  return Routing(
    experts_Nk=chosen,
    shares_Nk=shares[..., :experts_per_token],
    shared_shares_NS=shares[..., experts_per_token:],
  )


@jax.named_scope("load")
def load(
  experts_Nk: jax.Array, *, kinds_N: jax.Array, num_kinds: int, num_experts: int
) -> jax.Array:
  """Choices of each expert by kind of token, float32 [K, E].

  Tokens whose kind is outside 0..K-1 (padding) are not counted.
  """
  chosen = jax.nn.one_hot(experts_Nk, num_experts).sum(axis=-2)
  kinds = jax.nn.one_hot(kinds_N, num_kinds)
  return jnp.einsum("...k,...e->ke", kinds, chosen)


@jax.named_scope("load_balance")
def load_balance(
  logits_BTE: jax.Array, *, experts_BTk: jax.Array, valid_BT: jax.Array
) -> jax.Array:
  """The auxiliary loss of each sequence, float32 [B]; 1 is perfect balance.

  E * sum over experts e of f_e * P_e: f_e is the share of choices that fell on
  e, P_e the mean of e's normalised score (Switch Transformer, arXiv 2101.03961,
  equations 4 to 6). As in GShard (arXiv 2006.16668, algorithm 1) both are means
  over a group of tokens, here a sequence, so that neither microbatches nor
  meshes change it. Scores are sigmoids over their sum, as in DeepSeek-V3 (arXiv
  2412.19437, equations 17 to 20).
  """
  num_experts = logits_BTE.shape[-1]
  valid_BT = valid_BT.astype(jnp.float32)
  count_B1 = jnp.maximum(valid_BT.sum(axis=-1, keepdims=True), 1.0)
  chosen_BTE = jax.nn.one_hot(experts_BTk, num_experts).mean(axis=-2)
  scores_BTE = jax.nn.sigmoid(logits_BTE)
  scores_BTE /= scores_BTE.sum(axis=-1, keepdims=True)
  share_BE, score_BE = (
    jnp.einsum("bt,bte->be", valid_BT, x) / count_B1
    for x in (chosen_BTE, scores_BTE)
  )
  return num_experts * (share_BE * score_BE).sum(axis=-1)


# Of `sample.expert_weights`.
EXPERT_DTYPES = {
  ExpertWeights.INT8: "int8",
  ExpertWeights.FP8: "float8_e4m3fn",
}


def quantize_experts(variables: Any, *, weights: ExpertWeights) -> Any:
  """Variables with the weights of routed experts as sessions hold them.

  Args:
    variables: of a model whose layers are not stacked; arrays, or the abstract
      boxes that `jax.eval_shape(model.init, ...)` gives.
    weights: in what; MODEL leaves them as they are.

  Raises:
    errors.UserError: the package that does it is missing.
  """
  dtype = EXPERT_DTYPES.get(weights)
  return variables if dtype is None else _in_8_bits(variables, dtype)


def _in_8_bits(variables: Any, dtype: str) -> Any:
  if not isinstance(variables, Mapping):
    return variables
  made = {name: _in_8_bits(each, dtype) for name, each in variables.items()}
  if {"router", *_ROUTED} <= set(made):
    made |= {name: _quantized(made[name], dtype) for name in _ROUTED}
  return made


def _quantized(weight: Any, dtype: str) -> quantized.Quantized:
  quantize = functools.partial(quantized.quantize, dtype=dtype)
  if not isinstance(weight, nn.LogicallyPartitioned):
    return quantize(weight)
  abstract = jax.eval_shape(quantize, weight.value)
  experts, _, outputs = weight.names
  return quantized.Quantized(
    values_EIO=weight.replace(value=abstract.values_EIO),
    scales_E1O=weight.replace(
      value=abstract.scales_E1O, names=(experts, None, outputs)
    ),
  )


class MLP(nn.Module):
  """Dense SwiGLU times a learned scalar."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    config = self.config
    normal = nn.initializers.normal(config.init_std)
    into = (config.d_model, config.d_ff)

    def declare(name, shape, names, init=normal):
      return norm.param(self, name=name, init=init, shape=shape, names=names)

    self.gate = declare("gate", into, ("embed", "mlp"))
    self.up = declare("up", into, ("embed", "mlp"))
    self.down = declare("down", into[::-1], ("mlp", "embed"))
    self.scale = declare("scale", (1,), ("norm",), nn.initializers.ones)

  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    gate = self._times(x_BTD, "gate")
    up = self._times(x_BTD, "up")
    out = self._times(jax.nn.silu(gate) * up, "down")
    return out * self.scale.astype(self.execution.dtype)

  @nn.nowrap
  def _times(self, x, product: str) -> jax.Array:
    form = precision.form_of(self, product)
    return precision.times(x, getattr(self, product), form=form)


class MoE(nn.Module):
  """Routed experts plus shared experts, weighed jointly."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    config = self.config
    normal = nn.initializers.normal(config.init_std)
    d_model, d_ff = config.d_model, config.expert_d_ff
    num_experts, shared = config.num_experts, config.num_shared_experts

    def declare(name, shape, names, init=normal):
      return norm.param(self, name=name, init=init, shape=shape, names=names)

    # The router works in float32 whatever the activations are.
    self.router = declare(
      "router", (d_model, num_experts + shared), ("embed", "router")
    )
    self.scale = declare("scale", (1,), ("norm",), nn.initializers.ones)
    into = (num_experts, d_model, d_ff)
    out = (num_experts, d_ff, d_model)
    self.gate = declare("gate", into, tiled.NAMES.gate_EDF)
    self.up = declare("up", into, tiled.NAMES.up_EDF)
    self.down = declare("down", out, tiled.NAMES.down_EFD)
    into, names = (d_model, shared, d_ff), ("embed", "shared", "mlp")
    self.shared_gate = declare("shared_gate", into, names)
    self.shared_up = declare("shared_up", into, names)
    self.shared_down = declare(
      "shared_down", (shared, d_ff, d_model), ("shared", "mlp", "embed")
    )
    self.bias = self.variable(
      "router",
      "bias",
      nn.with_logical_partitioning(jnp.zeros, ("router",)),
      (num_experts,),
      jnp.float32,
    )

  def __call__(
    self, x_BTD: jax.Array, *, valid_BT: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the outputs and the chosen experts [B, T, k].

    Where the caller collects BALANCE, `load_balance` of the positions that are
    valid is left there.
    """
    config = self.config
    with jax.named_scope("router"):
      logits = jnp.einsum(
        "btd,dx->btx",
        x_BTD.astype(jnp.float32),
        self.router,
        precision=jax.lax.Precision.HIGHEST,
      )
    decide = functools.partial(
      route,
      bias_E=self.bias.value,
      scale=config.route_scale * self.scale,
      experts_per_token=config.experts_per_token,
    )
    routing = norm.rowwise(decide, logits, numerics=self.execution.numerics)
    weights = tiled.Weights(
      gate_EDF=self.gate, up_EDF=self.up, down_EFD=self.down
    ).astype(self.execution.dtype)
    shared = self._shared(x_BTD, routing.shared_shares_NS)
    chosen_BTk = routing.experts_Nk
    if self.is_initializing():  # every parameter has been touched
      return shared, chosen_BTk
    if self.is_mutable_collection(BALANCE):
      losses_B = load_balance(
        logits[..., : config.num_experts],
        experts_BTk=chosen_BTk,
        valid_BT=valid_BT,
      )
      self.sow(BALANCE, "loss", losses_B)
    with jax.named_scope("experts"):
      y_BTD = tiled.apply(
        x_BTD,
        weights=weights,
        experts_BTk=chosen_BTk,
        shares_BTk=routing.shares_Nk,
        tile=config.moe_tile,
        execution=self.execution,
        numerics=self.execution.numerics,
        form=precision.form_of(self, precision.EXPERTS),
      )
    y_BTD = ad_checkpoint.checkpoint_name(y_BTD + shared, "experts")
    return y_BTD, chosen_BTk

  def _shared(self, x_BTD, shares_BTS):
    # As one dense product of S * F columns.
    flat, form = (
      (x_BTD.shape[-1], -1),
      precision.form_of(self, precision.SHARED),
    )
    times = functools.partial(precision.times, form=form)
    gate = times(x_BTD, self.shared_gate.reshape(flat))
    up = times(x_BTD, self.shared_up.reshape(flat))
    shares = jnp.repeat(shares_BTS, self.config.expert_d_ff, axis=-1)
    hidden = jax.nn.silu(gate) * up * shares.astype(gate.dtype)
    return times(hidden, self.shared_down.reshape(flat[::-1]))
