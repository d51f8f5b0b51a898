"""MaxText's compiled programs, read by the reader of ours.

For: `read`, the report of a row from the files that `maxtext_process.py` left:
keys of `tml_jax.aot --json` where they mean the same. Not for: tables
(`maxtext_tables.py`).
"""

import dataclasses
import json
import lzma
import pathlib
import types
from typing import Any

import numpy as np

from benchmarks import maxtext_process, maxtext_rows
from experiments import interaction
from tml_jax import errors
from tml_jax.compiled import (
  costs,
  executed,
  hlo,
  out_of_memory,
  report,
  roofline,
  scopes,
)
from tml_jax.config import Position
from tml_jax.parallel import chips
from tml_jax.training import flops

# Matrix products of a pair of queries and keys in kernels that do not say:
# scores and their sum of values; scores again and the gradients of values,
# shares and keys; scores, shares and queries. One kernel for all gradients
# makes scores and shares once.
_PRODUCTS = {"_fwd": 2, "_dkv": 4, "_dq": 3}
_FUSED = 5
_NARROW = 8  # rows, columns or depth of a product
_BOUNDS = (
  "roofline_s",
  "mfu_bound",
  "mfu_bound_exposed",
  "mfu_bound_reachable",
  "mfu_bound_reachable_exposed",
)


def read(row: maxtext_rows.Row, *, directory: pathlib.Path) -> dict[str, Any]:
  """The report of a row: keys of `tml_jax.aot --json`, or the refusal.

  Raises:
    errors.UserError: the row was not compiled into `directory`.
  """
  described, program = maxtext_process.program_files(
    row.name, directory=directory
  )
  if not described.exists():
    raise errors.UserError(
      f"{described} is missing: run without --nocompile first"
    )
  about = json.loads(described.read_text(encoding="utf-8"))
  head = {
    "row": row.name,
    "note": row.note,
    "topology": row.topology,
    "num_slices": 1,
    "program": "step",
    "tokens_per_chip": row.tokens,
    "buffer": row.buffer,
    "flags": about.get("flags", list(row.arguments)),
    "xla_flags": about.get("xla_flags", list(row.xla_flags)),
    "versions": about.get("versions", {}),
  }
  if "refusal" in about:
    return head | refused(about)
  with lzma.open(program, "rt", encoding="utf-8") as file:
    module = hlo.parse(file.read())
  return head | built(about, module=module, row=row)


def refused(about: dict[str, Any]) -> dict[str, Any]:
  """What there is to say where there is no program."""
  message = about["refusal"]
  lines = [line.strip() for line in message.splitlines() if line.strip()]
  result = {"status": about.get("status", 3), "message": lines[:12]}
  found = out_of_memory.parse(message)
  if found is not None:
    result["needed_gib"] = found.needed / chips.GIB
    result["limit_gib"] = found.limit / chips.GIB
  for key in ("compile_s", "host_rss_gib"):
    if key in about:
      result[key] = about[key]
  return result


def built(
  about: dict[str, Any], *, module: hlo.Module, row: maxtext_rows.Row
) -> dict[str, Any]:
  """Numbers of a program, attention counted where its kernels do not.

  Raises:
    ValueError: it takes other tokens at once than the row says.
  """
  chip = chips.of(row.topology)
  model = about["model"]
  devices = len(about["coords"])
  tokens = devices * model["per_device_batch_size"] * model["max_target_length"]
  num_chips = devices // chip.devices
  if tokens != row.tokens * num_chips:
    raise ValueError(f"{row.name}: {tokens} tokens on {num_chips} chips")
  place = roofline.Place(
    mesh_shape=tuple(about["mesh_shape"]),
    names=tuple(about["mesh_names"]),
    coords=np.array(about["coords"]),
  )
  # No recipe keeps arguments in the host, and older reports do not say so.
  in_host = {"host_argument_size_in_bytes": 0}
  memory = types.SimpleNamespace(**in_host | about["memory"])

  def report_of(module: hlo.Module) -> dict[str, Any]:
    return report.build(
      roofline.analyse(module, chip=chip, place=place),
      by_module=scopes.by_module(module, chip=chip, place=place),
      chip=chip,
      num_devices=devices,
      model_flops=model_flops(model, tokens=tokens),
      state={"arguments": memory.argument_size_in_bytes},
      memory=memory,
    )

  as_read = report_of(module)
  stated, kernels = with_attention(module, model=model)
  result = report_of(stated) if kernels else as_read
  return {
    "mesh": dict(zip(place.names, place.mesh_shape, strict=True)),
    "tokens_per_step": int(tokens),
    "accumulation_steps": model["gradient_accumulation_steps"],
    "model": model,
    **result,
    "attention_counted_here": kernels,
    "filled_narrow_s": filled_narrow_s(module, chip=chip),
    "as_read": {
      key: as_read[key] for key in ("flops_per_chip", "flop_ratio", *_BOUNDS)
    },
    "kernels_without_flops": as_read["kernels_without_flops"],
    "lower_s": about["lower_s"],
    "compile_s": about["compile_s"],
    "host_rss_gib": about["host_rss_gib"],
  }


