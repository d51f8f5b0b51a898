"""Runs on several hosts, each a process here: saved, killed, resumed.

Losses of another mesh are sums in another order: they are compared to float32
rounding, those of the same mesh bit for bit.
"""

import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.helpers import processes, saving, small_run
from tml_jax import errors
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.training import checkpoint, optim
from tml_jax.training import state as state_lib

STEPS = 8
DEVICES = 4  # in all; compiling for eight takes twice as long
TWO = ("--config.mesh.fsdp=2", "--config.mesh.expert=2")
ONE = ("--config.mesh.data=2", "--config.mesh.tensor=2")
# Gradients of small losses are sums that cancel: 1e-4 of them is rounding.
LOSS_TOLERANCE, NORM_TOLERANCE = 2e-5, 1e-3


@pytest.fixture(scope="module")
def start(tmp_path_factory, data_dir):
  """Starts a run of eight rows on four devices; returns `processes.Run`."""
  cache = str(tmp_path_factory.mktemp("compiled"))

  def run(workdir, *flags: str, count: int = 2, each=()) -> processes.Run:
    return processes.start(
      *("-m", "tml_jax.train", *small_run.FLAGS),
      "--config.data.logical_shards=8",
      "--config.train.global_batch_size=8",
      "--config.train.optim.name=adamw",  # compiles faster than Muon
      f"--config.train.steps={STEPS}",
      *(f"--workdir={workdir}", f"--data_dir={data_dir}"),
      *(TWO if count == 2 else ONE if count == 1 else ()),
      *flags,
      count=count,
      devices=DEVICES // count,
      cache=cache,
      each=each,
    )

  return run


def succeed(run: processes.Run) -> list[str]:
  logs = []
  for status, log in run.finish():
    assert status == 0, log[-3000:]
    logs.append(log)
  return logs


def rows_of(workdir) -> dict[int, dict[str, float]]:
  """Metrics by step; the last line of a step counts."""
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  rows = [json.loads(line) for line in lines if line.endswith("}")]
  return {row["step"]: row for row in rows if "loss" in row}


def losses_of(workdir) -> dict[int, tuple[float, float]]:
  return {k: (v["loss"], v["grad_norm"]) for k, v in rows_of(workdir).items()}


def assert_same_run(workdir, reference) -> None:
  got, want = rows_of(workdir), rows_of(reference)
  assert got.keys() == want.keys() == set(range(1, STEPS + 1))
  for step, row in want.items():
    # Tokens are whole numbers: those of the same examples.
    assert got[step]["tokens"] == row["tokens"]
    np.testing.assert_allclose(
      got[step]["loss"], row["loss"], rtol=LOSS_TOLERANCE, err_msg=str(step)
    )
    np.testing.assert_allclose(
      got[step]["grad_norm"], row["grad_norm"], rtol=NORM_TOLERANCE
    )
  assert positions(workdir, STEPS) == positions(reference, STEPS)


def positions(workdir, step: int):
  """Where all shards of the data stand in a checkpoint."""
  path = workdir / "checkpoints" / str(step) / "loader" / "metadata"
  shards = json.loads(path.read_text())["shards"]
  assert shards.keys() == set(map(str, range(8)))
  return shards


def wait_until(run: processes.Run, condition) -> None:
  for _ in range(3000):
    if condition():
      return
    for index, process in enumerate(run.processes):
      assert process.poll() is None, run.log(index)[-3000:]
    time.sleep(0.05)
  run.kill()
  raise AssertionError("the awaited moment never came")


@pytest.fixture(scope="module")
def reference(start, tmp_path_factory):
  """An uninterrupted run on two processes."""
  path = tmp_path_factory.mktemp("reference")
  succeed(start(path, "--config.train.checkpoint_every=100"))
  return path


@pytest.mark.slow
def test_a_run_killed_on_two_processes_goes_on_on_one_and_on_two(
  start, reference, tmp_path
):
  work = tmp_path / "run"
  often = "--config.train.checkpoint_every=2"
  run = start(work, often)
  wait_until(run, lambda: (work / "checkpoints" / "2").exists())
  killed_at = time.monotonic()
  run.processes[1].kill()
  (status, log), _ = run.finish(timeout=processes.HEARTBEAT_SECONDS + 20)
  assert status == 1, log
  assert time.monotonic() - killed_at < processes.HEARTBEAT_SECONDS
  assert log.count("error: process 1 on ") == 1
  assert "the last save began after step" in log
  assert max(losses_of(work)) < STEPS

  copy = tmp_path / "copy"
  shutil.copytree(work, copy)
  (log,) = succeed(start(work, often, count=1))
  assert "resumed from step" in log
  assert_same_run(work, reference)

  for log in succeed(start(copy, often)):
    assert "resumed from step" in log
  assert losses_of(copy) == losses_of(reference)  # the same mesh: every bit
  assert positions(copy, STEPS) == positions(reference, STEPS)
  row = rows_of(copy)[STEPS]
  assert 0 < row["goodput"] < 1 and row["goodput/stopped_seconds"] > 0
  assert row["time/data"] >= 0
  kept = json.loads((copy / "goodput.json").read_text())
  assert kept["seconds"]["repeated"] >= 0 and kept["seconds"]["compile"] > 0


@pytest.mark.slow
def test_sigterm_of_one_process_saves_on_all(start, tmp_path):
  work = tmp_path / "run"
  run = start(work, "--config.train.steps=200")
  wait_until(run, lambda: len(losses_of(work)) >= 2)
  run.processes[1].send_signal(signal.SIGTERM)
  found = run.finish()
  assert [status for status, _ in found] == [errors.Status.STOPPED] * 2
  logs = [log for _, log in found]
  stopped_at = max(losses_of(work))
  for log in logs:
    assert f"stopping on SIGTERM after step {stopped_at}, state saved" in log
  assert os.listdir(work / "checkpoints") == [str(stopped_at)]
  positions(work, stopped_at)  # of all shards


