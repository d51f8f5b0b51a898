"""What `evaluate` refuses before any work."""

import pytest

from tests.helpers import commands
from tml_jax import errors

_TINY = "--config=experiments/interaction.py:tiny_procedural"


@pytest.mark.parametrize("suite", ["fdb", "game_time"])
def test_settings_are_swept_on_our_own_users(suite, tmp_path):
  done = commands.run(
    *("-m", "tml_jax.evaluate", _TINY, f"--workdir={tmp_path}"),
    *(f"--suite={suite}", "--sweep=sample.onset_bias=0,1"),
  )
  assert done.returncode == errors.Status.BAD_INPUT, done.stderr[-2000:]
  (line,) = done.stderr.strip().splitlines()
  assert f"--sweep=sample.onset_bias=0,1 --suite={suite}: settings" in line
