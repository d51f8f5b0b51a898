"""Forms of the routed experts on this machine, forward and backward.

`python -m benchmarks.moe [--rounds=7] [--json=FILE]`. The first form of each
table is the one `tml_jax.kernels.experts.tiled` uses; ratios above 1 are
slower. Every form is checked against the plain reference before it is timed.
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
from tml_jax.kernels.experts import tiled as tiled_lib

# tokens, d_model, expert_d_ff, experts, choices per token, tile
SHAPES = {
  "T4096 d256 ff256 E16 top2": (4096, 256, 256, 16, 2, 128),
  "T2048 d128 ff128 E8 top2": (2048, 128, 128, 8, 2, 32),
}
# The same of one output token a session.
FEW = {
  "tiny, 1 session": (1, 128, 128, 8, 2, 128),
  "tiny, 4 sessions": (4, 128, 128, 8, 2, 128),
  "tiny, 16 sessions": (16, 128, 128, 8, 2, 128),
  "wide, 1 session": (1, 512, 512, 32, 6, 128),
  "wide, 4 sessions": (4, 512, 512, 32, 6, 128),
  "wide, 16 sessions": (16, 512, 512, 32, 6, 128),
}


def _swiglu(x, gate, up, down):
  return (jax.nn.silu(x @ gate) * (x @ up)) @ down


def tiles_mapped(x, *, weights, experts_Nk, shares_Nk, tile):
  """The same layout, one tile after another, by automatic gradient."""
  layout = tiled_lib.plan(
    experts_Nk, num_experts=weights.gate_EDF.shape[0], tile=tile
  )
  rows = tiled_lib._rows(x, layout.token_P).reshape(-1, tile, x.shape[-1])

  def one(each):
    rows, expert = each
    return _swiglu(
      rows,
      weights.gate_EDF[expert],
      weights.up_EDF[expert],
      weights.down_EFD[expert],
    )

  out = jax.lax.map(one, (rows, layout.expert_I))
  return tiled_lib._combine(out.reshape(-1, x.shape[-1]), shares_Nk, layout)


def tiles_batched(x, *, weights, experts_Nk, shares_Nk, tile):
  """The same layout, all tiles in one product with gathered weights."""
  layout = tiled_lib.plan(
    experts_Nk, num_experts=weights.gate_EDF.shape[0], tile=tile
  )
  rows = tiled_lib._rows(x, layout.token_P).reshape(-1, tile, x.shape[-1])
  gate = jnp.einsum("imd,idf->imf", rows, weights.gate_EDF[layout.expert_I])
  up = jnp.einsum("imd,idf->imf", rows, weights.up_EDF[layout.expert_I])
  out = jnp.einsum(
    "imf,ifd->imd", jax.nn.silu(gate) * up, weights.down_EFD[layout.expert_I]
  )
  return tiled_lib._combine(out.reshape(-1, x.shape[-1]), shares_Nk, layout)


def ragged(x, *, weights, experts_Nk, shares_Nk):
  """Rows sorted by expert and lax.ragged_dot."""
  flat = experts_Nk.reshape(-1)
  order = jnp.argsort(flat)
  sizes = jnp.bincount(flat, length=weights.gate_EDF.shape[0])
  rows = x[order // experts_Nk.shape[1]]
  gate = jax.lax.ragged_dot(rows, weights.gate_EDF, sizes)
  up = jax.lax.ragged_dot(rows, weights.up_EDF, sizes)
  out = jax.lax.ragged_dot(jax.nn.silu(gate) * up, weights.down_EFD, sizes)
  out *= shares_Nk.reshape(-1)[order][:, None]
  return jnp.zeros_like(x).at[order // experts_Nk.shape[1]].add(out)


def inputs(tokens, d_model, d_ff, num_experts, per_token):
  rng = np.random.default_rng(0)

  def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape) * 0.1, jnp.float32)

  weights = tiled_lib.Weights(
    gate_EDF=normal(num_experts, d_model, d_ff),
    up_EDF=normal(num_experts, d_model, d_ff),
    down_EFD=normal(num_experts, d_ff, d_model),
  )
  noise = rng.random((tokens, num_experts))
  chosen = jnp.asarray(np.argsort(noise, axis=1)[:, :per_token], jnp.int32)
  return normal(tokens, d_model), weights, normal(tokens, per_token), chosen


def with_gradient(form):
  def run(x, weights, shares, chosen):
    def each(x, weights, shares):
      return form(x, weights=weights, experts_Nk=chosen, shares_Nk=shares)

    out, pull = jax.vjp(each, x, weights, shares)
    return out, pull(x)  # any cotangent of the right shape

  return run


def forward(form):
  def run(x, weights, shares, chosen):
    return form(x, weights=weights, experts_Nk=chosen, shares_Nk=shares)

  return run


def check(forms, *, arguments):
  expected = jax.jit(forward(tiled_lib.reference))(*arguments)
  for name, form in forms.items():
    actual = jax.jit(forward(form))(*arguments)
    np.testing.assert_allclose(actual, expected, atol=1e-4, err_msg=name)


def few(*, rounds: int) -> dict[str, list[dict]]:
  """Times of the forms of a tick, by shape."""
  results = {}
  for title, (*shape, tile) in FEW.items():
    arguments = inputs(*shape)
    forms = {
      "tiles": functools.partial(tiled_lib.fitted, tile=tile),
      "gathered": tiled_lib.gathered,
      "every expert on every token": tiled_lib.reference,
    }
    check(forms, arguments=arguments)
    wrapped = {name: forward(form) for name, form in forms.items()}
    rows = timing.compare(wrapped, arguments=arguments, rounds=rounds)
    timing.print_table(title, rows)
    results[title] = [row._asdict() for row in rows]
  return results


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  results = {}

  def record(title, forms, wrap, arguments):
    wrapped = {name: wrap(form) for name, form in forms.items()}
    rows = timing.compare(wrapped, arguments=arguments, rounds=_ROUNDS.value)
    timing.print_table(title, rows)
    results[title] = [row._asdict() for row in rows]

  for title, (*shape, tile) in SHAPES.items():
    arguments = inputs(*shape)
    forms = {
      f"tiles of {tile}, hand-written gradient": functools.partial(
        tiled_lib.tiled, tile=tile
      )
    }
    for other in (32, 64, 128, 256):
      if other != tile:
        forms[f"tiles of {other}, hand-written gradient"] = functools.partial(
          tiled_lib.tiled, tile=other
        )
    forms |= {
      f"tiles of {tile}, lax.map": functools.partial(tiles_mapped, tile=tile),
      f"tiles of {tile}, batched einsum": functools.partial(
        tiles_batched, tile=tile
      ),
      "lax.ragged_dot": ragged,
      "every expert on every token": tiled_lib.reference,
    }
    check(forms, arguments=arguments)
    record(f"{title}, forward", forms, forward, arguments)
    record(f"{title}, forward + backward", forms, with_gradient, arguments)
  results |= few(rounds=_ROUNDS.value)
  if _JSON.value:
    Path(_JSON.value).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":  # others import the forms
  _ROUNDS = flags.DEFINE_integer("rounds", 7, "Times each form is run.")
  _JSON = flags.DEFINE_string("json", "", "Also write the rows to this file.")
  app.run(main)
