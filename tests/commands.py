"""Runs an entry point the way a user does, in a process of its own."""

import os
import pathlib
import subprocess
import sys

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
