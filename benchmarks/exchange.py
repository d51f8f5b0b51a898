"""Routed experts of one layer on a slice: all-gather against all-to-all.

`python -m benchmarks.exchange [--topology=v5p:8x8x8] [--experts=8,64]`
compiles forward and backward of the reference model's routed experts, alone,
for a slice that is not there (`pip install '.[aot]'`), and prints what a chip
receives over ICI, the least time of it, and the memory. A loop whose length
depends on the data counts once: one round, which an even load needs.
"""

import dataclasses
import json
import math
import sys
from pathlib import Path

if not __package__:  # run as a file
  sys.path[0] = str(Path(__file__).parents[1])

from absl import app, flags

from experiments import interaction, topologies
from tml_jax.config import MoeDispatch
from tml_jax.parallel import chips, topology

_TOPOLOGY = flags.DEFINE_string("topology", "v5p:8x8x8", "The slice.")
_EXPERTS = flags.DEFINE_list(
  "experts", ["8", "64"], "Sizes of the expert axis."
)
_DISPATCH = flags.DEFINE_list(
  "dispatch",
  [MoeDispatch.ALL_GATHER, MoeDispatch.RAGGED_ALL_TO_ALL],
  "Values of train.execution.moe_dispatch.",
)
_JSON = flags.DEFINE_string("json", "", "Also write the rows to this file.")


def row(config, *, devices, dispatch: str, size: int) -> dict[str, float]:
  """One dispatch on one mesh."""
  import jax

  from tml_jax.compiled import hlo, roofline
  from tml_jax.kernels.experts import tiled
  from tml_jax.parallel import mesh as mesh_lib

  model, chip = config.model, chips.of(_TOPOLOGY.value)
  mesh_config = dataclasses.replace(
    config.mesh,
    fsdp=len(devices) // size,
    expert=size,
    rules=topologies.RULES,
  )
  rules = mesh_config.axis_rules
  mesh = mesh_lib.create(mesh_config, devices=devices)
  execution = dataclasses.replace(
    config.train.execution, moe_dispatch=MoeDispatch(dispatch)
  )

  def array(shape, *names, dtype="bfloat16"):
    place = mesh_lib.sharding(
      names, shape=shape, mesh=mesh, rules=rules, what="argument"
    )
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

  def step(x, weights, shares, chosen, dy):
    def form(x, weights, shares):
      return tiled.apply(
        x,
        weights=weights,
        experts_BTk=chosen,
        shares_BTk=shares,
        tile=model.moe_tile,
        execution=execution,
      )

    y, pull = jax.vjp(form, x, weights, shares)
    return y, pull(dy)

  into = (model.num_experts, model.d_model, model.expert_d_ff)
  weights = tiled.Weights(
    gate_EDF=array(into, *tiled.NAMES.gate_EDF),
    up_EDF=array(into, *tiled.NAMES.up_EDF),
    down_EFD=array((into[0], into[2], into[1]), *tiled.NAMES.down_EFD),
  )
  tokens = (config.train.microbatch_size, config.streams.seq_len)
  names = ("batch", "time", "choice")
  x = array((*tokens, model.d_model), *names)
  per_token = (*tokens, model.experts_per_token)
  shares = array(per_token, *names, dtype="float32")
  chosen = array(per_token, *names, dtype="int32")
  with mesh_lib.use(mesh, rules=rules):
    lowered = jax.jit(step).lower(x, weights, shares, chosen, x)
  compiled = lowered.compile()
  analysis = roofline.analyse(
    hlo.parse(compiled.as_text()), chip=chip, place=roofline.place_of(mesh)
  )
  over_experts = [e for e in analysis.exchanges if "expert" in e.axes]
  memory = compiled.memory_analysis()
  return {
    "experts": size,
    "dispatch": dispatch,
    "tokens_per_device": math.prod(tokens) // len(devices),
    "ici_gb": sum(e.ici_bytes for e in over_experts) / 1e9,
    "ici_s": sum(e.seconds for e in over_experts),
    "collectives": {
      f"{e.kind} {'+'.join(e.axes)}": [e.count, e.ici_bytes / 1e9, e.seconds]
      for e in analysis.exchanges
    },
    "hbm_gb_moved": analysis.hbm_bytes / 1e9,
    "instructions_s": analysis.times.instructions_s,
    "flops": analysis.flops,
    "peak_gib": memory.peak_memory_in_bytes / chips.GIB,
  }


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  topology.prepare_environment()
  config = interaction.get_config("tml_interaction_small")
  devices = topology.devices(_TOPOLOGY.value, num_slices=1)
  print(f"A layer on {_TOPOLOGY.value}, forward and backward, of a device:")
  print(
    "| devices of experts | dispatch | ICI over them, GB | least s"
    " | HBM moved, GB | instructions, least s | live peak, GiB |"
  )
  print("|--:|---|--:|--:|--:|--:|--:|")
  rows = []
  for size in map(int, _EXPERTS.value):
    for dispatch in _DISPATCH.value:
      one = row(config, devices=devices, dispatch=dispatch, size=size)
      rows.append(one)
      print(
        f"| {size} | {dispatch} | {one['ici_gb']:.2f} | {one['ici_s']:.4f}"
        f" | {one['hbm_gb_moved']:.0f} | {one['instructions_s']:.4f}"
        f" | {one['peak_gib']:.1f} |",
        flush=True,
      )
  if _JSON.value:
    Path(_JSON.value).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
  app.run(main)
