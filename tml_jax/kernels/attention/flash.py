"""Attention with a bounded relative bias on TPUs: layout, mesh and gradient.

For: `attention.py` with `train.execution.attention=pallas`. Not for: caches,
nor CPU and GPU, which have `cells.py`. Start at `attend`; the kernels are in
`flash_kernels.py` and `flash_gradient.py`.

On a mesh every device runs the kernels on its own sequences and heads. Where
the sequence is cut over an axis as well,

- a window needs the positions before a device's own: they come from its
  neighbour (`_with_halo`), and empty queries go before its own, so that
  the kernels see a sequence like any other;
- without a window that axis takes heads instead while attention lasts: the
  compiler exchanges positions for heads (DeepSpeed Ulysses, arXiv 2309.14509),
  which keeps causal work equal on all devices.

Legend: B batch, T time, N query heads, K kv heads, G = N // K, H head dim, R
d_rel, E extent of the bias, C blocks of it, M positions of a block.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from tml_jax.config import train as train_config
from tml_jax.kernels import mesh as mesh_lib
from tml_jax.kernels.attention import cells, flash_gradient, flash_kernels
from tml_jax.kernels.attention.flash_pairs import Static

PartitionSpec = jax.sharding.PartitionSpec
# Positions of a block of queries and of keys. Without a window large blocks
# waste little and take fewer steps.
LOCAL_BLOCK = train_config.FLASH_BLOCK
GLOBAL_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class Places:
  """Mesh axes of the dims of all arrays while attention lasts."""

  batch: tuple[str, ...]
  heads: tuple[str, ...]
  time: tuple[str, ...]

  @classmethod
  def of(cls, *, has_window: bool) -> "Places":
    """By the logical rules in force; time is cut where there is a window."""
    batch, heads, time = (_axes(name) for name in ("batch", "heads", "time"))
    if not has_window:
      heads, time = heads + time, ()
    return cls(batch=batch, heads=heads, time=time)

  def spec(self, name: str) -> PartitionSpec:
    """Of an array with dims `name`: b(atch), h(eads), t(ime), or neither."""
    axes = dict(b=self.batch, h=self.heads, t=self.time)
    return PartitionSpec(*(axes.get(dim) or None for dim in name))

  def run(self, function, *, arguments: list[str], results: list[str]):
    """`function` on each device; names of dims as `spec` takes them."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
      return function
    return jax.shard_map(
      function,
      mesh=mesh,
      in_specs=tuple(self.spec(name) for name in arguments),
      out_specs=tuple(self.spec(name) for name in results),
      check_vma=False,  # the Pallas kernels do not say how they vary
    )


def _size(axes: tuple[str, ...]) -> int:
  shape = dict(jax.sharding.get_abstract_mesh().shape)
  return math.prod(shape[axis] for axis in axes)


def _axes(name: str) -> tuple[str, ...]:
  """Mesh axes of a logical name that have more than one device."""
  mesh = jax.sharding.get_abstract_mesh()
  axes = () if mesh.empty else mesh_lib.axes_of(name)
  return tuple(axis for axis in axes if mesh.shape[axis] > 1)


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
    block: M, a multiple of 128 on a TPU.
    interpret: runs the kernels without a TPU, for tests.

  Raises:
    ValueError: the mesh cuts the sequence into pieces that are no whole
      blocks or shorter than the window, or heads cannot be dealt out;
      `config.Config` refuses that before anything is traced.
  """
  batch, length, heads, _ = q_BTNH.shape
  places = Places.of(has_window=window < length)
  static = Static(block=block, window=window, interpret=interpret)
  kv_heads = math.lcm(k_BTKH.shape[2], _size(places.heads))
  if heads % kv_heads:
    raise ValueError(f"{heads} heads over {_size(places.heads)} devices")
  k_BTKH, v_BTKH = (
    jnp.repeat(x, kv_heads // x.shape[2], axis=2) for x in (k_BTKH, v_BTKH)
  )

  def by_head(x_BTNH):
    padding = ((0, 0), (0, -length % block), (0, 0), (0, 0))
    return jnp.pad(x_BTNH, padding).transpose(0, 2, 1, 3)

  def by_group(x_BNTH):
    return x_BNTH.reshape(batch, kv_heads, -1, *x_BNTH.shape[2:])

  r_BNRT = by_head(r_BTNR).swapaxes(2, 3)
  # Padding is behind all queries that count.
  segments = jnp.pad(segment_ids_BT, ((0, 0), (0, -length % block)))
  arrays = (
    by_group(by_head(q_BTNH)),
    by_head(k_BTKH),
    by_head(v_BTKH),
    by_group(r_BNRT),
    segments[:, None].astype(jnp.float32),
  )
  if places.time:
    arrays = _with_halo(arrays, places=places, static=static)
  *arrays, segments = arrays
  profiles = lay_out(profiles_RE.astype(r_BTNR.dtype), block=block)
  out_BKGTH = _attend((static, places), *arrays, profiles, segments)
  out_BNTH = out_BKGTH.reshape(batch, heads, *out_BKGTH.shape[3:])
  return out_BNTH.transpose(0, 2, 1, 3)[:, :length]


def _halo(length: int, *, static: Static) -> int:
  """Positions that a device with `length` of its own needs before them."""
  halo = static.block * static.reach(length // static.block + 1)
  if length % static.block or static.window > length:
    raise ValueError(
      f"pieces of {length} positions with blocks of {static.block} and a"
      f" window of {static.window}"
    )
  return halo


def _with_halo(arrays, *, places: Places, static: Static):
  """q, k, v, r, segments, each device's own behind its neighbour's last."""
  (axis,) = places.time

  def before(x, *, dim, seen):
    size = _halo(x.shape[dim], static=static)
    last = jax.lax.slice_in_dim(x, x.shape[dim] - size, None, axis=dim)
    if not seen:
      last = jnp.zeros_like(last)
    else:  # the first device gets zeros
      steps = [(i, i + 1) for i in range(_size(places.time) - 1)]
      last = jax.lax.ppermute(last, axis, steps)
    return jnp.concatenate([last, x], axis=dim)

  def device(q, k, v, r, segments):
    return (
      before(q, dim=3, seen=False),
      before(k, dim=2, seen=True),
      before(v, dim=2, seen=True),
      before(r, dim=4, seen=False),
      # One more, so that the zeros before the first device are no segment.
      before(segments + 1, dim=2, seen=True),
    )

  return places.run(device, arguments=_DIMS[:5], results=_DIMS[:5])(*arrays)


def _halo_of(q_BKGTH: jax.Array, *, places: Places, static: Static) -> int:
  """Positions before a device's own, where `_with_halo` put some."""
  blocks = q_BKGTH.shape[3] // static.block
  return static.block * static.reach(blocks) if places.time else 0


