"""Runs in MaxText's Python: its train step, compiled for a slice or timed.

For: benchmarks/maxtext.py, which starts this file by its path with a Python
that has MaxText, and reads what it writes. Not for: import; nothing of ours
is on that Python's path. Start at `main`.

`maxtext_program.py compile OUT FLAG=VALUE ...` hands the flags to MaxText's
own `train_compile` and writes OUT.json and OUT.hlo.xz: the optimized program,
the mesh, memory, times. `maxtext_program.py steps FLAG=VALUE ...` makes
MaxText's own trainer run a step on this machine's CPU for every line on
standard input and says its seconds on standard output.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import lzma
import os
import resource
import sys
import time
import traceback
from typing import Any

_PACKAGES = ("maxtext", "jax", "jaxlib", "libtpu", "flax", "tokamax")
# Of its configuration, what FLOPs are counted from.
_SHAPE = (
  "decoder_block",
  "emb_dim",
  "num_decoder_layers",
  "num_query_heads",
  "num_kv_heads",
  "head_dim",
  "vocab_size",
  "num_experts",
  "num_experts_per_tok",
  "moe_mlp_dim",
  "max_target_length",
  "per_device_batch_size",
  "gradient_accumulation_steps",
  "remat_policy",
  "num_vocab_tiling",
  "dtype",
  "weight_dtype",
  "opt_type",
)
_MEMORY = (
  "argument_size_in_bytes",
  "output_size_in_bytes",
  "temp_size_in_bytes",
  "alias_size_in_bytes",
  "generated_code_size_in_bytes",
  "peak_memory_in_bytes",
  "host_argument_size_in_bytes",
  "host_temp_size_in_bytes",
)


@dataclasses.dataclass
class Seen:
  """What passed by while MaxText compiled."""

  config: Any = None
  mesh: Any = None
  compiled: Any = None
  mesh_at: float = 0.0
  lower_s: float = 0.0
  compile_s: float = 0.0


def base_config() -> str:
  """Path of MaxText's base.yml."""
  spec = importlib.util.find_spec("maxtext")
  if spec is None or not spec.submodule_search_locations:
    sys.exit("this Python has no package maxtext")
  return os.path.join(spec.submodule_search_locations[0], "configs", "base.yml")


def facts() -> dict[str, Any]:
  """Versions of what decides the numbers, and host memory so far."""
  versions = {}
  for package in _PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {"versions": versions, "host_rss_gib": peak / 2**20}


def shape(config: Any) -> dict[str, Any]:
  values = {name: getattr(config, name) for name in _SHAPE}
  return {
    name: value if isinstance(value, (int, float)) else str(value)
    for name, value in values.items()
  }


def watch(seen: Seen) -> Any:
  """MaxText's `train_compile`, with its mesh and program kept in `seen`."""
  import jax
  from maxtext.trainers.pre_train import train_compile

  mesh_of = train_compile.get_topology_mesh
  compile_of = jax.stages.Lowered.compile

  def get_topology_mesh(config):
    seen.config, seen.mesh = config, mesh_of(config)
    seen.mesh_at = time.monotonic()
    return seen.mesh

  def compile_lowered(self, *args, **kwargs):
    start = time.monotonic()
    seen.lower_s = start - seen.mesh_at
    try:
      seen.compiled = compile_of(self, *args, **kwargs)
    finally:
      seen.compile_s = time.monotonic() - start
    return seen.compiled

  train_compile.get_topology_mesh = get_topology_mesh
  jax.stages.Lowered.compile = compile_lowered
  return train_compile


def for_other_devices() -> contextlib.AbstractContextManager:
  """Lets tokamax make kernels for TPUs on a machine that has none."""
  from tokamax import config

  return config.cross_compile(True)


def compile_for(out: str, arguments: list[str]) -> int:
  """Compiles; the program, or why there is none, is written."""
  seen = Seen()
  result: dict[str, Any] = {
    "flags": arguments,
    "xla_flags": os.environ.get("LIBTPU_INIT_ARGS", "").split(),
  }
  status = 0
  try:
    with for_other_devices():
      watch(seen).main(["train_compile", base_config(), *arguments])
  except Exception as error:  # whatever it is, it is what MaxText says
    traceback.print_exc()
    result["refusal"] = f"{type(error).__name__}: {error}"
    status = 3
  if seen.mesh is not None:
    devices = seen.mesh.devices.flatten()
    result |= {
      "model": shape(seen.config),
      "mesh_shape": list(seen.mesh.devices.shape),
      "mesh_names": list(seen.mesh.axis_names),
      "device_kind": devices[0].device_kind,
      "coords": [list(device.coords) for device in devices],
      "lower_s": seen.lower_s,
      "compile_s": seen.compile_s,
    }
  result |= facts()
  if not status:
    memory = seen.compiled.memory_analysis()
    result["memory"] = {
      name: getattr(memory, name) for name in _MEMORY if hasattr(memory, name)
    }
    with lzma.open(f"{out}.hlo.xz", "wt", encoding="utf-8", preset=1) as file:
      file.write(seen.compiled.as_text())
  with open(f"{out}.json", "w", encoding="utf-8") as file:
    json.dump(result, file)
  return status


def steps(arguments: list[str]) -> int:
  """Trains; each step waits for a line on standard input.

  Standard output of this process is MaxText's log; what is said of steps goes
  to the pipe that began as it: {"compile_seconds"}, then {"seconds"} for each
  line, at the end {"peak_mib"}.
  """
  answers = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)
  import jax
  from maxtext.trainers.pre_train import train
  from maxtext.utils import train_utils

  compile_of = jax.stages.Lowered.compile
  jit_of = train_utils.jit_train_and_eval_step
  seconds = {"compile": 0.0}

  def compile_lowered(self, *args, **kwargs):
    start = time.perf_counter()
    compiled = compile_of(self, *args, **kwargs)
    seconds["compile"] = time.perf_counter() - start
    return compiled

  def jit_train_and_eval_step(*args, **kwargs):
    step, evaluate = jit_of(*args, **kwargs)
    is_first = True

    def timed(*inputs):
      nonlocal is_first
      if not is_first and not sys.stdin.readline():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"peak_mib": peak}), file=answers, flush=True)
        os._exit(0)
      jax.block_until_ready(inputs)
      start = time.perf_counter()
      results = jax.block_until_ready(step(*inputs))
      took = time.perf_counter() - start
      loss = float(results[1]["scalar"]["learning/loss"])
      said = {"seconds": took, "loss": loss}
      if is_first:  # the first step says that the others can begin
        said = {"compile_seconds": seconds["compile"], "loss": loss}
        said |= facts()
      is_first = False
      print(json.dumps(said), file=answers, flush=True)
      return results

    timed.lower = step.lower
    return timed, evaluate

  jax.stages.Lowered.compile = compile_lowered
  train_utils.jit_train_and_eval_step = jit_train_and_eval_step
  train.main(["train", base_config(), "steps=1000000", *arguments])
  return 0


def main(argv: list[str]) -> int:
  mode, *arguments = argv[1:]
  if mode == "compile":
    return compile_for(arguments[0], arguments[1:])
  if mode == "steps":
    return steps(arguments)
  sys.exit(f"{mode}: write compile or steps")


if __name__ == "__main__":
  sys.exit(main(sys.argv))
