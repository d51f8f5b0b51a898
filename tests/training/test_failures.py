"""The same failure at the same step twice is a dead end."""

import errno
import math
import types

import pytest

from tml_jax import errors, workdir
from tml_jax.parallel import processes as processes_lib
from tml_jax.training import failures as failures_lib


def opened(path, *, step: int = 7) -> failures_lib.Failures:
  failures = failures_lib.Failures()
  failures.open(str(path), processes=processes_lib.Processes())
  failures.watch(lambda: step)
  return failures


def crash(number: int) -> Exception:
  """Of one place, with words that differ."""
  try:
    raise ValueError(f"at {number}")
  except ValueError as error:
    return error


def test_a_crash_that_comes_back_is_a_dead_end(tmp_path):
  assert opened(tmp_path).explain(crash(1)) is None
  assert opened(tmp_path, step=8).explain(crash(2)) is None
  found = opened(tmp_path).explain(crash(3))
  assert found.status is errors.Status.DEAD_END
  assert "step 7" in str(found) and "skip_batches=7" in str(found)
  # Another one at that step is another failure.
  assert opened(tmp_path).explain(KeyError("x")) is None


@pytest.mark.parametrize(
  "error",
  [
    OSError(errno.ENOSPC, "full"),
    ConnectionResetError("gone"),
    KeyboardInterrupt(),
    SystemExit(3),
  ],
)
def test_what_comes_from_outside_is_not_counted(tmp_path, error):
  for _ in range(3):
    assert opened(tmp_path).explain(error) is None
  assert not (tmp_path / workdir.FAILURES).exists()


def test_before_the_first_step_nothing_is_counted(tmp_path):
  for _ in range(2):
    assert opened(tmp_path, step=-1).explain(crash(1)) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_finite_ends_with_1_and_again_with_4(tmp_path, bad, caplog):
  waited = []
  checkpoints = types.SimpleNamespace(
    wait=lambda: waited.append(1), last="RUN/checkpoints/4"
  )
  for status in (errors.Status.FAILED, errors.Status.DEAD_END):
    check = failures_lib.FiniteOnly(
      opened(tmp_path), checkpoints=checkpoints, writes=True
    )
    check({"loss": 1.0, "grad_norm": 2.0}, step=5, saved=4)
    with pytest.raises(SystemExit) as end:
      check({"loss": 1.0, "grad_norm": bad}, step=6, saved=4)
    assert end.value.code == status
  assert (
    "the last good checkpoint is step 4 in RUN/checkpoints/4" in caplog.text
  )
  assert "skip_batches=6" in caplog.text
  assert len(waited) == 2


def test_a_damaged_file_is_begun_anew(tmp_path, caplog):
  (tmp_path / workdir.FAILURES).write_text(
    '{"step": 7, "wh\n[]\n{"step": []}\n'
  )
  assert opened(tmp_path).explain(crash(1)) is None
  assert "cut or damaged" in caplog.text
  assert opened(tmp_path).explain(crash(1)) is not None
