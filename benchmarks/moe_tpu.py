"""A tick's routed experts as a TPU chip would run them.

`python -m benchmarks.moe_tpu` (needs libtpu, no TPU) compiles one layer of the
reference model's experts for one chip of a slice, in two forms: the grouped
kernels, and gather + gemv, which reads each choice's expert. Writes
benchmarks/moe_tpu.md. Start at `main`. Bytes are those of the compiled
program's instructions (`compiled/roofline.py`); a kernel's are its own
statement, which takes every expert of the chip as read.
"""

import dataclasses
import functools
import pathlib
import sys

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from absl import app

from benchmarks import timing
from tml_jax.parallel import topology

if __name__ == "__main__":  # before jax starts
  topology.prepare_environment()

import jax
import jax.numpy as jnp
import numpy as np

from experiments import interaction as sizes
from tml_jax.compiled import hlo, roofline
from tml_jax.kernels.experts import grouped, tiled
from tml_jax.parallel import chips

_NAME = "v5p:2x2x1"
_CASES = ((8, 16), (16, 16), (16, 64))  # chips of the slice, sessions


@dataclasses.dataclass(frozen=True)
class Row:
  """One form on one chip; bytes of HBM, seconds at peak."""

  hbm_bytes: float
  seconds: float
  temporary_bytes: int


def compiled(function, arguments, *, device) -> Row:
  sharding = jax.sharding.SingleDeviceSharding(device)
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    arguments,
  )
  program = jax.jit(function).lower(*abstract).compile()
  place = roofline.Place((1,), ("data",), np.array([device.coords]))
  analysis = roofline.analyse(
    hlo.parse(program.as_text()), chip=chips.of(_NAME), place=place
  )
  memory = program.memory_analysis()
  return Row(
    analysis.hbm_bytes, analysis.times.instructions_s, memory.temp_size_in_bytes
  )


def _grouped(x_ND, weights, experts_Nk, shares_Nk, *, rows: int):
  return grouped.grouped(
    x_ND, weights=weights, experts_Nk=experts_Nk, shares_Nk=shares_Nk, rows=rows
  )


def _gathered(x_ND, weights, experts_Nk, shares_Nk):
  return tiled.gathered(
    x_ND, weights=weights, experts_Nk=experts_Nk, shares_Nk=shares_Nk
  )


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; no arguments")
  model = sizes.get_config("tml_interaction_small").model
  device = topology.devices(_NAME, num_slices=1)[0]
  k, dtype = model.experts_per_token, jnp.bfloat16

  def shape(*dims, dtype=dtype):
    return jax.ShapeDtypeStruct(dims, dtype)

  lines = [
    "# A tick's experts on a TPU chip",
    "",
    timing.made(),
    "",
    "`python -m benchmarks.moe_tpu`: one layer of `tml_interaction_small`"
    f" ({model.num_experts} experts, {k} a token, {model.d_model} x"
    f" {model.expert_d_ff}, bfloat16), one output token a session, on one"
    " v5p chip of a slice that holds the experts once, as libtpu compiles it."
    " Nothing ran on a TPU.",
    "",
    "| chips | sessions | choices a chip | form | HBM MB | bound, us |"
    " temporaries MB |",
    "|---:|---:|---:|---|---:|---:|---:|",
  ]
  for count, sessions in _CASES:
    here = model.num_experts // count
    mean = sessions * k / count
    weights = tiled.Weights(
      gate_EDF=shape(here, model.d_model, model.expert_d_ff),
      up_EDF=shape(here, model.d_model, model.expert_d_ff),
      down_EFD=shape(here, model.expert_d_ff, model.d_model),
    )
    grouped_row = compiled(
      functools.partial(_grouped, rows=sessions * k),
      (
        shape(sessions, model.d_model),
        weights,
        shape(sessions, k, dtype=jnp.int32),
        shape(sessions, k, dtype=jnp.float32),
      ),
      device=device,
    )
    # Rows of the choices that fell on this chip, as many as fall on average.
    rows = round(mean)
    gathered_row = compiled(
      _gathered,
      (
        shape(rows, model.d_model),
        weights,
        shape(rows, 1, dtype=jnp.int32),
        shape(rows, 1, dtype=jnp.float32),
      ),
      device=device,
    )
    one = 3 * model.d_model * model.expert_d_ff * 2
    visited = here * (1 - (1 - 1 / here) ** rows)
    ideal = Row(
      visited * one,
      visited * one / chips.of(_NAME).hbm_bytes_per_second,
      0,
    )
    for name, row in (
      ("grouped kernels", grouped_row),
      ("gather + gemv", gathered_row),
      (f"each of {visited:.1f} chosen experts read once", ideal),
    ):
      lines.append(
        f"| {count} | {sessions} | {mean:.0f} | {name} |"
        f" {row.hbm_bytes / 1e6:,.0f} | {1e6 * row.seconds:,.0f} |"
        f" {row.temporary_bytes / 1e6:,.0f} |"
      )
  lines += [
    "",
    "XLA writes the weights that it gathers to memory before it multiplies, so"
    " gather + gemv moves them three times and needs room for them. The grouped"
    " kernels fetch an expert's tiles when its rows come and visit no expert"
    " without rows: they are the gather and the gemv in one, and read what the"
    " third line says; their statement to the compiler does not know which"
    " experts are chosen. So a tick on TPUs has the grouped form.",
  ]
  text = "\n".join(lines) + "\n"
  pathlib.Path(__file__).with_suffix(".md").write_text(text)
  print(text)


if __name__ == "__main__":
  app.run(main)
