"""What the kernels of attention share: pairs of blocks, their bias and scores.

For: `flash_kernels.py`. Not for: running anything. Start at `Pair`.

Pairs. The last dim of the grid goes through the pairs (query block, key block)
that causality and the window allow, by tables in scalar memory: query blocks
in turn, for each its key blocks from the farthest to its own. No step is spent
on a masked pair.

Bias. Scores of a pair `rel` blocks apart have distances rel * M + a - c. With
skew_e[a, c] = (r_a @ profiles)[e * M + (a - c) mod M], a product of M columns
whose row a is rotated by a places, the bias is skew_rel where c <= a and
skew_(rel - 1) elsewhere. So each block of the extent is multiplied and rotated
once for a query block, kept in VMEM for one step, and used by two pairs.

Legend: B batch, K kv heads, G query heads of a kv head, T time, H head dim, R
d_rel, C blocks of the extent, M positions of a block; rows a are queries of a
block, columns c its keys.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from tml_jax.kernels.attention import cells

LANES = 128
# Of 64 MiB on v5p and tpu7x, 128 on v6e; the default is 16 to 32.
_VMEM_LIMIT = 56 * 2**20


@dataclasses.dataclass(frozen=True)
class Static:
  """What a kernel is compiled for.

  Attributes:
    block: M; divides the sequence.
    window: positions seen, self included.
    interpret: runs without a TPU, for tests.
  """

  block: int
  window: int
  interpret: bool

  def reach(self, blocks: int) -> int:
    """Earlier key blocks that a query block sees, of a sequence's."""
    return min((self.window + self.block - 2) // self.block, blocks - 1)


def pairs(
  *, blocks: int, reach: int, keys: range
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Tables of the grid: query block, key block, key block written next."""
  found = [
    (query, key)
    for query in range(keys.start, blocks)
    for key in range(max(keys.start, query - reach), min(query + 1, keys.stop))
  ]
  written, following = [], keys.start
  for query, key in found:
    written.append(following - keys.start)
    if query == min(key + reach, blocks - 1):
      following = key + 1
  query, key = zip(*found, strict=True)
  return tuple(np.asarray(x, np.int32) for x in (query, key, written))


def dot(left, right, dims):
  """float32 product that contracts dims[0] of `left`, dims[1] of `right`."""
  return jax.lax.dot_general(
    left,
    right,
    (((dims[0],), (dims[1],)), ((), ())),
    # Mosaic multiplies float32 in bfloat16 unless told otherwise.
    precision=(
      jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    ),
    preferred_element_type=jnp.float32,
  )


def skew(x):
  """Row a of [M, M] rotated right by a places."""
  return pltpu.roll(x, 0, 1, stride=1, stride_axis=0)


def unskew(x):
  """Row a of [M, M] rotated left by a places.

  The hardware's rotation by row only goes right. Eight rows are one register
  high: a mod 8 places bit by bit, then eight rows at a time.
  """
  rows, columns = x.shape
  row = jax.lax.broadcasted_iota(jnp.int32, x.shape, 0)
  for bit in (1, 2, 4):
    x = jnp.where((row & bit) > 0, pltpu.roll(x, columns - bit, 1), x)
  parts = [x[:8]] + [
    pltpu.roll(x[start : start + 8], columns - start, 1)
    for start in range(8, rows, 8)
  ]
  return jnp.concatenate(parts, axis=0)


def column(row, lanes: int = LANES):
  """[1, M] as [M, lanes], every lane the same."""
  return jnp.broadcast_to(row, (lanes, row.shape[1])).T


def each_head(group: int, body) -> None:
  """Runs `body(head)` in a loop: unrolled, kernels take minutes to compile."""

  def step(head, _):
    body(head)
    return 0

  jax.lax.fori_loop(0, group, step, 0)


class Pair:
  """One step of the grid: which blocks, and their masked scores."""

  def __init__(self, step, *, static, blocks, first_key, tables, extents):
    self.static, self.extents = static, extents
    self.query, self.key = tables[0][step], tables[1][step]
    self.rel = self.query - self.key
    self.reach = static.reach(blocks)
    self.first = self.key == jnp.maximum(first_key, self.query - self.reach)
    self.blocks = blocks
    shape = (static.block, static.block)
    row = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    column = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    self.offset = row - column
    self.lower = self.offset >= 0

  def each_kind(self, body):
    """Runs `body(kind)` for the kind this pair is of."""
    near = (self.rel > 0) & (self.rel <= self.extents)
    for kind, holds in (
      ("own", self.rel == 0),
      ("near", near),
      ("far", self.rel > self.extents),
    ):
      furthest = {"own": 0, "near": 1, "far": self.extents + 1}[kind]
      if self.reach >= furthest:
        pl.when(holds)(functools.partial(body, kind))

  def mask(self, kind, query_segments, key_segments):
    mask = query_segments[:, :1] == key_segments
    if kind == "own":
      mask &= self.lower
    if self.static.window < self.blocks * self.static.block:
      distance = self.offset + self.rel * self.static.block
      mask &= distance < self.static.window
    return mask

  def product(self, r_RM, profiles_ref, extent):
    """Skewed bias of one block of the extent, [M, M]."""
    return skew(dot(r_RM, profiles_ref[extent], (0, 0)))

  def start_bias(self, r_RM, profiles_ref, skew_ref):
    """What the first pair of a query block needs from a pair before it."""
    inside = self.rel < self.extents

    @pl.when(inside)
    def _():
      skew_ref[...] = self.product(r_RM, profiles_ref, self.rel)

    @pl.when(~inside)
    def _():
      skew_ref[...] = jnp.zeros_like(skew_ref)

  def scores(self, kind, q, k, r_RM, *, profiles_ref, skew_ref, mask):
    """[M, M] float32; leaves the next pair its part of the bias."""
    scores = dot(q, k, (1, 1))
    if kind == "own":
      scores += skew_ref[...]
    elif kind == "near":
      following = self.product(r_RM, profiles_ref, self.rel - 1)
      scores += jnp.where(self.lower, skew_ref[...], following)
      skew_ref[...] = following
    return jnp.where(mask, scores, cells.MASKED)


def specs(q_BKGTH, profiles_CRM, *, block: int):
  """Block of each input, by what it follows."""
  _, _, group, _, head_dim = q_BKGTH.shape
  extents, d_rel, _ = profiles_CRM.shape

  def by_query(b, k, step, query, *_):
    return b, k, 0, query[step]

  def r_by_query(b, k, step, query, *_):
    return b, k, 0, 0, query[step]

  def by_key(b, k, step, query, key, *_):
    return b, k, key[step], 0

  return dict(
    q=pl.BlockSpec(
      (1, 1, group, block, head_dim), lambda *a: (*by_query(*a), 0)
    ),
    k=pl.BlockSpec((1, 1, block, head_dim), by_key),
    r=pl.BlockSpec((1, 1, group, d_rel, block), r_by_query),
    log=pl.BlockSpec((1, 1, group, block), by_query),
    profiles=pl.BlockSpec((extents, d_rel, block), lambda *_: (0, 0, 0)),
    rows=pl.BlockSpec(
      (1, 1, block), lambda b, k, step, query, *_: (b, 0, query[step])
    ),
    keys=pl.BlockSpec(
      (1, 1, block), lambda b, k, step, query, key, *_: (b, 0, key[step])
    ),
  )


def cost(
  q_BKGTH, profiles_CRM, tables, *, block, products, skews, per_query, calls=1
):
  """What the matrix units and HBM do, for the profiler and the roofline.

  Args:
    products: [M, H] x [H, M] of a pair and head.
    skews: products with r or its gradient, of a block of the extent and head.
    per_query: arrays like q that are read or written in a call.
    calls: that share the work of `tables`.
  """
  batch, kv_heads, group, _, head_dim = q_BKGTH.shape
  extents, d_rel, _ = profiles_CRM.shape
  query, key = tables[:2]
  near = int(np.sum(query - key < extents))
  lead = batch * kv_heads
  pair_flops = products * len(query) * head_dim + skews * near * d_rel
  size = q_BKGTH.dtype.itemsize
  keys = 2 * len(query) * block * head_dim * size
  return pl.CostEstimate(
    flops=2 * lead * group * block * block * pair_flops // calls,
    transcendentals=lead * group * block * block * len(query) // calls,
    bytes_accessed=lead * keys // calls + per_query * q_BKGTH.size * size,
  )


PARAMS = pltpu.CompilerParams(
  dimension_semantics=("parallel", "parallel", "arbitrary"),
  vmem_limit_bytes=_VMEM_LIMIT,
)
