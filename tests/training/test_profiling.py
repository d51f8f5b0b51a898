"""Looking into a run: traces, memory, stacks, router pictures."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import commands, small_run
from tml_jax import errors
from tml_jax import trace as trace_lib
from tml_jax.models import embed
from tml_jax.streams import frame
from tml_jax.training import (
  breakdown,
  goodput,
  losses,
  metrics,
  profile_flags,
  profiling,
  router_picture,
)


def _train(*flags: str, workdir) -> subprocess.CompletedProcess:
  return commands.run(
    "-m",
    "tml_jax.train",
    *small_run.FLAGS,
    f"--workdir={workdir}",
    *flags,
    timeout=300,
  )


@pytest.mark.parametrize(
  "flag, message",
  [
    ("--profile_steps=10", "write FIRST:LAST"),
    ("--profile_steps=0:3", "1 <= FIRST <= LAST <= train.steps = 6"),
    ("--profile_steps=5:4", "1 <= FIRST <= LAST <= train.steps = 6"),
    ("--profile_steps=5:7", "1 <= FIRST <= LAST <= train.steps = 6"),
    ("--profile_memory_step=7", "at most train.steps = 6"),
    ("--stack_dump_after=-1", "must be 0 or more"),
    ("--router_picture_every=-1", "must be 0 or more"),
  ],
)
def test_bad_flags_are_refused_before_anything_is_written(
  flag, message, tmp_path
):
  """In this process: argument parsing is what is tested elsewhere."""
  from absl import flags

  holder = flags.FLAGS
  if not holder.is_parsed():
    holder.mark_as_parsed()
  name, value = flag.removeprefix("--").split("=")
  before = holder[name].value
  holder[name].parse(value)
  try:
    with pytest.raises(Exception, match=message.replace(".", r"\.")):
      profile_flags.requested(steps=6)
  finally:
    holder[name].value = before


def _requested(**values) -> profile_flags.Requested:
  nothing = dict(
    first=0,
    last=-1,
    memory_step=0,
    stack_dump_after=0.0,
    router_picture_every=0,
  )
  return profile_flags.Requested(**(nothing | values))


def test_a_trace_in_a_bucket_is_to_be_copied():
  with pytest.raises(errors.UserError, match="gs://b/run/profile to DIR/prof"):
    trace_lib.newest("gs://b/run")


def test_a_trace_tells_modules_and_steps(tmp_path):
  @jax.jit
  def train_step(x):
    with jax.named_scope("inner"):
      return jax.grad(lambda x: jnp.tanh(x @ x).sum())(x)

  x = jnp.ones((200, 200))
  compiled = train_step.lower(x).compile()
  profiler = profiling.Profiler(
    _requested(first=2, last=3, memory_step=4),
    workdir=str(tmp_path),
    start=0,
    compiled=compiled,
  )
  parts = breakdown.Breakdown(_clock(tmp_path))
  for step in range(1, 6):
    profiler.begin(step)
    with profiler.out_of_memory(step), parts.of(breakdown.Part.DISPATCH):
      y = compiled(x)
    profiler.end(step, results=y)
  profiler.close()
  program, path = trace_lib.newest(str(tmp_path))
  trace = trace_lib.read(program, path)
  assert list(trace.step_seconds) == [2, 3]
  assert 0 < trace.parts["dispatch"] < sum(trace.step_seconds.values())
  assert trace.devices == 1
  assert {("inner", "forward"), ("inner", "backward")} <= trace.modules.keys()
  assert trace.unknown < 0.5 * sum(trace.modules.values())
  assert "inner" in trace_lib.table(trace, rows=5)
  memory = tmp_path / "profile" / "memory_step_4_process_0.prof"
  assert gzip.decompress(memory.read_bytes())  # a pprof file
  live = memory.with_suffix(".txt").read_text().splitlines()
  assert "in all" in live[0]
  assert any("float32[200, 200] on 1 devices" in line for line in live)
  scalars = profiler.memory()
  assert 0.01 < scalars["memory/host"] < 100
  assert scalars["memory/arguments"] == 4 * 200 * 200 / 2**30


def test_out_of_memory_leaves_a_profile(tmp_path):
  compiled = jax.jit(lambda: 1).lower().compile()
  profiler = profiling.Profiler(
    _requested(), workdir=str(tmp_path), start=0, compiled=compiled
  )
  with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
    with profiler.out_of_memory(7):
      jnp.zeros(1 << 45).block_until_ready()
  profiler.close()
  path = tmp_path / "profile" / "memory_oom_step_7_process_0.prof"
  assert path.with_suffix(".txt").is_file()
  assert gzip.decompress(path.read_bytes())


HANG = """
import time, jax
from tml_jax.training import profile_flags, profiling
compiled = jax.jit(lambda: 1).lower().compile()
requested = profile_flags.Requested(0, -1, 0, 0.5, 0)
profiler = profiling.Profiler(
  requested, workdir="unused", start=0, compiled=compiled
)
def the_step_that_hangs():
  time.sleep(1.2)
