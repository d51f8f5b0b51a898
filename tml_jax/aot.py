"""Compiles the train step, or a live tick, for a TPU slice that is not there.

For: `python -m tml_jax.aot --config=experiments/interaction.py:NAME
--topology=v5p:8x8x8 [--num_slices=2] [--program=tick --sessions=16]
[--json=FILE] [--hlo=FILE]`: does it fit, what does it execute, how fast can it
be. Needs libtpu (`pip install .[aot]`)
and no TPU. Not for: running anything. Reads top to bottom.

Exit status: 0 it fits; 2 bad input, before tracing; 3 it does not fit, with
by how much and the largest tensors; 130 or 143 ended by Ctrl-C or SIGTERM.
"""

import importlib.metadata
import json
import pathlib
import resource
import sys
import tempfile
import time
from typing import Any, NoReturn

from absl import flags, logging

from tml_jax import errors, files, inspect
from tml_jax.config import Config
from tml_jax.config import flags as config_flags

_TOPOLOGY = flags.DEFINE_string(
  "topology", "", "The slice, FAMILY:AxBxC, for instance v5p:8x8x8."
)
_NUM_SLICES = flags.DEFINE_integer(
  "num_slices", 1, "Slices; `data` crosses the network between them."
)
_PROGRAM = flags.DEFINE_enum(
  "program",
  "step",
  ["step", "tick"],
  "What to compile: the train step, or one window of live sessions.",
)
_SESSIONS = flags.DEFINE_integer(
  "sessions", 16, "Of --program=tick.", lower_bound=1
)
_HLO = flags.DEFINE_string("hlo", "", "Writes the optimized program here.")
_LARGEST = 12  # tensors that are listed then


def main(config: Config) -> None:
  from tml_jax.parallel import chips, topology

  name, num_slices = _TOPOLOGY.value, _NUM_SLICES.value
  chip = chips.of(name)
  if config.mesh.slices != num_slices:
    raise errors.UserError(
      f"--num_slices={num_slices} and mesh.slices = {config.mesh.slices} differ"
    )
  for flag, path in (("json", config_flags.JSON.value), ("hlo", _HLO.value)):
    if path:
      files.check(pathlib.Path(path).parent, what=f"--{flag}={path}")
  # jax starts here: bad flags have been refused by now.
  topology.prepare_environment()
  import jax

  from tml_jax.compiled import (
    attended,
    hlo,
    out_of_memory,
    report,
    roofline,
    scopes,
  )
  from tml_jax.parallel import mesh as mesh_lib

  # -------------------------------------------- mesh and state, not traced
  devices = topology.devices(name, num_slices=num_slices)
  mesh = mesh_lib.create(config.mesh, devices=devices)
  program, facts, model_flops = program_of(config, mesh=mesh)
  state = argument_bytes(program)
  limit = chip.hbm_limit / chip.devices
  if sum(state.values()) > limit:
    raise errors.UserError(
      f"arguments take {sum(state.values()) / chips.GIB:.2f} GiB of the"
      f" {limit / chips.GIB:.2f} GiB of a device before any activation: take"
      " more chips, or set mesh.fsdp or mesh.expert larger"
    )

  # -------------------------------------------------------------- compile
  start = time.monotonic()
  lowered = program.lower()
  lower_s = time.monotonic() - start
  logging.info("traced in %.1f s, compiling for %s", lower_s, name)
  start = time.monotonic()
  with tempfile.TemporaryDirectory(prefix="tml_jax_aot_") as dump:
    scratch = pathlib.Path(dump)
    options = out_of_memory.dump_options(scratch)
    try:
      with attended.attended(f"compiling for {name}", scratch=scratch):
        compiled = program.compile(lowered, options=options)
    except jax.errors.JaxRuntimeError as error:
      explain(error, dump=scratch)
  compile_s = time.monotonic() - start

  # --------------------------------------------------------------- analyse
  logging.info("compiled in %.1f s, reading the program", compile_s)
  text = compiled.as_text()
  if _HLO.value:
    with open(_HLO.value, "w", encoding="utf-8") as file:
      file.write(text)
  module, place = hlo.parse(text), roofline.place_of(mesh)
  rows = {row.module: row for row in inspect.parameter_rows(config)}
  result = report.build(
    roofline.analyse(module, chip=chip, place=place),
    by_module=scopes.by_module(module, chip=chip, place=place),
    chip=chip,
    num_devices=len(devices),
    model_flops=model_flops,
    state=state,
    memory=compiled.memory_analysis(),
  )
  result = {
    "config": config.name,
    "topology": name,
    "num_slices": num_slices,
    "mesh": {axis: size for axis, size in mesh.shape.items()},
    **facts,
    "params_total": rows["= everything"].total,
    "params_active": rows["= everything"].active,
    **result,
    "lower_s": lower_s,
    "compile_s": compile_s,
    "host_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    "versions": versions(),
  }
  if config_flags.JSON.value:
    with open(config_flags.JSON.value, "w", encoding="utf-8") as file:
      json.dump(result, file, indent=2)
      file.write("\n")
  print(report.table(result))


