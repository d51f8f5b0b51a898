"""`python -m launch.preflight`: several real processes on loopback."""

import json
import math
import os
import re
import socket
import subprocess
import sys

import pytest

from experiments import topologies
from launch import host_checks
from tests.helpers import commands, small_run

FLAGS = (
  *small_run.FLAGS,
  "--config.train.global_batch_size=8",
  "--config.mesh.data=2",
  "--config.mesh.fsdp=2",
  "--config.mesh.rules=batch:data+fsdp",
)


def _start(*flags: str, devices: int, environment=()) -> subprocess.Popen:
  xla_flags = f"--xla_force_host_platform_device_count={devices}"
  return subprocess.Popen(
    [sys.executable, "-m", "launch.preflight", *FLAGS, *flags],
    cwd=commands.ROOT,
    env=os.environ | {"XLA_FLAGS": xla_flags} | dict(environment),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _two(*flags: str, of_second=(), environment_of_second=()):
  """Two processes of two devices; status, output and errors of each."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  shared = [
    *flags,
    f"--coordinator_address=127.0.0.1:{port}",
    "--num_processes=2",
    "--connect_timeout=60",
  ]
  processes = [
    _start(*shared, "--process_id=0", devices=2),
    _start(
      *shared,
      "--process_id=1",
      *of_second,
      devices=2,
      environment=environment_of_second,
    ),
  ]
  try:
    outputs = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
  return [
    (process.returncode, *output)
    for process, output in zip(processes, outputs, strict=True)
  ]


def _refused(results, *messages: str) -> None:
  for status, _, errors in results:
    assert status == 2, errors
    (line,) = [x for x in errors.splitlines() if x.startswith("error: ")]
    for message in messages:
      assert re.search(message, line), line
  assert "FAILED" in results[0][1]


@pytest.mark.slow
def test_two_processes_that_agree(data_dir, tmp_path):
  workdir, report = tmp_path / "a" / "run", tmp_path / "report.json"
  results = _two(
    f"--data_dir={data_dir}", f"--workdir={workdir}", f"--json={report}"
  )
  assert [status for status, *_ in results] == [0, 0], results
  content = json.loads(report.read_text())
  rows = dict(content["rows"])
  assert content["problems"] == []
  assert rows["mesh"] == "data 2 fsdp 2"
  assert rows["devices"] == "cpu, 2 of each process, 4 together"
  assert rows["batch"] == "8 sequences, 4 made by a process"
  assert rows["resume"] == "a new run"
  assert "right" in rows["sum over data"] and "right" in rows["sum over fsdp"]
  assert all(name in results[0][1] for name in rows)  # the table
  assert "sum over" not in results[1][1]  # printed once
  assert not workdir.parent.exists()  # it leaves nothing


def test_a_sum_over_an_axis_is_that_of_numpy():
  ones = dict(data=2, fsdp=2, expert=2, tensor=1, seq=1)
  tiny = small_run.config(**ones, rules=topologies.RULES)
  for axis in ("data", "fsdp", "expert"):
    found = host_checks.add(tiny, axis)  # raises where one is wrong
    assert 0 < found["seconds"] < math.inf and found["mib"] == 1


@pytest.mark.slow
def test_another_version_and_config_on_one_host(data_dir, tmp_path):
  package = tmp_path / "packages" / "libtpu-9.9.9.dist-info"
  package.mkdir(parents=True)
  (package / "METADATA").write_text("Name: libtpu\nVersion: 9.9.9\n")
  results = _two(
    f"--data_dir={data_dir}",
    f"--workdir={tmp_path / 'run'}",
    of_second=["--config.train.seed=7"],
    environment_of_second={"PYTHONPATH": str(package.parent)},
  )
  host = re.escape(socket.gethostname())
  _refused(
    results,
    f"process 1 on {host}: libtpu is 9.9.9, and .* on process 0 on {host}",
    f"process 1 on {host}: train.seed is 7, and 0 on process 0",
    "same --config",
  )
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_workdir_that_cannot_be_written(data_dir, tmp_path):
  file = tmp_path / "file"
  file.write_text("")
  results = _two(
    f"--data_dir={data_dir}",
    f"--workdir={tmp_path / 'run'}",
    of_second=[f"--workdir={file / 'run'}"],
  )
  _refused(results, "process 1 on .*cannot be written.*Not a directory")


@pytest.mark.slow
def test_a_workdir_that_is_not_shared(data_dir, tmp_path):
  results = _two(
    f"--data_dir={data_dir}",
    f"--workdir={tmp_path / 'run'}",
    of_second=[f"--workdir={tmp_path / 'own'}"],
  )
  _refused(results, "process 1 on .*not the directory that process 0 writes to")


@pytest.mark.slow
def test_data_that_is_missing_on_one_host(data_dir, tmp_path):
  results = _two(
    f"--data_dir={data_dir}",
    f"--workdir={tmp_path / 'run'}",
    of_second=[f"--data_dir={tmp_path / 'nothing'}"],
  )
  _refused(results, "process 1 on .*no prepared corpus: .*nothing")


@pytest.mark.slow
def test_a_mesh_of_another_size(data_dir, tmp_path):
  results = _two(
    f"--data_dir={data_dir}",
    f"--workdir={tmp_path / 'run'}",
    "--config.mesh.data=4",
  )
  _refused(results, "every host: .*need 8 devices and there are 4")


@pytest.mark.slow
def test_hosts_that_hold_parts_of_a_shard_of_the_data(data_dir, tmp_path):
  results = _two(
    f"--data_dir={data_dir}",
    f"--workdir={tmp_path / 'run'}",
    "--config.data.logical_shards=1",
  )
  _refused(results, "data.logical_shards = 1, each gives 8 neighbouring rows")


@pytest.mark.slow
@pytest.mark.parametrize(
  "flags, message",
  [
    ([], "--workdir is missing"),
    (["--config.train.keep_checkpoints=1000000"], "checkpoints of .*need"),
    (["--config.train.global_batch_size=6"], "cannot be split over 4"),
    (["--config.train.local_checkpoint_every=5"], "needs --local_checkpoint"),
  ],
)
def test_one_process_refuses_in_one_line(data_dir, tmp_path, flags, message):
  if flags:
    flags = [*flags, f"--workdir={tmp_path / 'run'}"]
  process = _start(f"--data_dir={data_dir}", *flags, devices=4)
  _, errors = process.communicate(timeout=120)
  assert process.returncode == 2, errors
  (line,) = [x for x in errors.splitlines() if x.startswith("error: ")]
  assert re.search(message, line), line