profiler.begin(1)
the_step_that_hangs()
profiler.close()
time.sleep(0.8)
print("went on")
"""


@pytest.mark.slow
def test_a_hang_prints_stacks():
  result = commands.run("-c", HANG)
  assert result.returncode == 0, result.stderr
  assert result.stderr.count("in the_step_that_hangs") == 2
  assert "went on" in result.stdout


def _clock(path) -> goodput.Goodput:
  clock = goodput.Goodput(str(path), process_start=time.time(), writes=False)
  clock.enter(goodput.Category.STEP)
  return clock


def test_the_breakdown_adds_up(tmp_path):
  clock = _clock(tmp_path)
  parts = breakdown.Breakdown(clock)
  start = time.perf_counter()
  with parts.of(breakdown.Part.DATA):
    time.sleep(0.02)
  time.sleep(0.03)
  with parts.of(breakdown.Part.DEVICE):
    time.sleep(0.01)
  scalars = parts.scalars(steps=2)
  total = time.perf_counter() - start
  assert 2 * sum(scalars.values()) == pytest.approx(total, rel=0.05)
  assert scalars["time/data"] >= 0.01 and scalars["time/device"] >= 0.005
  assert scalars["time/other"] >= 0.015 and scalars["time/checkpoint"] == 0
  assert parts.scalars(steps=1)["time/data"] == 0
  lost = clock.scalars()
  assert lost["goodput/data_wait_seconds"] == pytest.approx(
    2 * scalars["time/data"], rel=0.05
  )
  assert lost["goodput/step_seconds"] >= 0.04


def test_router_pictures(tmp_path):
  random = np.random.default_rng(0)
  load = random.integers(1, 9, size=(len(embed.Kind), 3, 8)).astype(float)
  load[embed.Kind.PATCH] = 0  # no panel
  load[:, 1, 5] = 0  # an expert that nobody chose
  writer = metrics.Writer(str(tmp_path))
  pictures = router_picture.Pictures(
    workdir=str(tmp_path), writer=writer, every=10
  )
  for step in (3, 9, 12, 15, 18):
    pictures.add(step, load)
  writer.close()
  (path,) = (tmp_path / "plots").iterdir()
  assert path.name == "router_00000012.png"
  image = router_picture.draw(load, title="a title")
  green = np.array([0x00, 0x9E, 0x73])
  # The dead expert in four panels: all, text, own and user audio.
  rows = (np.abs(image.astype(int) - green).max(axis=-1) < 3).any(axis=1)
  assert (np.diff(np.flatnonzero(rows)) > 1).sum() == 3


def test_scalars_of_unused_experts():
  load = np.ones((len(embed.Kind), 2, 4))
  load[embed.Kind.USER_AUDIO, 0, 1:] = 0
  load[embed.Kind.USER_AUDIO, 0, 0] = 4
  none = np.zeros(len(frame.Kind))
  sums = losses.Sums(
    cross_entropy=none,
    correct=none,
    count=none,
    by_source=losses.BySource((), none, none, none, none, none),
    flow=np.float32(1),
    flow_count=np.float32(1),
    load_KLE=load,
    tokens=np.float32(1),
    balance=np.float32(0),
    further=losses.Further(*np.zeros((4, 0))),
  )
  result = metrics.summarise(sums)
  assert result["router/user_audio/unused_experts"] == 3 / 8
  assert result["router/user_audio/max_over_mean"] == 4.0
  assert result["router/text/unused_experts"] == 0
  assert result["router/unused_experts"] == 0


@pytest.mark.slow
def test_a_run_is_traced_and_measured(tmp_path, data_dir):
  """Traced steps 3 and 4 of 6, through the command."""
  result = _train(
    f"--data_dir={data_dir}",
    "--config.train.steps=6",
    "--profile_steps=3:4",
    "--profile_memory_step=5",
    "--router_picture_every=3",
    workdir=tmp_path,
  )
  assert result.returncode == 0, result.stderr[-2000:]
  names = sorted(p.name for p in (tmp_path / "plots").iterdir())
  assert names == ["router_00000003.png", "router_00000006.png"]
  assert (tmp_path / "profile" / "memory_step_5_process_0.prof").is_file()
  rows = [
    json.loads(line)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
  ]
  for row in rows:
    parts = [v for k, v in row.items() if k.startswith("time/")]
    assert min(parts) >= 0 and len(parts) == len(breakdown.Part) + 1
    assert row["memory/host"] > row["memory/temporaries"] > 0
    assert sum(parts) == pytest.approx(row["seconds_per_step"], rel=0.2)
  trace = trace_lib.read(*trace_lib.newest(str(tmp_path)))
  assert list(trace.step_seconds) == [3, 4]
  assert {"data", "transfer", "dispatch", "device"} <= trace.parts.keys()
  found = {path for path, _ in trace.modules}
  for module in ("trunk/layer_*/attention", "flow_loss", "optimizer", "embed"):
    assert any(path.startswith(module) for path in found), (module, found)
  shown = commands.run("-m", "tml_jax.trace", f"--workdir={tmp_path}")
  assert shown.returncode == 0, shown.stderr
  assert "steps 3 to 4" in shown.stdout and "backward" in shown.stdout


@pytest.mark.slow
def test_sigusr1_prints_stacks_of_a_run(tmp_path, data_dir):
  process = subprocess.Popen(
    [sys.executable, "-m", "tml_jax.train", *small_run.FLAGS]
    + [f"--workdir={tmp_path}", f"--data_dir={data_dir}"]
    + ["--config.train.steps=2"],
    cwd=commands.ROOT,
    env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
    stderr=subprocess.PIPE,
    text=True,
  )
  for _ in range(1200):
    if (tmp_path / "starts.jsonl").exists():
      break
    time.sleep(0.05)
  process.send_signal(signal.SIGUSR1)
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == 0, stderr[-2000:]
  assert "in main" in stderr and "most recent call first" in stderr


def test_no_trace_is_one_line(tmp_path):
  with pytest.raises(Exception, match="no trace in"):
    trace_lib.newest(str(tmp_path))
