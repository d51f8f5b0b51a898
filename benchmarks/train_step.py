"""The whole train step on this machine, at the tiny MoE shape of MaxText.

`python -m benchmarks.train_step [--rounds=7] [--json=FILE]`. The shape is that
of the MaxText figures in benchmarks/README.md, every position a target. Two
forms of the real step (`training/step.py`) are timed in turn in one process:
as trained, and with every expert computed for every token, the dense
formulation. A third row is this machine's matmul peak. Then each form starts
in a process of its own: compile time, time to the first step, peak memory.

`--config=tiny` instead runs `python -m tml_jax.train` on prepared data
(`--data_dir`, or procedural voices made for the occasion) and reports what it
logs: compile time, process start to first step, peak memory, tokens/s.
"""

import dataclasses
import json
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from unittest import mock

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax
import numpy as np
from absl import app, flags

from experiments import interaction
from tml_jax import workdir
from tml_jax.config import Config, Optimizer
from tml_jax.kernels.experts import tiled
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import packing
from tml_jax.streams.batch import Batch
from tml_jax.training import flops, optim
from tml_jax.training import state as state_lib
from tml_jax.training import step as step_lib

_CONFIG = flags.DEFINE_enum("config", "moe", ["moe", "tiny"], "What to time.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Times each form is run.")
_STEPS = flags.DEFINE_integer("steps", 40, "Steps of --config=tiny.")
_DATA_DIR = flags.DEFINE_string(
  "data_dir", "", "Prepared data for --config=tiny."
)
_JSON = flags.DEFINE_string("json", "", "Also write the rows to this file.")
_START = flags.DEFINE_string("start", "", "For child processes: form,time.")

FORMS = ("tiles of one expert", "every expert on every token")


def moe_config() -> Config:
  """d_model 256, 4 layers, 16 experts top-2: 4,096 tokens a step."""
  config = interaction.tiny()
  seq_len = 512
  return dataclasses.replace(
    config,
    name="moe",
    streams=dataclasses.replace(
      config.streams,
      text_vocab_size=2048 - 64,
      seq_len=seq_len,
      max_targets=seq_len,
      # The least that the config allows: this shape is about text.
      max_audio=8,
      max_patches=config.streams.patches_per_frame,
      max_speak=1,
    ),
    model=dataclasses.replace(
      config.model,
      vocab_size=2048,
      d_model=256,
      num_layers=4,
      attention_pattern="G",
      num_heads=8,
      num_kv_heads=4,
      head_dim=32,
      num_experts=16,
      experts_per_token=2,
      num_shared_experts=0,
      expert_d_ff=256,
      route_scale=2.0,
      moe_tile=128,
    ),
    train=dataclasses.replace(
      config.train,
      global_batch_size=8,
      optim=dataclasses.replace(config.train.optim, name=Optimizer.ADAMW),
    ),
  )


def text_batch(config: Config) -> Batch:
  """Random text, every position predicting the next one."""
  random = np.random.default_rng(0)
  empty = packing.empty_sequence(config.streams)
  size, length = config.train.global_batch_size, config.streams.seq_len
  batch = batch_lib.stack([empty] * size, like=empty)
  for tokens in (batch.packed.inputs.tokens, batch.targets.tokens):
    tokens[:] = random.integers(
      config.streams.text_vocab_size, size=(size, length), dtype=np.int32
    )
  batch.packed.segment_ids[:] = 1
  batch.packed.positions[:] = batch.targets.positions[:] = np.arange(length)
  batch.targets.weights[:] = 1.0
  return batch


class Form:
  """One form of the step with a state of its own."""

  def __init__(self, config: Config, *, name: str):
    model = state_lib.create_model(config)
    optimizer = optim.create(config.train.optim, steps=config.train.steps)
    mesh = jax.sharding.Mesh(
      np.array(jax.devices()[:1]).reshape(1, 1, 1, 1, 1),
      ("data", "fsdp", "expert", "tensor", "seq"),
    )
    abstract = state_lib.abstract(
      config, model=model, optimizer=optimizer, mesh=mesh
    )
    self.parameters = sum(
      x.size for x in jax.tree.leaves(abstract.state.params)
    )
    self._batch = jax.device_put(text_batch(config))
    step = jax.jit(
      step_lib.create(config, model=model, optimizer=optimizer),
      donate_argnums=0,
    )
    start = time.perf_counter()
    with mock.patch.object(tiled, "fitted", _form(name)):
      self._step = step.lower(abstract.state, self._batch).compile()
    self.compile_seconds = time.perf_counter() - start
    self._state = state_lib.create(abstract, seed=0)

  def run(self) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    self._state, values = self._step(self._state, self._batch)
    jax.block_until_ready((self._state, values))
    self.loss = float(values["loss"])
    if not np.isfinite(self.loss):
      raise ValueError(f"loss {self.loss}")
    return time.perf_counter() - start


