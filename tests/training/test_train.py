"""Whole runs in processes of their own: resume, kill, stop, refuse."""

import glob
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import commands, small_run
from tml_jax import errors, lock

STEPS = 30  # enough to be stopped in, also on a slow machine


@pytest.fixture(scope="module")
def start(data_dir):
  """Starts a training process; returns the Popen."""

  def run(workdir, *flags: str) -> subprocess.Popen:
    environment = dict(os.environ)
    environment.pop("XLA_FLAGS", None)
    return subprocess.Popen(
      [sys.executable, "-m", "tml_jax.train", *small_run.FLAGS]
      + [f"--workdir={workdir}", f"--data_dir={data_dir}"]
      + [f"--config.train.steps={STEPS}", *flags],
      cwd=commands.ROOT,
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )

  return run


def _metrics(workdir) -> list[dict[str, float]]:
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  return [json.loads(line) for line in lines if line.endswith("}")]


def _losses(workdir) -> dict[int, tuple[float, float]]:
  """Loss and gradient norm of each step; the last line of a step counts."""
  rows = _metrics(workdir)
  return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows}


def _wait_until(process, condition) -> None:
  for _ in range(6000):
    if condition():
      return
    assert process.poll() is None, process.stderr.read()[-2000:]
    time.sleep(0.02)
  raise AssertionError("the awaited moment never came")


def _saves_of(workdir, *, finished: bool) -> list[str]:
  paths = glob.glob(str(workdir / "checkpoints" / "*"))
  return [p for p in paths if p.rsplit("/", 1)[1].isdigit() == finished]


@pytest.mark.slow
def test_killed_and_stopped_runs_continue_bit_for_bit(start, tmp_path):
  whole = tmp_path / "whole"
  process = start(whole, "--config.train.checkpoint_every=100")
  assert process.wait() == 0, process.stderr.read()[-2000:]
  want = _losses(whole)
  assert sorted(want) == list(range(1, STEPS + 1))

  # SIGTERM: saves the step it is at and exits with 143.
  broken = tmp_path / "broken"
  often = "--config.train.checkpoint_every=1"
  process = start(broken, "--config.train.checkpoint_every=100")
  _wait_until(process, lambda: len(_losses(broken)) >= 2)
  process.send_signal(signal.SIGTERM)
  assert process.wait() == errors.Status.STOPPED
  stopped_at = max(_losses(broken))
  assert stopped_at < STEPS
  assert _saves_of(broken, finished=True) == [
    str(broken / "checkpoints" / str(stopped_at))
  ]

  # kill -9 while a save is being written.
  process = start(broken, often)
  _wait_until(process, lambda: _saves_of(broken, finished=False))
  process.kill()
  process.wait()
  # The last save is whole or absent; the run goes on from the one before.
  assert _saves_of(broken, finished=True)

  # kill -9 in the middle of a step.
  process = start(broken, "--config.train.checkpoint_every=100")
  before = len(_losses(broken))
  _wait_until(
    process,
    lambda: (
      len(_losses(broken)) > before
      or process.poll() is not None
      or len(_losses(broken)) >= STEPS - 1
    ),
  )
  process.kill()
  process.wait()

  process = start(broken, "--config.train.checkpoint_every=100")
  assert process.wait() == 0, process.stderr.read()[-2000:]
  assert _losses(broken) == want
  assert not _saves_of(broken, finished=False)  # of the killed save


@pytest.mark.slow
def test_not_finite_stops_with_the_last_good_checkpoint(start, tmp_path):
  flags = (
    "--config.train.checkpoint_every=1",
    "--config.train.optim.learning_rate=1e30",
    "--config.train.optim.muon_learning_rate=1e30",
    "--config.train.optim.warmup_steps=0",
  )
  process = start(tmp_path / "run", *flags)
  log = process.stderr.read()
  assert process.wait() == errors.Status.FAILED
  line = next(x for x in log.splitlines() if "the last good checkpoint" in x)
  step = int(line.split("last good checkpoint is step ")[1].split(" ")[0])
  assert f"step {step + 1}: loss" in line
  assert max(_losses(tmp_path / "run")) == step  # JSON has no NaN
  assert _saves_of(tmp_path / "run", finished=True)
  # The same again is of no use to start once more.
  process = start(tmp_path / "run", *flags)
  log = process.stderr.read()
  assert process.wait() == errors.Status.DEAD_END
  assert f"train.skip_batches={step + 1}" in log and "Traceback" not in log


