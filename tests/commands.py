"""Runs an entry point the way a user does, in a process of its own."""

import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent


def run(*args: str, timeout: float = 120.0) -> subprocess.CompletedProcess:
  """`python ARGS` from the repository root, on one CPU device."""
  environment = dict(os.environ)
  environment.pop("XLA_FLAGS", None)  # conftest asks for eight devices
  return subprocess.run(
    [sys.executable, *args],
    cwd=ROOT,
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