def _form(name: str):
  if name == FORMS[0]:
    return tiled.fitted

  def dense(x_ND, *, weights, experts_Nk, shares_Nk, tile):
    del tile
    return tiled.reference(
      x_ND, weights=weights, experts_Nk=experts_Nk, shares_Nk=shares_Nk
    )

  return dense


def started(form: str) -> dict[str, float]:
  """Starts `form` in a process of its own; what that process printed."""
  done = subprocess.run(
    [sys.executable, "-m", __spec__.name, f"--start={form},{time.time()}"],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  return json.loads(done.stdout.splitlines()[-1])


def start(argument: str) -> None:
  """What a child process does: compile, one step, report."""
  form_name, began = argument.rsplit(",", 1)
  form = Form(moe_config(), name=form_name)
  form.run()
  report = {
    "compile_seconds": form.compile_seconds,
    "first_step_seconds": time.time() - float(began),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
  }
  print(json.dumps(report))


def compare() -> dict[str, object]:
  config = moe_config()
  forms = {name: Form(config, name=name) for name in FORMS}
  seconds = {name: [] for name in FORMS}
  peaks = []
  for form in forms.values():
    form.run()
  for _ in range(_ROUNDS.value):
    peaks.append(flops.device_peak.__wrapped__()[0])
    for name, form in forms.items():
      seconds[name].append(form.run())
  peak = statistics.median(peaks)
  tokens = config.train.global_batch_size * config.streams.seq_len
  needed = flops.step_flops(config)
  parameters = forms[FORMS[0]].parameters
  print(f"{tokens} tokens and {needed / 1e9:.0f} GFLOP a step by the formula")
  print(f"of training/flops.py, {parameters / 1e6:.1f} M parameters, float32;")
  print(f"matmul peak of this machine {peak / 1e9:.0f} GFLOP/s\n")
  print(
    "| experts | median s/step (min) | tokens/s | GFLOP/s | of peak | ratio"
    " | compile s | start to first step s | peak MiB |"
  )
  print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
  rows = {}
  for name, each in seconds.items():
    median = statistics.median(each)
    ratios = [a / b for a, b in zip(each, seconds[FORMS[0]], strict=True)]
    row = {
      "seconds": median,
      "min_seconds": min(each),
      "tokens_per_second": tokens / median,
      "gflops": needed / median / 1e9,
      "of_peak": needed / median / peak,
      "ratio": statistics.median(ratios),
      **started(name),
    }
    rows[name] = row
    print(
      f"| {name} | {median:.2f} ({min(each):.2f})"
      f" | {row['tokens_per_second']:,.0f} | {row['gflops']:.0f}"
      f" | {row['of_peak']:.2f} | {row['ratio']:.2f}"
      f" | {row['compile_seconds']:.1f} | {row['first_step_seconds']:.1f}"
      f" | {row['peak_mib']:,.0f} |"
    )
  return {
    "tokens": tokens,
    "flops": needed,
    "peak_flops": peak,
    "parameters": parameters,
    "forms": rows,
  }


def train_tiny(directory: str) -> dict[str, float]:
  """A few steps of the real command, and what it says of itself."""
  size, data_dir = "tiny", _DATA_DIR.value
  if not data_dir:
    size, data_dir = "tiny_procedural", f"{directory}/data"
  config = f"--config=experiments/interaction.py:{size}"
  module = [sys.executable, "-m"]
  if not _DATA_DIR.value:
    arguments = [config, f"--data_dir={data_dir}"]
    subprocess.run([*module, "tml_jax.prepare", *arguments], check=True)
  done = subprocess.run(
    [
      *module,
      "tml_jax.train",
      config,
      f"--config.train.steps={_STEPS.value}",
      f"--data_dir={data_dir}",
      f"--workdir={directory}/run",
    ],
    check=True,
    stderr=subprocess.PIPE,
    text=True,
  )
  compiled = re.search(r"compiled in ([\d.]+) s; ([\d.]+) GFLOP", done.stderr)
  first = re.search(r"first step ([\d.]+) s .* memory (\d+) MiB", done.stderr)
  lines = pathlib.Path(directory, "run", workdir.METRICS).read_text()
  # The first record also waits for what follows compilation.
  records = [json.loads(line) for line in lines.splitlines()][1:]
  result = {
    "compile_seconds": float(compiled[1]),
    "first_step_seconds": float(first[1]),
    "peak_mib": float(first[2]),
    "gflop_per_step": float(compiled[2]),
  }
  for name in ("seconds_per_step", "tokens_per_second", "mfu"):
    result[name] = statistics.median(record[name] for record in records)
  for name, value in result.items():
    print(f"| {name} | {value:,.2f} |")
  return result


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  if _START.value:
    start(_START.value)
    return
  if _CONFIG.value == "moe":
    result = compare()
  else:
    with tempfile.TemporaryDirectory() as directory:
      result = train_tiny(directory)
  if _JSON.value:
    pathlib.Path(_JSON.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  app.run(main)
