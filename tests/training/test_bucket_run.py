"""A whole run in a bucket: started, cut off, resumed, evaluated, heard."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.helpers import commands, object_store, small_run
from tml_jax import buckets, errors, files, workdir
from tml_jax.logs import ticks

RUN = "s3://bucket/runs/first"


@pytest.fixture(scope="module")
def store():
  with object_store.serve("s3") as found, found.used():
    yield found


@pytest.fixture
def train(data_dir, tmp_path, monkeypatch):
  """Starts training as a process; what one has compiled the next need not."""
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
  monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")

  def start(run, *flags: str) -> subprocess.Popen:
    environment = dict(os.environ)
    environment.pop("XLA_FLAGS", None)
    return subprocess.Popen(
      [sys.executable, "-m", "tml_jax.train", *small_run.FLAGS]
      + [f"--workdir={run}", f"--data_dir={data_dir}"]
      + ["--config.train.steps=4", "--config.train.checkpoint_every=1", *flags],
      cwd=commands.ROOT,
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )

  return start


def finish(process) -> None:
  _, error = process.communicate(timeout=1200)
  assert process.returncode == 0, error[-3000:]


def losses(run) -> dict[int, tuple[float, float]]:
  """Loss and gradient norm of each step; the last line of a step counts."""
  rows = files.read_json_lines(files.path(run) / workdir.METRICS)
  return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows}


@pytest.mark.slow
def test_a_run_in_a_bucket_is_as_one_on_a_disk(
  store, train, data_dir, tmp_path
):
  finish(train(tmp_path / "whole"))
  want = losses(tmp_path / "whole")
  assert sorted(want) == [1, 2, 3, 4]

  # The connection is lost in the middle of the third save; then it is killed.
  store.cut_at(f"PUT .*{workdir.CHECKPOINTS}/3/state/ocdbt.process_0/d/")
  process = train(RUN)
  while not store.is_cut:
    assert process.poll() is None, process.stderr.read()[-3000:]
    time.sleep(0.1)
  process.kill()
  process.communicate()
  store.mend()
  assert workdir.checkpoint_steps(RUN) == [1, 2]
  place = files.path(RUN)
  assert buckets.sizes(place / workdir.CHECKPOINTS / "3")

  finish(train(RUN))
  assert losses(RUN) == want
  keep = small_run.config().train.keep_checkpoints
  assert workdir.checkpoint_steps(RUN) == [1, 2, 3, 4][-keep:]
  assert {
    *("config.txt", "goodput.json", "metrics.jsonl", "starts.jsonl"),
    *("tb", "tokenizer.model", workdir.CHECKPOINTS),
  } == {*buckets.names(place)}
  assert len(workdir.start_ids(RUN)) == 2
  goodput = files.read_json(place / workdir.GOODPUT)
  assert goodput["seconds"]["repeated"] > 0

  common = (f"--workdir={RUN}", f"--data_dir={data_dir}")
  evaluated = commands.run(
    *("-m", "tml_jax.evaluate", *common, "--count=1", "--families=reply"),
    timeout=1200,
  )
  assert evaluated.returncode == 0, evaluated.stderr[-3000:]
  numbers = json.loads((place / workdir.EVALUATION).read_bytes())
  assert numbers["step"] == 4 and len(numbers["conversations"]) == 1
  folder = place / "evaluation" / workdir.TICKS / "reply"
  (name,) = buckets.names(folder)
  assert ticks.read(folder / name).ticks
  assert "evaluation.html" in buckets.names(place)

  said = commands.run(
    *("-m", "tml_jax.sample", *common, "--scenario=fresh:1"),
    *(f"--out={tmp_path}/said", "--vocoder=griffin_lim"),
    timeout=1200,
  )
  assert said.returncode == 0, said.stderr[-3000:]
  assert ticks.read(tmp_path / "said" / "ticks.jsonl").provenance["step"] == 4


def test_no_rights_end_a_run_before_any_work(store, train):
  store.deny("PUT .*")
  process = train("s3://bucket/runs/closed")
  _, error = process.communicate(timeout=300)
  store.mend()
  assert process.returncode == errors.Status.BAD_INPUT
  (line,) = [x for x in error.splitlines() if x.startswith("error:")]
  assert "--workdir=s3://bucket/runs/closed cannot be written" in line
  assert "credentials" in line and "Traceback" not in error
  assert "compiling" not in error
  assert buckets.names(files.path("s3://bucket/runs")) in ([], ["first"])
