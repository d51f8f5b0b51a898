"""The tiny MoE step on this machine: ours and MaxText's in turn, in one run.

`python -m benchmarks.maxtext_cpu --python=VENV/bin/python [--rounds=7]
[--json=FILE]`. The shape and the flags but --python are those of
`benchmarks.train_step`, the Python is that of `benchmarks.maxtext`. Each form
is a process of its own that compiles its step, runs it once and waits. Then
each runs one step while the others wait, again and again, so that a busy moment
of the machine meets all of them.
Start reading at `measure`.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from absl import app, flags

from benchmarks import maxtext_process, timing, train_step
from tml_jax import errors

_PYTHON = flags.DEFINE_string("python", "", "The Python that has MaxText.")
_CHILD = flags.DEFINE_bool("child", False, "For child processes: our step.")

# `train_step.moe_config` in MaxText's words.
_SHAPE = (
  "run_name=tiny",
  "jax_cache_dir=",
  "hardware=cpu",
  "skip_jax_distributed_system=true",
  "enable_checkpointing=false",
  "dataset_type=synthetic",
  "enable_goodput_recording=false",
  "attention=dot_product",
  "decoder_block=mixtral",
  "base_emb_dim=256",
  "base_num_decoder_layers=4",
  "base_num_query_heads=8",
  "base_num_kv_heads=4",
  "head_dim=32",
  "base_mlp_dim=256",
  "base_moe_mlp_dim=256",
  "num_experts=16",
  "num_experts_per_tok=2",
  "vocab_size=2048",
  "max_target_length=512",
  "per_device_batch_size=8",
  "dtype=float32",
  "weight_dtype=float32",
  "megablox=false",
)
MAXTEXT = {
  "MaxText, dropless (`ragged_dot`), remat minimal": (
    "sparse_matmul=true",
    "remat_policy=minimal",
  ),
  "MaxText, capacity 1.25 (drops tokens), remat minimal": (
    "sparse_matmul=false",
    "capacity_factor=1.25",
    "remat_policy=minimal",
  ),
}
OURS = f"ours, {train_step.FORMS[0]}"


@dataclasses.dataclass
class Child:
  """A process with a compiled step that runs it when told to."""

  name: str
  process: subprocess.Popen
  began: float
  first_step_seconds: float = 0.0
  compile_seconds: float = 0.0
  peak_mib: float = 0.0
  loss: float = 0.0
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  seconds: list[float] = dataclasses.field(default_factory=list)

  def answer(self) -> dict[str, Any]:
    """The next thing that it says.

    Raises:
      errors.UserError: it ended instead; its own words are on standard error.
    """
    line = self.process.stdout.readline()
    if not line:
      raise errors.UserError(
        f"{self.name}: its process ended with {self.process.wait()}; what it"
        " said is above"
      )
    return json.loads(line)

  def ready(self) -> None:
    said = self.answer()
    self.first_step_seconds = time.time() - self.began
    self.compile_seconds = said["compile_seconds"]
    self.versions = said.get("versions", {})

  def step(self) -> None:
    self.process.stdin.write("\n")
    self.process.stdin.flush()
    said = self.answer()
    self.seconds.append(said["seconds"])
    self.loss = said["loss"]

  def finish(self) -> None:
    self.process.stdin.close()
    self.peak_mib = self.answer()["peak_mib"]
    self.process.wait()


@contextlib.contextmanager
def started(name: str, command: Sequence[str | os.PathLike], *, cwd: str):
  """A `Child`; its process is gone afterwards."""
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  environment.pop("XLA_FLAGS", None)
  if name == OURS:
    environment["PYTHONPATH"] = str(maxtext_process.PROGRAM.parents[2])
  else:
    environment.pop("PYTHONPATH", None)
  process = subprocess.Popen(
    command,
    cwd=cwd,
    env=environment,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    yield Child(name, process, began=time.time())
  finally:
    process.kill()
    process.wait()


def measure(python: pathlib.Path, *, rounds: int) -> list[Child]:
  """Starts all forms one after another, then runs their steps in turn."""
  commands: dict[str, list[str | os.PathLike]] = {
    OURS: [sys.executable, "-m", "benchmarks.maxtext_cpu", "--child"]
  }
  for name, settings in MAXTEXT.items():
    commands[name] = [
      python,
      maxtext_process.PROGRAM,
      "steps",
      *_SHAPE,
      *settings,
    ]
  with contextlib.ExitStack() as stack:
    cwd = stack.enter_context(tempfile.TemporaryDirectory())
    children = []
    for name, command in commands.items():
      child = stack.enter_context(started(name, command, cwd=cwd))
      child.ready()
      children.append(child)
    for _ in range(rounds):
      for child in children:
        child.step()
    for child in children:
      child.finish()
  return children


def our_steps() -> None:
  """What the child with our step does; it speaks as `Child` reads."""
  form = train_step.Form(train_step.moe_config(), name=train_step.FORMS[0])
  form.run()
  said: dict[str, Any] = {"compile_seconds": form.compile_seconds}
  print(json.dumps(said), flush=True)
  for _ in sys.stdin:
    said = {"seconds": form.run(), "loss": form.loss}
    print(json.dumps(said), flush=True)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(json.dumps({"peak_mib": peak}), flush=True)


def table(children: list[Child], *, tokens: int) -> list[str]:
  """Medians, and medians of the ratios to ours, step by step."""
  lines = [
    "| step | median s (min) | tokens/s | ratio | compile s |"
    " start to first step s | peak MiB |",
    "|---|---:|---:|---:|---:|---:|---:|",
  ]
  for child in children:
    median = statistics.median(child.seconds)
    pairs = zip(child.seconds, children[0].seconds, strict=True)
    ratio = statistics.median(mine / ours for mine, ours in pairs)
    lines.append(
      f"| {child.name} | {median:.2f} ({min(child.seconds):.2f})"
      f" | {tokens / median:,.0f} | {ratio:.2f} | {child.compile_seconds:.1f}"
      f" | {child.first_step_seconds:.1f} | {child.peak_mib:,.0f} |"
    )
  return lines


def main(argv: list[str]) -> None:
  del argv
  if _CHILD.value:
    our_steps()
    return
  try:
    python = maxtext_process.check_python(_PYTHON.value)
    children = measure(python, rounds=flags.FLAGS.rounds)
  except errors.UserError as error:
    print(error, file=sys.stderr)
    sys.exit(error.status)
  config = train_step.moe_config()
  tokens = config.train.global_batch_size * config.streams.seq_len
  print("\n".join([timing.made(), "", *table(children, tokens=tokens)]))
  if flags.FLAGS.json:
    rows = [
      {key: value for key, value in vars(child).items() if key != "process"}
      for child in children
    ]
    text = json.dumps(rows, indent=2) + "\n"
    pathlib.Path(flags.FLAGS.json).write_text(text, encoding="utf-8")


if __name__ == "__main__":
  app.run(main)
