"""Random experts, choices of them, and gradients through a form of them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments import topologies
from tml_jax.config import MeshConfig
from tml_jax.kernels.experts import tiled as tiled_lib
from tml_jax.parallel import mesh as mesh_lib

D_MODEL, D_FF = 12, 8
_ONES = dict(data=1, fsdp=1, expert=1, tensor=1, seq=1)


def draw(seed, *, tokens, num_experts):
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape) * 0.5, jnp.float32)

  weights = tiled_lib.Weights(
    gate_EDF=normal(num_experts, D_MODEL, D_FF),
    up_EDF=normal(num_experts, D_MODEL, D_FF),
    down_EFD=normal(num_experts, D_FF, D_MODEL),
  )
  return normal(tokens, D_MODEL), weights, normal(tokens, 2)


def choices(seed, *, tokens, num_experts, skew):
  """Two different experts per token; a high skew leaves most unused."""
  rng = np.random.default_rng(seed)
  weights = np.exp(-skew * np.arange(num_experts))
  noise = rng.gumbel(size=(tokens, num_experts)) + np.log(weights)
  return jnp.asarray(np.argsort(-noise, axis=1)[:, :2], jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(form, x, weights, shares, chosen):
  def run(x, weights, shares):
    return form(x, weights=weights, experts_Nk=chosen, shares_Nk=shares)

  out, pull = jax.vjp(run, x, weights, shares)
  d_out = jnp.cos(jnp.arange(out.size)).reshape(out.shape)
  return out, pull(d_out.astype(out.dtype))


def on_a_mesh(form, x, weights, shares, *, chosen, axes):
  """`value_and_gradients` of `tiled.apply` as `form` on a mesh."""
  config = MeshConfig(rules=topologies.RULES, **(_ONES | axes))
  devices = jax.devices()[: math.prod(axes.values())]
  mesh = mesh_lib.create(config, devices=devices)

  def flat(x, *, weights, experts_Nk, shares_Nk):
    y = form(
      x.reshape(8, -1, x.shape[-1]),
      weights=weights,
      experts_BTk=experts_Nk.reshape(8, -1, experts_Nk.shape[-1]),
      shares_BTk=shares_Nk.reshape(8, -1, shares_Nk.shape[-1]),
    )
    return y.reshape(x.shape)

  with mesh_lib.use(mesh, rules=config.axis_rules):
    return jax.device_get(value_and_gradients(flat, x, weights, shares, chosen))
