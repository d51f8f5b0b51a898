"""Work in C++ that says that it goes on, and ends when it is told to."""

import os
import signal
import subprocess
import sys
import time

import pytest
from absl import logging

from tests.helpers import commands
from tml_jax.compiled import attended

# Waits in C, as for a compiler: no signal handler of Python runs meanwhile.
_SCRIPT = """
import ctypes, pathlib, sys
from absl import logging
from tml_jax.compiled import attended
logging.set_verbosity("info")
with attended.attended(
  "compiling", scratch=pathlib.Path(sys.argv[1]), seconds=0.2
):
  lock = ctypes.create_string_buffer(64)
  ctypes.CDLL(None).pthread_mutex_lock(lock)
  ctypes.CDLL(None).pthread_mutex_lock(lock)  # for ever
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_in_one_line(number, tmp_path):
  scratch = tmp_path / "scratch"
  scratch.mkdir()
  process = subprocess.Popen(
    [sys.executable, "-c", _SCRIPT, str(scratch)],
    cwd=commands.ROOT,
    stderr=subprocess.PIPE,
    text=True,
  )
  first = process.stderr.readline()
  assert first.endswith("compiling: 0 s so far\n")
  process.send_signal(number)
  *_, last = process.stderr.read().splitlines()
  assert process.wait() == 128 + number
  assert last == f"ended by {number.name}: compiling"
  assert not scratch.exists()


def test_what_was_there_before_is_there_again(tmp_path, caplog):
  before = signal.getsignal(signal.SIGTERM)
  found = []
  signal.signal(signal.SIGTERM, lambda *_: found.append("mine"))
  try:
    logging.set_verbosity(logging.INFO)
    with attended.attended("works", scratch=tmp_path, seconds=0.01):
      time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)
  finally:
    signal.signal(signal.SIGTERM, before)
  assert found == ["mine"] and tmp_path.exists()
  assert "works: 0 s so far" in caplog.text
