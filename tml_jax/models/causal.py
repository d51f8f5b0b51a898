"""Causal attention of a whole sequence, in parts that skip most of the future.

For: `attention.full` on sequences that are not cut into bands. Not for: sliding
windows. Start at `attend`.

One cell of `cells.py` computes scores of all T x T pairs, of which half are in
the future. Here the queries are cut into parts, and each part sees the keys up
to its own end: with n parts (n + 1) / 2n of the pairs are computed.

Legend: as `cells.py`.
"""

import jax
import jax.numpy as jnp

from tml_jax.models import cells as cells_lib

# Four compute 5 / 8 of the pairs; each is compiled on its own.
PARTS = 4
# Queries of a part, at least: shorter ones cost more than they save.
SHORTEST = 64


def attend(
  cells: cells_lib.Cells,
  *,
  profiles_RE: jax.Array,
  segments_BT: jax.Array,
  parts: int = PARTS,
) -> jax.Array:
  """Outputs [B, 1, K, G, T, H] of causal attention within segments.

  Args:
    cells: with leading dims [B, 1, K], as many keys as queries.
    profiles_RE: bias profiles.
    segments_BT: segment of each position.
    parts: at most so many.
  """
  length = cells.q.shape[-2]
  size = max(-(-length // parts), SHORTEST)
  outs = []
  for start in range(0, length, size):
    end = min(start + size, length)
    outs.append(
      cells_lib.attend(
        cells_lib.Cells(
          q=cells.q[..., start:end, :],
          k=cells.k[..., :end, :],
          v=cells.v[..., :end, :],
          r=cells.r[..., start:end, :],
        ),
        profiles_RE=profiles_RE[:, :end],
        query_segments_BCT=segments_BT[:, None, start:end],
        key_segments_BCS=segments_BT[:, None, :end],
        window=end,
      )
    )
  return jnp.concatenate(outs, axis=-2)