def lay_out(profiles_RE: jax.Array, *, block: int) -> jax.Array:
  """[C, R, M]: column m of block c holds distance c * M + (-m mod M)."""
  d_rel, extent = profiles_RE.shape
  padded = jnp.pad(profiles_RE, ((0, 0), (0, -extent % block)))
  blocks_CRM = padded.reshape(d_rel, -1, block).swapaxes(0, 1)
  return jnp.roll(blocks_CRM[..., ::-1], 1, axis=-1)


_NO_PROBABILITY = 1e30  # as the logarithm of a softmax's sum
# Dims of q, k, v, r, segments, then of profiles, out, log_total.
_DIMS = ["bhgt.", "bht.", "bht.", "bhg.t", "b.t", "...", "bhgt.", "bhgt"]
_ARGUMENTS = [*_DIMS[:4], _DIMS[5], _DIMS[4]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan, q, k, v, r, profiles, segments):
  return _forward(plan, q, k, v, r, profiles, segments)[0]


def _forward(plan, *arrays):
  static, places = plan

  def device(q, k, v, r, profiles, segments):
    out, log_total = flash_kernels.forward(
      static,
      q,
      k_BKTH=k,
      v_BKTH=v,
      r_BKGRT=r,
      profiles_CRM=profiles,
      segments_B1T=segments,
    )
    halo = _halo_of(q, places=places, static=static)
    return out[..., halo:, :], log_total[..., halo:]

  run = places.run(device, arguments=_ARGUMENTS, results=_DIMS[6:])
  out, log_total = cells.saved(*run(*arrays))
  return out, (*arrays, out, log_total)


def _backward(plan, kept, d_out):
  static, places = plan

  def device(q, k, v, r, profiles, segments, out, log_total, d_out):
    # Queries of the halo are the neighbour's: their probabilities are zero.
    halo = _halo_of(q, places=places, static=static)
    before = [(0, 0)] * 3 + [(halo, 0)]
    log_total = jnp.pad(log_total, before, constant_values=_NO_PROBABILITY)
    out, d_out = (jnp.pad(x, [*before, (0, 0)]) for x in (out, d_out))
    grads = flash_gradient.backward(
      static,
      q,
      k_BKTH=k,
      v_BKTH=v,
      r_BKGRT=r,
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
      grads.r_BKGRT,
      grads.profiles_BKCRM[None],
    )

  run = places.run(
    device,
    arguments=[*_ARGUMENTS, *_DIMS[6:], "bhgt."],
    results=[*_DIMS[:4], "tbh..."],
  )
  *grads, d_profiles = run(*kept, d_out)
  d_profiles = d_profiles.sum(axis=(0, 1, 2)).astype(kept[4].dtype)
  return *grads, d_profiles, jnp.zeros_like(kept[5])


_attend.defvjp(_forward, _backward)
