"""MaxText's nearest configuration, compiled for the same slices as ours.

`python -m benchmarks.maxtext --python=VENV/bin/python --dir=DIR
[--only=NAME,...] [--nocompile]` compiles each row of maxtext_rows.py with
MaxText's own ahead-of-time command, in that Python, and reads the programs
with `tml_jax/compiled`, as `python -m tml_jax.aot` reads ours. DIR keeps
NAME.json (the report, or the refusal) and NAME.program.{json,hlo.xz}. With
reports of `benchmarks.tpu` in DIR, the section of benchmarks/tpu.md is written
anew. Needs no TPU. VENV is of its own, as MaxText needs Python 3.12:

  pip install jax==0.10.2 libtpu==0.0.42.1 'flax>=0.12.8,<0.12.9'
  pip install maxtext[tpu]==0.2.4

(0.2.5 asks for jax 0.11.1.) Start reading at `compile_row`.
"""

import dataclasses
import json
import lzma
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

import numpy as np
from absl import app, flags

from benchmarks import maxtext_rows, maxtext_tables
from experiments import interaction
from tml_jax import errors
from tml_jax.compiled import (
  costs,
  hlo,
  out_of_memory,
  report,
  roofline,
  scopes,
)
from tml_jax.config import Position
from tml_jax.parallel import chips
from tml_jax.training import flops

_PYTHON = flags.DEFINE_string("python", "", "The Python that has MaxText.")
_DIR = flags.DEFINE_string("dir", "", "Reports and programs.")
_ONLY = flags.DEFINE_list("only", [], "Rows to compile; empty compiles all.")
_COMPILE = flags.DEFINE_bool(
  "compile", True, "Compile, or only read the programs in --dir again."
)

_ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = _ROOT / "benchmarks" / "outside" / "maxtext_program.py"

# Matrix products of a pair of queries and keys in kernels that do not say:
# scores and their sum of values; scores again and the gradients of values,
# shares and keys; of shares and queries. In one kernel the last two share two.
_PRODUCTS = {"_fwd": 2, "_dkv": 4, "_dq": 3}
_FUSED = 5


def compile_row(
  row: maxtext_rows.Row, *, python: pathlib.Path, directory: pathlib.Path
) -> None:
  """Leaves what MaxText compiled, or why it did not, in `directory`."""
  out = directory / f"{row.name}.program"
  described, program = program_files(row.name, directory=directory)
  for path in (described, program):
    path.unlink(missing_ok=True)
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "LIBTPU_INIT_ARGS": " ".join(row.xla_flags),
  }
  environment.pop("PYTHONPATH", None)  # ours is no place for its modules
  result = subprocess.run(
    [python, PROGRAM, "compile", out, *row.arguments],
    cwd=directory,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
  )
  (directory / f"{row.name}.log").write_text(result.stdout, encoding="utf-8")
  if not described.exists():  # it ended in the middle of something
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    said = {"refusal": "\n".join(lines[-12:]), "status": result.returncode}
    described.write_text(json.dumps(said), encoding="utf-8")


def program_files(
  name: str, *, directory: pathlib.Path
) -> tuple[pathlib.Path, pathlib.Path]:
  """Where a row's program is described, and its text."""
  return (
    directory / f"{name}.program.json",
    directory / f"{name}.program.hlo.xz",
  )


def read(row: maxtext_rows.Row, *, directory: pathlib.Path) -> dict[str, Any]:
  """The report of a row: keys of `tml_jax.aot --json`, or the refusal.

  Raises:
    errors.UserError: the row was not compiled into `directory`.
  """
  described, program = program_files(row.name, directory=directory)
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
    "flags": list(row.arguments),
    "xla_flags": list(row.xla_flags),
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
  memory = types.SimpleNamespace(**about["memory"])

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
    "as_read": {
      key: value
      for key, value in as_read.items()
      if isinstance(value, float) and value != result[key]
    },
    "kernels_without_flops": as_read["kernels_without_flops"],
    "lower_s": about["lower_s"],
    "compile_s": about["compile_s"],
    "host_rss_gib": about["host_rss_gib"],
  }


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


def check_python(value: str) -> pathlib.Path:
  """The Python of --python, which has MaxText.

  Raises:
    errors.UserError: there is none, or it has no MaxText.
  """
  fix = "name bin/python of an environment with maxtext (pip install maxtext)"
  path = pathlib.Path(value).absolute()
  if not value or not os.access(path, os.X_OK) or path.is_dir():
    raise errors.UserError(f"--python={value}: no program is there; {fix}")
  found = subprocess.run(
    [path, "-c", "import importlib.metadata as m; m.version('maxtext')"],
    cwd="/",
    capture_output=True,
    check=False,
  )
  if found.returncode:
    raise errors.UserError(f"--python={value} has no package maxtext; {fix}")
  return path


def chosen(names: list[str]) -> list[maxtext_rows.Row]:
  """Rows by name; all of them for no names.

  Raises:
    errors.UserError: there is no such row.
  """
  rows = {row.name: row for row in maxtext_rows.ROWS}
  for name in names:
    if name not in rows:
      raise errors.UserError(f"--only={name}: write one of {', '.join(rows)}")
  return [row for row in rows.values() if not names or row.name in names]


def main(argv: list[str]) -> None:
  del argv
  try:
    rows = chosen(_ONLY.value)
    if not _DIR.value:
      raise errors.UserError("--dir= is missing: name one for the reports")
    directory = pathlib.Path(_DIR.value).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    python = check_python(_PYTHON.value) if _COMPILE.value else None
    for row in rows:
      if python is not None:
        compile_row(row, python=python, directory=directory)
      elif not program_files(row.name, directory=directory)[0].exists():
        continue
      result = read(row, directory=directory)
      text = json.dumps(result, indent=2) + "\n"
      (directory / f"{row.name}.json").write_text(text, encoding="utf-8")
      print("\n".join(maxtext_tables.rows_of([result])), flush=True)
  except errors.UserError as error:
    print(error, file=sys.stderr)
    sys.exit(error.status)


if __name__ == "__main__":
  app.run(main)