@pytest.mark.slow
def test_a_skipped_batch_is_the_only_one_that_is_not_trained_on(
  start, tmp_path
):
  once = ("--config.train.steps=4", "--config.train.checkpoint_every=2")
  assert start(tmp_path / "whole", *once).wait() == 0
  skips = "--config.train.skip_batches=2,3"
  assert start(tmp_path / "two", *once, skips).wait() == 0
  # The same from a checkpoint between the two.
  more = ("--config.train.steps=2", *once[1:])
  assert start(tmp_path / "cut", *more, skips).wait() == 0
  assert start(tmp_path / "cut", *once, skips).wait() == 0
  whole, two, cut = (
    [row["tokens"] for row in _metrics(tmp_path / name)]
    for name in ("whole", "two", "cut")
  )
  assert two[:2] == [whole[0], whole[2]] and cut == two
  assert _positions(tmp_path / "two", 4) == _positions(tmp_path / "cut", 4)
  row = _metrics(tmp_path / "two")[-1]
  assert 0 < row["learning_rate"] < row["learning_rate/muon"]


def _positions(workdir, step: int):
  path = workdir / "checkpoints" / str(step) / "loader" / "metadata"
  return json.loads(path.read_text())["shards"]


def test_a_workdir_in_use_is_refused(start, tmp_path):
  run = tmp_path / "run"
  run.mkdir()
  owner = lock.Lock(str(run), flag="--workdir", does="trains")
  owner.take()
  process = start(run)
  log = process.stderr.read()
  assert process.wait() == errors.Status.FAILED
  assert log.count("error: ") == 1 and "is in use: process" in log
  owner.release()
  assert not list(run.iterdir())


@pytest.mark.slow
def test_an_evaluation_that_was_cut_is_made_when_the_run_goes_on(
  start, tmp_path
):
  run = tmp_path / "run"
  flags = (
    "--config.train.steps=2",
    "--config.train.checkpoint_every=2",
    "--config.train.evaluate_every=2",
  )
  process = start(run, *flags)
  _wait_until(process, lambda: _saves_of(run, finished=True))
  process.kill()
  process.wait()
  assert not [row for row in _metrics(run) if "eval/mel_db" in row]
  for _ in range(2):  # and made once
    process = start(run, *flags)
    log = process.stderr.read()
    assert process.wait() == 0, log[-2000:]
    assert "nothing to do" in log and "compiled" not in log
    (row,) = [row for row in _metrics(run) if "eval/mel_db" in row]
    assert row["step"] == 2


@pytest.mark.slow
def test_a_checkpoint_of_another_config_is_refused(start, tmp_path):
  run = tmp_path / "run"
  assert start(run, "--config.train.steps=1").wait() == 0
  process = start(run, "--config.model.d_model=64")
  error = process.stderr.read()
  assert process.wait() == 2
  assert "model.d_model: 32 -> 64" in error and "Traceback" not in error


@pytest.mark.slow
def test_a_finished_run_has_nothing_to_do(start, tmp_path):
  run = tmp_path / "run"
  assert start(run, "--config.train.steps=1").wait() == 0
  before = _metrics(run)
  process = start(run, "--config.train.steps=1")
  log = process.stderr.read()
  assert process.wait() == 0
  assert "nothing to do: train.steps = 1" in log and "compiled" not in log
  assert _metrics(run) == before


@pytest.mark.slow
def test_evaluation_inside_training_is_in_the_metrics(start, tmp_path):
  process = start(
    tmp_path / "run",
    "--config.train.steps=3",
    "--config.train.evaluate_every=2",
  )
  assert process.wait() == 0, process.stderr.read()[-2000:]
  rows = _metrics(tmp_path / "run")
  assert [row["step"] for row in rows] == [1, 2, 2, 3]
  evaluation = rows[2]
  assert 0 <= evaluation["eval/responded"] <= 1
  assert evaluation["eval/false_fires"] >= 0
  assert evaluation["eval/mel_db"] > 0
  assert rows[3]["loss"] > 0


def test_what_cannot_be_evaluated_is_refused_before_the_first_step(
  start, tmp_path
):
  process = start(
    tmp_path / "run",
    "--config.train.evaluate_every=2",
    "--config.data.mixture=procedural-low:1.0",
  )
  error = process.stderr.read()
  assert process.wait() == 2
  assert "no item of procedural-low says what is due" in error
  assert not _metrics(tmp_path / "run")


def test_missing_data_and_unwritable_workdir_are_one_line(start, tmp_path):
  process = start(tmp_path / "run", "--data_dir=")
  error = process.stderr.read()
  assert process.wait() == 2
  assert error.startswith("error: --data_dir is missing")
  assert not (tmp_path / "run").exists()
  process = start(tmp_path / "run", f"--data_dir={tmp_path}/none")
  error = process.stderr.read()
  assert process.wait() == 2
  assert error.count("error:") == 1 and f"{tmp_path}/none" in error
  (tmp_path / "file").write_text("")
  process = start(tmp_path / "file" / "run")
  error = process.stderr.read()
  assert process.wait() == 2
  assert "--workdir" in error and "Traceback" not in error
