"""Starts training as several `jax.distributed` processes on this machine.

For: tests of what happens between hosts. Each process stands for a host, with
CPU devices for its chips.
"""

import dataclasses
import os
import socket
import subprocess
import sys
import time

from tests import commands

HEARTBEAT_SECONDS = 20  # more than this busy machine ever keeps one silent


@dataclasses.dataclass
class Run:
  """The processes of one run."""

  processes: list[subprocess.Popen]

  def finish(self, *, timeout: float = 300.0) -> list[tuple[int, str]]:
    """Exit status and standard error of each; kills what is too late."""
    end = time.monotonic() + timeout
    result = []
    try:
      for process in self.processes:
        _, log = process.communicate(timeout=max(1.0, end - time.monotonic()))
        result.append((process.returncode, log))
    finally:
      self.kill()
    return result

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
  processes = []
  for index in range(count):
    place = [
      f"--coordinator_address={coordinator}",
      f"--num_processes={count}",
      f"--process_id={index}",
      f"--heartbeat_timeout={HEARTBEAT_SECONDS}",
    ]
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
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  return Run(processes)
