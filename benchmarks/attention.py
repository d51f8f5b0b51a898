"""Forms of packed attention on this machine, forward + backward.

`python -m benchmarks.attention [--rounds=5] [--json=FILE]`. The first form of
each table is the one the model uses on a CPU (cells in turn, scores computed
again for the gradient); the second is the same function over all cells at
once; the last is one dense softmax by automatic gradient.
"""

import functools
import json
import sys
from pathlib import Path

if not __package__:  # run as a file
  sys.path[0] = str(Path(__file__).parents[1])

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import timing
from tml_jax.kernels.attention import cells
from tml_jax.models import attention

_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times each form is run.")
_JSON = flags.DEFINE_string("json", "", "Also write the rows to this file.")

BATCH, LENGTH, WINDOW, HEAD_DIM, D_REL = 8, 512, 128, 32, 8
HEADS = {"4 heads, 2 kv": (4, 2), "8 heads, 4 kv": (8, 4)}


def dense(q, *, k_BTKH, v_BTKH, r_BTNR, profiles_RE, segment_ids_BT, window):
  """Every score in one array, the bias skewed as in `cells`."""
  length, extent = q.shape[1], profiles_RE.shape[1]
  group = q.shape[2] // k_BTKH.shape[2]
  k, v = (jnp.repeat(x, group, axis=2) for x in (k_BTKH, v_BTKH))
  profiles = jnp.pad(profiles_RE[:, ::-1], ((0, 0), (length + 1 - extent, 0)))
  bias = jnp.einsum("btnr,re->bnte", r_BTNR, profiles)
  bias = bias.reshape(*bias.shape[:2], -1)[..., length:]
  scores = jnp.einsum("btnh,bsnh->bnts", q, k)
  scores += bias.reshape(scores.shape)
  distance = jnp.arange(length)[:, None] - jnp.arange(length)
  mask = (distance >= 0) & (distance < window)
  mask &= segment_ids_BT[:, None, :, None] == segment_ids_BT[:, None, None]
  probs = jax.nn.softmax(jnp.where(mask, scores, cells.MASKED), axis=-1)
  return jnp.einsum("bnts,bsnh->btnh", probs, v)


def all_cells_at_once(form):
  """`form` as other platforms than a CPU compile it."""

  def run(*arguments, **keywords):
    chosen = jax.lax.platform_dependent
    jax.lax.platform_dependent = lambda *a, cpu, default: default(*a)
    try:
      return form(*arguments, **keywords)
    finally:
      jax.lax.platform_dependent = chosen

  return run


def with_gradient(form, segments):
  def run(q, k, v, r, profiles):
    def each(q, k, v, r, profiles):
      return form(
        q,
        k_BTKH=k,
        v_BTKH=v,
        r_BTNR=r,
        profiles_RE=profiles,
        segment_ids_BT=segments,
      )

    out, pull = jax.vjp(each, q, k, v, r, profiles)
    return out, pull(q)  # any cotangent of the right shape

  return run


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  rng = np.random.default_rng(0)

  def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape) * 0.3, jnp.float32)

  segments = jnp.asarray(np.repeat([[1, 2]], LENGTH // 2, axis=1))
  segments = jnp.broadcast_to(segments, (BATCH, LENGTH))
  results = {}
  for shape, (heads, kv_heads) in HEADS.items():
    for layer, form, extent, window in (
      ("sliding window", attention.local, WINDOW, WINDOW),
      ("global", attention.full, LENGTH, LENGTH),
    ):
      arguments = (
        normal(BATCH, LENGTH, heads, HEAD_DIM),
        normal(BATCH, LENGTH, kv_heads, HEAD_DIM),
        normal(BATCH, LENGTH, kv_heads, HEAD_DIM),
        normal(BATCH, LENGTH, heads, D_REL),
        normal(D_REL, extent),
      )
      forms = {
        "cells in turn": form,
        "cells at once": all_cells_at_once(form),
        "dense softmax": functools.partial(dense, window=window),
      }
      title = f"{layer}, {shape}, B{BATCH} T{LENGTH} window {window}"
      rows = timing.compare(
        {name: with_gradient(form, segments) for name, form in forms.items()},
        arguments=arguments,
        rounds=_ROUNDS.value,
      )
      timing.print_table(f"{title}, forward + backward", rows)
      results[title] = [row._asdict() for row in rows]
  if _JSON.value:
    Path(_JSON.value).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
  app.run(main)
