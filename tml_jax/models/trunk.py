"""The stack of layers.

For: hidden states from embeddings. Not for: embedding, heads, losses, nor
further tokens (`mtp.py`). Start at `Trunk`. Formulas: Inkling's,
as in Hugging Face transformers 5.23.

Legend: B batch, T time, D d_model, L MoE layers, E experts, K kinds.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import ad_checkpoint

from tml_jax.config import ModelConfig, RematPolicy
from tml_jax.models import attention, moe, norm, short_conv
from tml_jax.models import cache as cache_lib
from tml_jax.models import stacking as layers_lib
from tml_jax.models.execution import Execution


class Layer(nn.Module):
  """x += conv(attention(norm(x))); x += conv(mlp(norm(x)))."""

  config: ModelConfig
  execution: Execution
  is_global: bool
  is_dense: bool

  def setup(self):
    config, execution = self.config, self.execution
    size, eps = config.d_model, config.rms_norm_eps
    self.attention_norm = norm.RMSNorm(size, eps, execution.numerics)
    self.attention = attention.Attention(
      config, execution, is_global=self.is_global
    )
    self.mlp_norm = norm.RMSNorm(size, eps, execution.numerics)
    feed_forward = moe.MLP if self.is_dense else moe.MoE
    self.mlp = feed_forward(config, execution)
    init = nn.initializers.normal(config.init_std)
    shape, names = (config.conv_kernel, size), ("conv", "embed")
    self.attention_conv = norm.param(
      self, name="attention_conv", init=init, shape=shape, names=names
    )
    self.mlp_conv = norm.param(
      self, name="mlp_conv", init=init, shape=shape, names=names
    )

  def _feed_forward(self, x_BTD, segment_ids_BT=None):
    if not self.is_dense:
      valid_BT = None if segment_ids_BT is None else segment_ids_BT > 0
      return self.mlp(x_BTD, valid_BT=valid_BT)
    return self.mlp(x_BTD), jnp.zeros((*x_BTD.shape[:2], 0), jnp.int32)

  def __call__(
    self,
    x_BTD: jax.Array,
    segment_ids_BT: jax.Array,
    positions_BT: jax.Array,
    times_BT: jax.Array | None,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns outputs and chosen experts [B, T, k] (k = 0 if dense)."""
    x_BTD = ad_checkpoint.checkpoint_name(x_BTD, "layer_input")
    a = self.attention(
      self.attention_norm(x_BTD),
      segment_ids_BT=segment_ids_BT,
      positions_BT=positions_BT,
      times_BT=times_BT,
    )
    past = dict(segment_ids_BT=segment_ids_BT, numerics=self.execution.numerics)
    x_BTD += short_conv.convolve(a, kernel_KD=self.attention_conv, **past)
    m, chosen = self._feed_forward(self.mlp_norm(x_BTD), segment_ids_BT)
    x_BTD += short_conv.convolve(m, kernel_KD=self.mlp_conv, **past)
    return norm.spread(x_BTD), chosen

  def extend(
    self,
    x_BTD: jax.Array,
    *,
    layer: dict[str, jax.Array],
    ring: cache_lib.Ring,
    past_B: jax.Array,
    lengths_B: jax.Array,
    times_BT: jax.Array | None,
    ahead: int = 0,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The same over a chunk behind `layer`; as `Attention.extend`."""
    a, changed = self.attention.extend(
      self.attention_norm(x_BTD),
      layer=layer,
      ring=ring,
      past_B=past_B,
      lengths_B=lengths_B,
      times_BT=times_BT,
      ahead=ahead,
    )
    a, changed["attention_conv"] = short_conv.extend(
      a,
      kernel_KD=self.attention_conv,
      state_BKD=layer["attention_conv"],
      numerics=self.execution.numerics,
    )
    x_BTD += a
    m, _ = self._feed_forward(self.mlp_norm(x_BTD))
    m, changed["mlp_conv"] = short_conv.extend(
      m,
      kernel_KD=self.mlp_conv,
      state_BKD=layer["mlp_conv"],
      numerics=self.execution.numerics,
    )
    return x_BTD + m, changed


def remat(policy: RematPolicy, *, in_scan: bool) -> type[nn.Module]:
  """`Layer` with what its backward pass recomputes."""
  policies = jax.checkpoint_policies
  dear = policies.save_only_these_names(
    "attention", "experts", "hidden", "plan"
  )
  saved = {
    RematPolicy.BLOCK: policies.nothing_saveable,
    RematPolicy.SAVE_OUTPUTS: policies.save_only_these_names("experts"),
    RematPolicy.SAVE_EXPERTS: dear,
    RematPolicy.SAVE_MATMULS: policies.save_from_both_policies(
      policies.dots_with_no_batch_dims_saveable, dear
    ),
    RematPolicy.OFFLOAD: _offloaded(saved=[]),
    RematPolicy.OFFLOAD_SAVE_OUTPUTS: _offloaded(saved=["experts"]),
  }
  if policy is RematPolicy.NONE:
    return Layer
  # Inside a loop nothing can be merged with the forward pass anyway.
  return nn.remat(Layer, policy=saved[policy], prevent_cse=not in_scan)


def _offloaded(*, saved: list[str]):
  """Inputs of layers wait in host memory; what is `saved` does not."""
  return jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=saved,
    names_which_can_be_offloaded=["layer_input"],
    offload_src="device",
    offload_dst="pinned_host",
  )


def scan(module: type[nn.Module], *, length: int, dim: str):
  """`module` with its state [length, ...], its first argument the carry."""
  return nn.scan(
    module,
    variable_axes={"params": 0, "router": 0, moe.BALANCE: 0},
    split_rngs={"params": True},
    in_axes=nn.broadcast,
    length=length,
    metadata_params={nn.PARTITION_NAME: dim},
  )


class Block(nn.Module):
  """One period of the attention pattern, the body of the scan."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    runs = []
    for run in layers_lib.runs(self.config.attention_pattern):
      layer = remat(self.execution.remat_policy, in_scan=True)
      if run.length > 1:
        layer = scan(layer, length=run.length, dim="layers")
      runs.append(
        layer(
          self.config,
          self.execution,
          is_global=self.config.is_global(run.start),
          is_dense=False,
          name=run.name,
        )
      )
    self.runs = runs

  def __call__(self, x_BTD, segment_ids_BT, positions_BT, times_BT):
    """The carry, and chosen experts of each run, [B, T, k] or [n, B, T, k]."""
    chosen = []
    offloads = self.execution.remat_policy.offloads
    runs = layers_lib.runs(self.config.attention_pattern)
    for run, layers in zip(runs, self.runs, strict=True):
      if run.length > 1 and offloads and not self.is_initializing():
        layers = functools.partial(self._one_by_one, run, layers)
      x_BTD, experts_BTk = layers(x_BTD, segment_ids_BT, positions_BT, times_BT)
      chosen.append(experts_BTk)
    return x_BTD, chosen

  @nn.nowrap  # no scope of its own
  def _one_by_one(self, run: layers_lib.Run, stacked: nn.Module, x_BTD, *past):
    """The layers of a run, without a loop: libtpu 0.0.42 moves arrays of one
    scanned dim to the host, and refuses those of two."""
    layer = remat(self.execution.remat_policy, in_scan=True)(
      self.config,
      dataclasses.replace(self.execution, within=stacked.path),
      is_global=self.config.is_global(run.start),
      is_dense=False,
      parent=None,
      name=run.name,
    )
    kept = [moe.BALANCE] if self.is_mutable_collection(moe.BALANCE) else []
    chosen, losses = [], []
    for i in range(run.length):
      variables = jax.tree.map(operator.itemgetter(i), stacked.variables)
      (x_BTD, experts_BTk), left = layer.apply(
        variables, x_BTD, *past, mutable=kept
      )
      chosen.append(experts_BTk)
      losses += jax.tree.leaves(left)
    if kept:
      self.sow(moe.BALANCE, f"{run.name}_loss", jnp.stack(losses))
    return x_BTD, jnp.stack(chosen)


class Trunk(nn.Module):
  """All layers and the final norm."""

  config: ModelConfig
  execution: Execution

  def setup(self):
    config, execution = self.config, self.execution
    self.layout = layers_lib.Layout.of(
      config, scan_layers=execution.scan_layers
    )
    layer = remat(execution.remat_policy, in_scan=False)
    self.layers = {
      i: layer(
        config,
        execution,
        is_global=config.is_global(i),
        is_dense=config.is_dense(i),
        name=layers_lib.name(i),
      )
      for i in self.layout.unrolled
    }
    if self.layout.blocks:
      self.blocks = scan(Block, length=self.layout.blocks, dim="blocks")(
        config,
        execution,
        name=layers_lib.BLOCKS,
      )
    self.final_norm = norm.RMSNorm(
      config.d_model, config.rms_norm_eps, execution.numerics
    )

  def __call__(
    self,
    x_BTD: jax.Array,
    *,
    segment_ids_BT: jax.Array,
    positions_BT: jax.Array,
    times_BT: jax.Array | None,
    kinds_BT: jax.Array,
    num_kinds: int,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns normed hidden states and router loads [K, L, E]."""
    num_experts = self.config.num_experts
    chosen = []  # of each MoE layer, in order
    for i in range(self.layout.num_layers):
      if i == self.layout.first:
        x_BTD, blocks = self.blocks(
          x_BTD, segment_ids_BT, positions_BT, times_BT
        )
        chosen += [
          one
          for block in range(self.layout.blocks)
          for run, each in zip(self.layout.runs, blocks, strict=True)
          for one in (each[block] if run.length > 1 else [each[block]])
        ]
      if i in self.layers:
        x_BTD, experts_BTk = self.layers[i](
          x_BTD,
          segment_ids_BT=segment_ids_BT,
          positions_BT=positions_BT,
          times_BT=times_BT,
        )
        if not self.layers[i].is_dense:
          chosen.append(experts_BTk)
    loads = [
      moe.load(
        experts_BTk,
        kinds_N=kinds_BT,
        num_kinds=num_kinds,
        num_experts=num_experts,
      )
      for experts_BTk in chosen
    ]
    none = jnp.zeros((num_kinds, 0, num_experts), jnp.float32)
    load_KLE = jnp.stack(loads, axis=1) if loads else none
    return self.final_norm(x_BTD), load_KLE

  def extend(
    self,
    x_BTD: jax.Array,
    *,
    cache: cache_lib.Cache,
    lengths_B: jax.Array,
    times_BT: jax.Array | None,
  ) -> tuple[jax.Array, cache_lib.Read]:
    """Hidden states of a chunk, of which all or a part may be kept.

    Raises:
      ValueError: the layers are scanned; `layers.unstack` the parameters and
        build the model with `scan_layers` off.
    """
    if self.layout.blocks:
      raise ValueError("a trunk of scanned layers cannot extend a cache")
    layers = []
    past = dict(past_B=cache.lengths_B, lengths_B=lengths_B, times_BT=times_BT)
    kept = zip(cache.layers, cache.rings, strict=True)
    for layer, (old, ring) in zip(self.layers.values(), kept, strict=True):
      x_BTD, new = layer.extend(x_BTD, layer=old, ring=ring, **past)
      layers.append(new)
    read = cache_lib.Read(
      cache=cache, layers=tuple(layers), chunk=x_BTD.shape[1]
    )
    return self.final_norm(x_BTD), read