def filled_narrow_s(module: hlo.Module, *, chip: chips.Chip) -> float:
  """Seconds of the reachable time that fill up products of few columns.

  A product of one row or column may well not be one of matrix units.
  """
  extra = 0.0
  for step in executed.Walk(module).executed():
    item, scope = step.instruction, step.computation
    for product in costs.products(item, scope=scope, module=module) or ():
      if min(product.sizes) < _NARROW:
        speed = chip.speed(product.dtype)
        filled = product.filled(chip.mxu) - product.flops
        extra += step.count * filled / speed
  return extra / (chips.REACHED.matmul * chip.peak_flops / chip.devices)


def model_flops(model: dict[str, Any], *, tokens: float) -> float:
  """FLOPs that MaxText's model needs, by the rule of `training/flops.py`.

  Attention sees half of the sequence, every position is a target; forward and
  twice that backward.
  """
  config = interaction.tml_interaction_small()
  ours = dataclasses.replace(
    config.model,
    position=Position.TIME_ROPE,
    d_model=model["emb_dim"],
    num_heads=model["num_query_heads"],
    num_kv_heads=model["num_kv_heads"],
    head_dim=model["head_dim"],
    num_experts=model["num_experts"],
    experts_per_token=model["num_experts_per_tok"],
    num_shared_experts=0,
    expert_d_ff=model["moe_mlp_dim"],
  )
  layer = flops.layer_flops(
    dataclasses.replace(config, model=ours),
    is_global=True,
    is_dense=False,
    context=model["max_target_length"] / 2,
  )
  head = 2 * model["emb_dim"] * model["vocab_size"]
  return 3 * tokens * (model["num_decoder_layers"] * layer + head)


def with_attention(
  module: hlo.Module, *, model: dict[str, Any]
) -> tuple[hlo.Module, dict[str, float]]:
  """The program with FLOPs stated of attention's kernels that state none.

  They are those of all matrix products of the kernel over half of the square
  of positions; blocks on the diagonal are not counted twice.

  Returns:
    The program, and the FLOPs of a call by the kernel's name.
  """
  sequences = model["per_device_batch_size"]
  length, head_dim = model["max_target_length"], model["head_dim"]
  product = model["num_query_heads"] * length**2 * head_dim * sequences
  silent = [
    item.name
    for computation in module.computations.values()
    for item in computation.instructions
    if _is_silent_attention(item)
  ]
  is_fused = not any("_dq" in name for name in silent)
  counted: dict[str, float] = {}

  def stated(item: hlo.Instruction) -> hlo.Instruction:
    if not _is_silent_attention(item):
      return item
    (kind,) = (kind for kind in _PRODUCTS if kind in item.name)
    products = _FUSED if kind == "_dkv" and is_fused else _PRODUCTS[kind]
    name = item.name.rpartition(".")[0] or item.name
    counted[name] = float(products * product)
    said = f', "cost_estimate":{{"flops":"{products * product:.0f}"}}'
    return dataclasses.replace(item, attributes=item.attributes + said)

  computations = {
    name: hlo.Computation(
      name, tuple(stated(item) for item in computation.instructions)
    )
    for name, computation in module.computations.items()
  }
  return hlo.Module(computations, module.entry), counted


def _is_silent_attention(item: hlo.Instruction) -> bool:
  return (
    item.opcode == "custom-call"
    and "splash" in item.name
    and costs.estimate(item) is None
  )