def explain(error: Exception, *, dump: pathlib.Path) -> NoReturn:
  """Says what the compiler refused, and exits or raises.

  Raises:
    errors.UserError: an option of mesh.compiler_options that there is not.
  """
  from tml_jax.compiled import out_of_memory

  message = str(error)
  if "compile option" in message:
    raise errors.UserError(
      f"mesh.compiler_options: {message.splitlines()[0]}"
    ) from error
  refusal = out_of_memory.parse(message)
  if refusal is None:
    raise error
  tensors = out_of_memory.at_peak(dump, count=_LARGEST)
  text = out_of_memory.describe(refusal, where=_TOPOLOGY.value, tensors=tensors)
  print(text, file=sys.stderr)
  sys.exit(errors.Status.DOES_NOT_FIT)


def program_of(config: Config, *, mesh: Any) -> tuple[Any, dict, float]:
  """The program, what it does at once, and FLOPs that the model needs for it.

  Raises:
    errors.UserError: the mesh cannot divide the batch or a parameter.
  """
  from tml_jax.live import program as tick_program
  from tml_jax.training import flops
  from tml_jax.training import program as step_program
  from tml_jax.training import state as state_lib

  facts: dict[str, Any] = {"program": _PROGRAM.value}
  if _PROGRAM.value == "step":
    program = step_program.create(config, mesh=mesh)
    train = config.train
    facts["tokens_per_step"] = train.global_batch_size * config.streams.seq_len
    facts["accumulation_steps"] = train.accumulation_steps
    return program, facts, flops.step_flops(config)
  sessions = _SESSIONS.value
  program = tick_program.on_mesh(
    config,
    mesh=mesh,
    sessions=sessions,
    model=state_lib.create_model(config),
    example=state_lib.example_batch(config, batch_size=1).packed,
    text_pieces=config.streams.text_vocab_size,
  )
  positions = program.arguments["inputs"].inputs.tokens.shape[1] + 1
  facts |= {"sessions": sessions, "tokens_per_step": sessions * positions}
  needed = flops.tick_flops(config, sessions=sessions, positions=positions)
  return program, facts, needed


def argument_bytes(program: Any) -> dict[str, int]:
  """Bytes of the arguments on one device, by what they are.

  What lies in the host's memory takes none.
  """
  from tml_jax.training import state as state_lib

  sizes = {
    name: state_lib.bytes_of(tree, in_host=False)
    for name, tree in program.arguments.items()
  }
  return {name: size for name, size in sizes.items() if size}


def versions() -> dict[str, str]:
  """Of what decides the numbers."""
  return {
    package: importlib.metadata.version(package)
    for package in ("jax", "jaxlib", "libtpu")
  }


if __name__ == "__main__":
  config_flags.run(main, config_from=config_flags.ConfigFrom.TOPOLOGY)