@pytest.mark.slow
def test_the_newest_checkpoint_that_all_hosts_hold_counts(
  start, reference, tmp_path
):
  work, local = tmp_path / "run", tmp_path / "local"
  tiers = (
    f"--local_checkpoint_dir={local}",
    "--config.train.local_checkpoint_every=1",
    "--config.train.checkpoint_every=3",
  )
  run = start(work, *tiers)
  wait_until(run, lambda: any(local.glob("*/1_of_2/5/index.json")))
  run.processes[0].kill()
  (_, (status, _)) = run.finish(timeout=processes.HEARTBEAT_SECONDS + 20)
  assert status != 0
  copy, lost = tmp_path / "copy", tmp_path / "lost"
  shutil.copytree(work, copy)
  shutil.copytree(local, lost)

  for log in succeed(start(work, *tiers)):
    assert f"of {local}" in log  # after step 4 or later
  assert losses_of(work) == losses_of(reference)

  # One host lost its disk: the checkpoint in the workdir is the newest of all.
  for path in lost.glob("*/1_of_2"):
    shutil.rmtree(path)
  again = (f"--local_checkpoint_dir={lost}", *tiers[1:])
  for log in succeed(start(copy, *again)):
    assert f"resumed from step 3 of {copy}/checkpoints" in log
  assert losses_of(copy) == losses_of(reference)


@pytest.mark.slow
def test_bad_input_of_one_host_is_one_error_of_all_before_anything_is_written(
  start, tmp_path
):
  work = tmp_path / "run"
  (tmp_path / "file").write_text("")
  unwritable = f"--local_checkpoint_dir={tmp_path}/file/x"
  often = "--config.train.local_checkpoint_every=1"
  cases = (
    (
      (),
      (("--config.train.seed=1",), ()),
      "train.seed is 1 in process 0 and 0",
    ),
    (
      (often,),
      ((f"--local_checkpoint_dir={tmp_path}/ok",), (unwritable,)),
      "process 1: --local_checkpoint_dir=",
    ),
    (("--config.mesh.fsdp=1",), (), "choose sizes whose product"),
  )
  for flags, each, message in cases:
    for status, log in start(work, *flags, each=each).finish():
      assert status == 2, log[-3000:]
      assert log.count("error: ") == 1 and "Traceback" not in log
      assert message in log
    assert not work.exists()
  odd = ("--config.mesh.data=4", "--config.data.logical_shards=2")
  for status, log in start(work, *odd, count=4).finish():
    assert status == 2 and "data.logical_shards = 2" in log, log[-3000:]
  assert not work.exists()


@pytest.mark.slow
def test_a_checkpoint_without_a_part_is_refused(start, tmp_path):
  work = tmp_path / "run"
  succeed(start(work, "--config.train.steps=1"))
  for path in (work / "checkpoints" / "1" / "state").glob("**/d/*"):
    path.unlink()
  for status, log in start(work, "--config.train.steps=2").finish():
    assert status == errors.Status.DEAD_END, log[-3000:]
    assert "no whole checkpoint" in log and "is missing" in log


@pytest.mark.slow
def test_evaluation_inside_training_on_two_processes(start, tmp_path):
  work = tmp_path / "run"
  succeed(
    start(work, "--config.train.steps=3", "--config.train.evaluate_every=2")
  )
  lines = (work / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [row["step"] for row in rows] == [1, 2, 2, 3]
  assert rows[2]["eval/mel_db"] > 0


@pytest.mark.slow
def test_saved_on_two_processes_restored_on_one_with_other_axes(tmp_path):
  succeed(
    processes.start(
      *("-m", "tests.helpers.saving", f"--workdir={tmp_path}"),
      count=2,
      devices=4,
      cache="",
    )
  )
  saved = dict(np.load(tmp_path / "saved.npz"))
  for axes in (dict(fsdp=8), dict(data=2, fsdp=2, tensor=2), dict(expert=4)):
    cfg = small_run.config(**axes)
    size = int(np.prod(list(axes.values())))
    abstract = state_lib.abstract(
      cfg,
      model=state_lib.create_model(cfg),
      optimizer=optim.create(cfg.train.optim, steps=10),
      mesh=mesh_lib.create(cfg.mesh, devices=jax.devices()[:size]),
    )
    trainer = checkpoint.Checkpointer(str(tmp_path), keep=1)
    state, loader_state = trainer.restore(abstract.state, step=saving.STEP)
    trainer.close()
    assert loader_state == saving.LOADER
    assert_bitwise(state.params, saved)
    for leaf, wanted in zip(
      jax.tree.leaves(state), jax.tree.leaves(abstract.state), strict=True
    ):
      assert leaf.sharding == wanted.sharding

    # Weights alone, and a part of them.
    weights = checkpoint.Weights(str(tmp_path))
    some = dict(list(abstract.state.params.items())[:2])
    assert_bitwise(
      weights.restore({"params": some})["params"],
      {k: v for k, v in saved.items() if k.split("/")[0] in some},
    )
    weights.close()


def assert_bitwise(params, saved) -> None:
  flat = traverse_util.flatten_dict(jax.device_get(params), sep="/")
  assert flat.keys() == saved.keys()
  for name, value in flat.items():
    assert value.tobytes() == saved[name].tobytes(), name
