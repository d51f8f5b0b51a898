"""Starts training as several `jax.distributed` processes on this machine.

For: tests of what happens between hosts. Each process stands for a host, with
CPU devices for its chips.
"""

import dataclasses
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import IO

from tests.helpers import commands

HEARTBEAT_SECONDS = 20  # more than this busy machine ever keeps one silent


@dataclasses.dataclass
class Run:
  """The processes of one run, and the files with what they say."""

  processes: list[subprocess.Popen]
  logs: list[IO[str]]

  def finish(self, *, timeout: float = 300.0) -> list[tuple[int, str]]:
    """Exit status and standard error of each; kills what is too late."""
    end = time.monotonic() + timeout
    try:
      for process in self.processes:
        process.wait(timeout=max(1.0, end - time.monotonic()))
    finally:
      self.kill()
    statuses = [process.returncode for process in self.processes]
    return [(s, self.log(i)) for i, s in enumerate(statuses)]

  def log(self, index: int) -> str:
    """What a process has said so far."""
    self.logs[index].seek(0)
    return self.logs[index].read()

  def kill(self) -> None:
    for process in self.processes:
      if process.poll() is None:
        process.kill()
        process.wait()


def free_port() -> int:
  with socket.socket() as server:
    server.bind(("127.0.0.1", 0))
    return server.getsockname()[1]


def start(
  *arguments: str,
  count: int,
  devices: int,
  cache: str,
  each: tuple[tuple[str, ...], ...] = (),
) -> Run:
  """`python ARGUMENTS` `count` times, with `devices` CPU devices each.

  Args:
    *arguments: of all.
    count: processes; a single one is not told of any others.
    devices: of each process.
    cache: directory of compiled programs, to be shared by runs; may be empty.
    each: further arguments of each process.
  """
  environment = dict(os.environ)
  environment |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
  }
  if cache:
    environment["JAX_COMPILATION_CACHE_DIR"] = cache
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  coordinator = f"127.0.0.1:{free_port()}"
  processes, logs = [], []
  for index in range(count):
    place = [
      f"--coordinator_address={coordinator}",
      f"--num_processes={count}",
      f"--process_id={index}",
      f"--heartbeat_timeout={HEARTBEAT_SECONDS}",
    ]
    # Not a pipe: it would be full while another process is waited for.
    logs.append(tempfile.TemporaryFile("w+", encoding="utf-8"))
    processes.append(
      subprocess.Popen(
        [
          sys.executable,
          *arguments,
          *(place if count > 1 else []),
          *(each[index] if each else ()),
        ],
        cwd=commands.ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=logs[index],
      )
    )
  return Run(processes, logs)
