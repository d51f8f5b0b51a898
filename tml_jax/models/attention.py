"""Grouped-query attention with a learned relative bias, Inkling's form.

For: sliding-window and global layers, packed training sequences (`__call__`)
and cached chunks (`extend`). Not for: cross attention. Start at `Attention`;
`full` and `local` cut a sequence into the cells of `cells.py`; `flash.py` has
the kernels for TPUs, `cached.py` what a tick computes. Formulas:
Inkling's, as in Hugging Face transformers 5.23.

Legend: B batch, T time, S keys, N query heads, K kv heads, G = N // K,
H head dim, R d_rel, E extent of the bias, C blocks.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from tml_jax.config import AttentionForm, ModelConfig, Numerics, Position
from tml_jax.kernels.attention import blockwise, cells, flash
from tml_jax.models import cache as cache_lib
from tml_jax.models import (
  cached,
  invariant,
  norm,
  precision,
  rotary,
  short_conv,
)
from tml_jax.models.execution import Execution

# Queries of a cell, and cells of a sequence at most, as each is compiled for
# itself. On two cores cells of 128 take half the time of one of 896
# (benchmarks/README.md).
_QUERIES, _MOST_CELLS = 128, 8
# A window of twice so many is cut into two cells.
_LOCAL_QUERIES = 64


@jax.named_scope("global")
def full(
  q_BTNH: jax.Array,
  *,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  r_BTNR: jax.Array,
  profiles_RE: jax.Array,
  segment_ids_BT: jax.Array,
) -> jax.Array:
  """Causal attention within segments over the whole sequence.

  `q` and `r` come already scaled. Queries are cut into cells that read the keys
  up to their own last one: half of [T, T] is never computed. A sequence of more
  than two extents of the bias is cut into blocks, so that no [T, T] exists.
  """
  length, extent = q_BTNH.shape[1], profiles_RE.shape[1]
  if length > 2 * extent:
    return _banded(
      blockwise.attend,
      q_BTNH,
      previous=1,
      k_BTKH=k_BTKH,
      v_BTKH=v_BTKH,
      r_BTNR=r_BTNR,
      profiles_RE=profiles_RE,
      segment_ids_BT=segment_ids_BT,
    )
  kv_heads = k_BTKH.shape[2]
  queries = max(_QUERIES, -(-length // _MOST_CELLS))
  outs = []
  for start in range(0, length, queries):
    end = min(start + queries, length)
    out = cells.attend(
      cells.Cells(
        q=_group(q_BTNH[:, None, start:end], kv_heads),
        k=k_BTKH[:, None, :end].swapaxes(2, 3),
        v=v_BTKH[:, None, :end].swapaxes(2, 3),
        r=_group(r_BTNR[:, None, start:end], kv_heads),
      ),
      profiles_RE=profiles_RE[:, :end],
      query_segments_BCT=segment_ids_BT[:, None, start:end],
      key_segments_BCS=segment_ids_BT[:, None, :end],
      window=end,
    )
    outs.append(_ungroup(out)[:, 0])
  return jnp.concatenate(outs, axis=1)


@jax.named_scope("local")
def local(
  q_BTNH: jax.Array,
  *,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  r_BTNR: jax.Array,
  profiles_RE: jax.Array,
  segment_ids_BT: jax.Array,
) -> jax.Array:
  """Attention to the last E positions (self included) within segments.

  Blocks of E / 2 queries see their own and the two previous blocks: work and
  memory grow with T * 3E / 2. The window is exact.
  """
  window = profiles_RE.shape[1]
  is_cut = window % 2 == 0 and window >= 2 * _LOCAL_QUERIES
  return _banded(
    functools.partial(cells.attend, window=window),
    q_BTNH,
    previous=2 if is_cut else 1,
    k_BTKH=k_BTKH,
    v_BTKH=v_BTKH,
    r_BTNR=r_BTNR,
    profiles_RE=profiles_RE,
    segment_ids_BT=segment_ids_BT,
  )


def _banded(
  attend,
  q_BTNH,
  *,
  previous,
  k_BTKH,
  v_BTKH,
  r_BTNR,
  profiles_RE,
  segment_ids_BT,
):
  """Cuts a sequence into blocks of E / previous queries.

  Each has its own keys and those of so many previous blocks.
  """
  batch, length = q_BTNH.shape[:2]
  kv_heads, block = k_BTKH.shape[2], profiles_RE.shape[1] // previous
  padding = -length % block
  blocks = (length + padding) // block

  def cut(x):
    x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
    return x.reshape(batch, blocks, block, *x.shape[2:])

  def with_previous(x):
    none = [(0, 0)] * (x.ndim - 2)
    padded = jnp.pad(x, [(0, 0), (previous, 0), *none])
    each = [padded[:, i : i + blocks] for i in range(previous + 1)]
    return jnp.concatenate(each, axis=2)

  # Segment + 1, so that missing blocks before the first one (0) match nothing;
  # padding at the end only reaches queries that are cut off again.
  segments = cut(segment_ids_BT + 1)
  out = attend(
    cells.Cells(
      q=_group(cut(q_BTNH), kv_heads),
      k=with_previous(cut(k_BTKH)).swapaxes(2, 3),
      v=with_previous(cut(v_BTKH)).swapaxes(2, 3),
      r=_group(cut(r_BTNR), kv_heads),
    ),
    profiles_RE=profiles_RE,
    query_segments_BCT=segments,
    key_segments_BCS=with_previous(segments),
  )
  return _ungroup(out).reshape(batch, blocks * block, *q_BTNH.shape[2:])[
    :, :length
  ]


def _group(x_BCTNH: jax.Array, kv_heads: int) -> jax.Array:
  """[B, C, T, N, H] to [B, C, K, G, T, H]."""
  batch, blocks, length, heads, width = x_BCTNH.shape
  shape = (batch, blocks, length, kv_heads, heads // kv_heads, width)
  return x_BCTNH.reshape(shape).transpose(0, 1, 3, 4, 2, 5)


def _ungroup(x_BCKGTH: jax.Array) -> jax.Array:
  """[B, C, K, G, T, H] to [B, C, T, N, H]."""
  batch, blocks, kv_heads, group, length, width = x_BCKGTH.shape
  shape = (batch, blocks, length, kv_heads * group, width)
  return x_BCKGTH.transpose(0, 1, 4, 2, 3, 5).reshape(shape)


class Attention(nn.Module):
  """One layer's attention, global or sliding-window."""

  config: ModelConfig
  execution: Execution
  is_global: bool

  def setup(self):
    config = self.config
    if self.is_global:
      heads, kv_heads = config.num_heads, config.num_kv_heads
      head_dim, extent = config.head_dim, config.rel_extent
    else:
      heads, kv_heads = config.swa_num_heads, config.swa_num_kv_heads
      head_dim, extent = config.swa_head_dim, config.sliding_window
    if heads % kv_heads:
      raise ValueError(
        f"{heads} query heads cannot share {kv_heads} kv heads evenly; make"
        " the first a multiple of the second"
      )
    self.head_dim = head_dim
    d_model, taps = config.d_model, config.conv_kernel
    normal = nn.initializers.normal(config.init_std)
    ones = nn.initializers.ones

    def declare(name, shape, names, init=normal):
      return norm.param(self, name=name, init=init, shape=shape, names=names)

    kv_names = ("embed", "kv_heads", "head_dim")
    self.query = declare(
      "query", (d_model, heads, head_dim), ("embed", "heads", "head_dim")
    )
    self.key = declare("key", (d_model, kv_heads, head_dim), kv_names)
    self.value = declare("value", (d_model, kv_heads, head_dim), kv_names)
    self.has_bias = config.position is Position.RELATIVE_BIAS
    if self.has_bias:
      self.relative = declare(
        "relative", (d_model, heads, config.d_rel), ("embed", "heads", "d_rel")
      )
    self.output = declare(
      "output", (heads, head_dim, d_model), ("heads", "head_dim", "embed")
    )
    conv_shape = (taps, kv_heads, head_dim)
    conv_names = ("conv", "kv_heads", "head_dim")
    self.key_conv = declare("key_conv", conv_shape, conv_names)
    self.value_conv = declare("value_conv", conv_shape, conv_names)
    self.query_norm = declare(
      "query_norm",
      (head_dim,),
      ("norm",),
      nn.initializers.constant(config.query_norm_init),
    )
    self.key_norm = declare("key_norm", (head_dim,), ("norm",), ones)
    shape = (config.d_rel, extent)
    # Without a bias all forms add one of zeros; its extent cuts the blocks.
    self.profiles = (
      declare("profiles", shape, ("d_rel", "distance"))
      if self.has_bias
      else jnp.zeros(shape, jnp.float32)
    )

  def _project(self, x_BTD: jax.Array) -> tuple[jax.Array, ...]:
    names = ("query", "key", "value") + ("relative",) * self.has_bias
    forms = {
      name: precision.form_of(self, name) for name in precision.ATTENTION
    }
    q, k, v, *r = (
      precision.times(x_BTD, getattr(self, name), form=forms.get(name))
      for name in names
    )
    no_bias = (*q.shape[:3], self.config.d_rel)
    return q, k, v, *(r or [jnp.zeros(no_bias, q.dtype)])

  def _normed(self, x_BTNH, *, scale):
    eps = self.config.rms_norm_eps
    rms_norm = functools.partial(norm.rms_norm, scale=scale, eps=eps)
    return norm.rowwise(rms_norm, x_BTNH, numerics=self.execution.numerics)

  def _turned(self, x_BTNH, times_BT):
    """By the time of each position; as it is where there are no times."""
    if times_BT is None:
      return x_BTNH
    return norm.rowwise(
      rotary.turn, x_BTNH, times_BT, numerics=self.execution.numerics
    )

  def _scaled(self, q, r, n_BT):
    """Head norm, 1 / head_dim and, on global layers, log length scaling."""
    config = self.config
    q = self._normed(q, scale=self.query_norm / self.head_dim)
    if not self.is_global or not config.log_scaling_floor:
      return q, r

    def scale(q, r, n):
      ratio = n.astype(jnp.float32) / config.log_scaling_floor
      tau = 1.0 + config.log_scaling_alpha * jnp.log(jnp.maximum(ratio, 1.0))
      tau = tau[..., None, None]
      return (q * tau).astype(q.dtype), (r * tau).astype(r.dtype)

    return norm.rowwise(scale, q, r, n_BT, numerics=self.execution.numerics)

  def __call__(
    self,
    x_BTD: jax.Array,
    *,
    segment_ids_BT: jax.Array,
    positions_BT: jax.Array,
    times_BT: jax.Array | None,
  ) -> jax.Array:
    q, k, v, r = self._project(x_BTD)
    k = short_conv.convolve(
      k,
      kernel_KD=self.key_conv,
      segment_ids_BT=segment_ids_BT,
      numerics=self.execution.numerics,
    )
    v = short_conv.convolve(
      v,
      kernel_KD=self.value_conv,
      segment_ids_BT=segment_ids_BT,
      numerics=self.execution.numerics,
    )
    k = self._turned(self._normed(k, scale=self.key_norm), times_BT)
    q, r = self._scaled(q, r, positions_BT + 1)
    q = self._turned(q, times_BT)
    if self.is_initializing():
      return self._output(q)  # every parameter has been touched
    keywords = dict(k_BTKH=k, v_BTKH=v, r_BTNR=r, profiles_RE=self.profiles)
    keywords["segment_ids_BT"] = segment_ids_BT
    length, window = x_BTD.shape[1], self.config.sliding_window
    is_full = self.is_global or length <= window
    if self.execution.attention is AttentionForm.PALLAS:
      out = flash.attend(
        q,
        window=length if is_full else window,
        block=flash.GLOBAL_BLOCK if self.is_global else flash.LOCAL_BLOCK,
        **keywords,
      )
    elif self.execution.numerics is Numerics.INVARIANT:
      form, seen = (full, length) if self.is_global else (local, window)
      out = invariant.sequence(form, seen, q, *keywords.values())
    else:
      out = (full if is_full else local)(q, **keywords)
    return self._output(out)

  def _output(self, out_BTNH: jax.Array) -> jax.Array:
    form = precision.form_of(self, "output")
    return precision.times(out_BTNH, self.output, form=form, inputs=2)

  def extend(
    self,
    x_BTD: jax.Array,
    *,
    layer: dict[str, jax.Array],
    ring: cache_lib.Ring,
    past_B: jax.Array,
    lengths_B: jax.Array,
    times_BT: jax.Array | None,
    ahead: int,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Attends from a chunk to the cache and the chunk itself.

    Args:
      x_BTD: the chunk, its first `lengths_B` positions valid.
      layer: cache of this layer (`cache.LAYER_FIELDS`).
      ring: what it keeps.
      past_B: positions of the session so far.
      lengths_B: valid positions of the chunk.
      times_BT: as `embed.times`.
      ahead: that a position counts itself to be further on.

    Returns:
      the outputs and the fields of `layer` that changed, those of short
      convolutions as histories (`cache.kept`).
    """
    chunk = x_BTD.shape[1]
    if chunk > ring.chunk:
      raise ValueError(
        f"a chunk of {chunk} positions would overwrite what its first query"
        f" sees: the cache was made for chunks of {ring.chunk}"
      )
    q, k, v, r = self._project(x_BTD)
    k, key_conv = short_conv.extend(
      k,
      kernel_KD=self.key_conv,
      state_BKD=layer["key_conv"],
      numerics=self.execution.numerics,
    )
    v, value_conv = short_conv.extend(
      v,
      kernel_KD=self.value_conv,
      state_BKD=layer["value_conv"],
      numerics=self.execution.numerics,
    )
    k = self._turned(self._normed(k, scale=self.key_norm), times_BT)
    steps = jnp.arange(chunk)
    index_BT = past_B[:, None] + steps
    q, r = self._scaled(q, r, ring.seen(index_BT + 1 + ahead))
    q = self._turned(q, times_BT)
    is_valid_BT = steps < lengths_B[:, None]
    slot_BT = jnp.where(is_valid_BT, ring.slot(index_BT), ring.slots)

    @jax.vmap
    def write(old, at, new):
      return old.at[:, at].set(new.astype(old.dtype), mode="drop")

    values = write(layer["value"], slot_BT, v.swapaxes(1, 2))
    # One dim in front of the slots, as the values have it.
    batch, kv_heads, head_dim, slots = layer["key"].shape
    flat = (batch, kv_heads * head_dim, slots)
    k_BXT = k.reshape(batch, chunk, -1).swapaxes(1, 2)
    keys = write(layer["key"].reshape(flat), slot_BT, k_BXT)
    keys = keys.reshape(layer["key"].shape)
    is_invariant = self.execution.numerics is Numerics.INVARIANT
    out = (invariant.cached if is_invariant else cached.attend)(
      q,
      keys,
      values,
      r_BTNR=r,
      profiles_RE=self.profiles,
      query_index_BT=index_BT,
      key_index_BS=ring.held(past_B + lengths_B),
      ring=ring,
    )
    changed = dict(
      key=keys, value=values, key_conv=key_conv, value_conv=value_conv
    )
    return self._output(out), changed
