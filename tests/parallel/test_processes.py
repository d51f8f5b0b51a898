"""Several processes on this machine: agreement, and ends in bounded time."""

import time

import pytest

from tests.helpers import processes, slow_host
from tml_jax import errors
from tml_jax.parallel import processes as processes_lib
from tml_jax.training import checkpoint

MODULE = ("-m", "tests.helpers.agreeing")


def run(*flags: str, count: int = 2, each=()) -> list[tuple[int, str]]:
  return processes.start(
    *MODULE, *flags, count=count, devices=1, cache="", each=each
  ).finish(timeout=60)


def errors_of(log: str) -> list[str]:
  return [line for line in log.splitlines() if line.startswith("error: ")]


def test_processes_agree():
  for status, log in run("--mode=agree"):
    assert status == 0, log


def test_a_killed_process_ends_the_others_with_one_message():
  start = time.monotonic()
  short = ("--heartbeat_timeout=10",)
  (status, log), (killed, _) = run("--mode=killed", each=(short, short))
  assert killed == -9 and status == 1, log
  (message,) = errors_of(log)
  assert "process 1 on " in message and " is dead" in message
  assert time.monotonic() - start < 10 + 20


@pytest.mark.parametrize(
  "told, variable, listens_at",
  [
    ("127.0.0.1:80", "", "127.0.0.1:80"),
    ("localhost:80", "", "localhost:80"),
    ("10.0.0.7:80", "", "10.0.0.7:80"),
    ("[fd00::1]:80", "", "[fd00::1]:80"),
    ("host-0:80", "", None),
    ("34.1.2.3:80", "10.0.0.7:80", "10.0.0.7:80"),
  ],
)
def test_where_the_coordinator_listens(monkeypatch, told, variable, listens_at):
  monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", variable)
  assert processes_lib._listen_at(told) == listens_at


@pytest.mark.slow
def test_an_error_of_one_process_is_told_to_the_others():
  (status, log), (its_status, its_log) = run("--mode=error")
  assert status == its_status == errors.Status.BAD_INPUT, log
  assert errors_of(its_log) == ["error: process 1: its disk is full"]
  (message,) = errors_of(log)
  assert "process 1 has ended (its disk is full)" in message


@pytest.mark.slow
def test_a_step_that_hangs_ends_the_run():
  results = run("--mode=hangs")
  for status, log in results:
    assert status == 1, log
    assert "--step_timeout" in errors_of(log)[0]
  # Who is first to notice says where it hung.
  assert any('agreeing.py", line' in log for _, log in results)


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["task", "program"])
def test_a_host_that_copies_or_compares_for_long_is_waited_for(slow, tmp_path):
  trainer = checkpoint.Checkpointer(str(tmp_path / "old"), keep=1)
  trainer.save(1, state={"params": slow_host.WEIGHTS}, loader_state={})
  trainer.close()
  found = processes.start(
    *("-m", "tests.helpers.slow_host", f"--slow={slow}"),
    *(f"--workdir={tmp_path}/run", f"--init_from={tmp_path}/old"),
    "--connect_timeout=20",
    count=2,
    devices=1,
    cache="",
  ).finish()
  for status, log in found:
    assert status == errors.Status.BAD_INPUT, log[-3000:]
    assert errors_of(log) == ["error: all have come to the data"]


def test_half_of_the_flags_are_refused():
  ((status, log),) = run("--num_processes=2", count=1)
  assert status == 1
  assert "--coordinator_address, --process_id is missing" in log
  ((status, log),) = run("--distributed", "--connect_timeout=5", count=1)
  assert status == 1 and "cannot be connected" in log


@pytest.mark.slow
def test_processes_that_do_not_come_are_not_waited_for_in_vain():
  place = f"--coordinator_address=127.0.0.1:{processes.free_port()}"
  flags = (place, "--num_processes=2", "--connect_timeout=3")
  ((status, log),) = run(*flags, "--process_id=0", count=1)
  assert status == errors.Status.FAILED, log
  assert "not all processes of this run came" in log
  ((status, log),) = run(*flags, "--process_id=1", count=1)
  assert status == 1 and "process 0 did not listen there within 3 s" in log
