"""Runs an entry point the way a user does, in a process of its own."""

import contextlib
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(
  *args: str, timeout: float = 120.0, cwd: pathlib.Path = ROOT
) -> subprocess.CompletedProcess:
  """`python ARGS` with this checkout, in `cwd`, on one CPU device."""
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  environment.pop("XLA_FLAGS", None)  # conftest asks for eight devices
  return subprocess.run(
    [sys.executable, *args],
    cwd=cwd,
    env=environment,
    capture_output=True,
    text=True,
    timeout=timeout,
    check=False,
  )


def wait_until_gone(group: int) -> None:
  """Waits for the last process of a process group, or fails."""
  for _ in range(600):
    try:
      os.killpg(group, 0)
    except ProcessLookupError:
      return
    time.sleep(0.05)
  os.killpg(group, signal.SIGKILL)
  raise AssertionError(f"processes of the group {group} were left behind")


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
  """A disk that is full, as far as a process can see without one."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
