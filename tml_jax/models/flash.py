"""Attention with a bounded relative bias on TPUs: layout, mesh and gradient.

For: `attention.py` with `train.execution.attention=pallas`. Not for: caches,
nor CPU and GPU, which have `cells.py`. Start at `attend`; the kernels are in
`flash_kernels.py` and `flash_gradient.py`.

On a mesh every device runs the kernels on its own sequences and heads. Where
the sequence is cut over an axis, that axis takes heads instead while attention
lasts: the compiler exchanges positions for heads (DeepSpeed Ulysses, arXiv
2309.14509), which keeps causal work equal on all devices.

Legend: B batch, T time, N query heads, K kv heads, G = N // K, H head dim, R
d_rel, E extent of the bias, C blocks of it, M positions of a block.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from tml_jax.models import cells, flash_gradient, flash_kernels
from tml_jax.models.flash_pairs import Static

PartitionSpec = jax.sharding.PartitionSpec
# Positions of a block of queries and of keys. With a window of 512, blocks of
# 256 multiply 768 keys for a query where blocks of 512 multiply 1024. Without a
# window large blocks waste little and take fewer steps.
LOCAL_BLOCK = 256
GLOBAL_BLOCK = 512


def attend(
  q_BTNH: jax.Array,
  *,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  r_BTNR: jax.Array,
  profiles_RE: jax.Array,
  segment_ids_BT: jax.Array,
  window: int,
  block: int,
  interpret: bool = False,
) -> jax.Array:
  """Causal attention within segments to the last `window` positions.

  Args:
    q_BTNH: scaled queries.
    k_BTKH: keys.
    v_BTKH: values.
    r_BTNR: scaled; bias = r @ profiles at distances 0..E-1, 0 further away.
    profiles_RE: of the bias.
    segment_ids_BT: below 2 ** 24.
    window: positions seen, self included.
    block: M; smaller where the sequence is.
    interpret: runs the kernels without a TPU, for tests.
  """
  batch, length, heads, _ = q_BTNH.shape
  block = min(block, 128 * -(-length // 128)) if not interpret else block
  kv_heads = _kv_heads(k_BTKH.shape[2], heads)
  k_BTKH, v_BTKH = (
    jnp.repeat(x, kv_heads // x.shape[2], axis=2) for x in (k_BTKH, v_BTKH)
  )
  group = heads // kv_heads

  def by_head(x_BTNH):
    padding = ((0, 0), (0, -length % block), (0, 0), (0, 0))
    return jnp.pad(x_BTNH, padding).transpose(0, 2, 1, 3)

  def by_group(x_BNTH):
    return x_BNTH.reshape(batch, kv_heads, group, *x_BNTH.shape[2:])

  r_BNRT = by_head(r_BTNR).swapaxes(2, 3)
  # Padding is behind all queries that count.
  segments = jnp.pad(segment_ids_BT, ((0, 0), (0, -length % block)))
  out_BKGTH = _attend(
    Static(block=block, window=window, interpret=interpret),
    by_group(by_head(q_BTNH)),
    by_head(k_BTKH),
    by_head(v_BTKH),
    r_BNRT.reshape(batch, kv_heads, -1, r_BNRT.shape[3]),
    lay_out(profiles_RE.astype(r_BTNR.dtype), block=block),
    segments[:, None].astype(jnp.float32),
  )
  out_BNTH = out_BKGTH.reshape(batch, heads, *out_BKGTH.shape[3:])
  return out_BNTH.transpose(0, 2, 1, 3)[:, :length]


def lay_out(profiles_RE: jax.Array, *, block: int) -> jax.Array:
  """[C, R, M]: column m of block c holds distance c * M + (-m mod M)."""
  d_rel, extent = profiles_RE.shape
  padded = jnp.pad(profiles_RE, ((0, 0), (0, -extent % block)))
  blocks_CRM = padded.reshape(d_rel, -1, block).swapaxes(0, 1)
  return jnp.roll(blocks_CRM[..., ::-1], 1, axis=-1)


def _axes(name: str) -> tuple[str, ...]:
  """Mesh axes of a logical name that have more than one device."""
  mesh = jax.sharding.get_abstract_mesh()
  axes = dict(nn.get_logical_axis_rules()).get(name) or ()
  axes = (axes,) if isinstance(axes, str) else tuple(axes)
  return tuple(a for a in axes if not mesh.empty and mesh.shape[a] > 1)


def _head_axes() -> tuple[str, ...]:
  return _axes("heads") + _axes("time")


def _kv_heads(kv_heads: int, heads: int) -> int:
  """Key and value heads, repeated where devices outnumber them.

  Raises:
    ValueError: heads cannot be dealt out evenly; `config_checks.attention`
      refuses such a mesh before anything is traced.
  """
  shape = dict(jax.sharding.get_abstract_mesh().shape)
  parts = math.prod(shape[axis] for axis in _head_axes())
  result = math.lcm(kv_heads, parts)
  if heads % result:
    raise ValueError(f"{heads} heads cannot be dealt out to {parts} devices")
  return result


def _on_mesh(function, *, arguments, results):
  """`function` on each device's sequences and heads.

  Args:
    function: of arrays.
    arguments: what each array is cut by: "heads" (sequences and heads),
      "rows" (sequences) or "whole".
    results: the same for what it returns.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return function
  batch = _axes("batch") or None
  specs = {
    "heads": PartitionSpec(batch, _head_axes() or None),
    "rows": PartitionSpec(batch),
    "whole": PartitionSpec(),
  }
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=tuple(specs[name] for name in arguments),
    out_specs=tuple(specs[name] for name in results),
    check_vma=False,  # the Pallas kernels do not say how they vary
  )


_INPUTS = ("heads", "heads", "heads", "heads", "whole", "rows")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(static, q, k, v, r, profiles, segments):
  return _forward(static, q, k, v, r, profiles, segments)[0]


def _forward(static, *arrays):
  def device(q, k, v, r, profiles, segments):
    return flash_kernels.forward(
      static,
      q,
      k_BKTH=k,
      v_BKTH=v,
      r_BKRT=r,
      profiles_CRM=profiles,
      segments_B1T=segments,
    )

  run = _on_mesh(device, arguments=_INPUTS, results=("heads", "heads"))
  out, log_total = cells.saved(*run(*arrays))
  return out, (*arrays, out, log_total)


def _backward(static, kept, d_out):
  def device(q, k, v, r, profiles, segments, out, log_total, d_out):
    grads = flash_gradient.backward(
      static,
      q,
      k_BKTH=k,
      v_BKTH=v,
      r_BKRT=r,
      profiles_CRM=profiles,
      segments_B1T=segments,
      out_BKGTH=out,
      log_BKGT=log_total,
      d_out_BKGTH=d_out,
    )
    return (
      grads.q_BKGTH,
      grads.k_BKTH,
      grads.v_BKTH,
      grads.r_BKRT,
      grads.profiles_BKCRM,
    )

  run = _on_mesh(
    device, arguments=(*_INPUTS, *["heads"] * 3), results=("heads",) * 5
  )
  *grads, d_profiles = run(*kept, d_out)
  d_profiles = d_profiles.sum(axis=(0, 1)).astype(kept[4].dtype)
  return *grads, d_profiles, jnp.zeros_like(kept[5])


_attend.defvjp(_forward, _backward)
