"""What is told on a terminal stays text, whatever is in it."""

import errno
import json
import socket

import fsspec
import hypothesis
import pytest
from hypothesis import strategies as st

from tests.helpers import commands
from tml_jax import errors

RED = "\x1b[31m"


def test_an_error_is_one_line_that_is_shown():
  name = f"a{RED}\nerror: forged\x9b2J\u202e\udcff"
  text = str(errors.UserError(f"--input={name}: é is no file"))
  assert text == (
    r"--input=a\u001b[31m\nerror: forged\u009b2J\u202e\udcff: é is no file"
  )
  assert str(errors.UserError(text)) == text  # told by another process
  joined = (
    "\u06a9\u062a\u0627\u0628\u200c\u0647\u0627"  # Persian, with a joiner
  )
  assert errors.escaped(joined) == joined


@hypothesis.given(st.text())
def test_escaped_json_is_the_same_json(text):
  written = errors.escaped(json.dumps(text, ensure_ascii=False))
  assert json.loads(written) == text
  assert all(map(errors.is_shown, written))


@pytest.mark.parametrize(
  "error",
  [
    fsspec.exceptions.FSTimeoutError(),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    ConnectionError("closed"),
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    ConnectionAbortedError(errno.ECONNABORTED, "aborted"),
    OSError(errno.ENOSPC, "full"),
  ],
)
def test_faults_of_networks_may_pass(error):
  assert errors.of_system(error, "x").status is errors.Status.FAILED


def test_what_stays_wrong_is_bad_input():
  for error in (PermissionError(errno.EACCES, "denied"), FileNotFoundError()):
    assert errors.of_system(error, "x").status is errors.Status.BAD_INPUT


def test_names_in_errors_and_logs_of_a_command(tmp_path):
  """Nothing of a name with escape codes reaches the terminal as such."""
  result = commands.run("-m", "tml_jax.sample", f"--workdir={tmp_path}/{RED}")
  assert result.returncode == 2 and r"\u001b[31m" in result.stderr
  script = (
    "from absl import logging\n"
    "from tml_jax.config import flags\n"
    f"flags.run(lambda c: logging.warning('%s\\nnext', {RED!r}),"
    " default='experiments/interaction.py:tiny')"
  )
  result = commands.run("-c", script)
  assert result.returncode == 0, result.stderr
  assert result.stderr.endswith("\\u001b[31m\nnext\n")
