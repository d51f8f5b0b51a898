"""Losses and sessions repeat what is checked in (`golden_runs`)."""

import numpy as np
import pytest

from tests import golden_runs
from tests.golden_runs import RUNS, SESSION, TOLERANCES, Golden


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return golden_runs.prepared(str(tmp_path_factory.mktemp("prepared")))


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_repeats_its_losses(name, data_dir):
  want, got = (
    Golden.load(name),
    golden_runs.losses(RUNS[name], data_dir=data_dir),
  )
  if got.machine == want.machine:
    assert got.lines == want.lines
  np.testing.assert_allclose(
    _numbers(got), _numbers(want), rtol=TOLERANCES[RUNS[name].train.dtype]
  )


def _numbers(golden: Golden) -> np.ndarray:
  """[steps, 2] losses and gradient norms."""
  fields = [line.split() for line in golden.lines]
  assert [int(each[0]) for each in fields] == [*range(1, golden_runs.STEPS + 1)]
  return np.array([[float(each[2]), float(each[4])] for each in fields])


def test_sessions_repeat_their_tokens_and_mel():
  want, got = Golden.load(SESSION), golden_runs.session()
  assert len(want.lines) == 2 * golden_runs.WINDOWS
  if got.machine == want.machine:
    assert got.lines == want.lines
  # A checksum says nothing about bits of another machine: tokens and the mean
  # of the mel do, until rounding first turns a draw.
  near = golden_runs.WINDOWS // 2
  for mine, theirs in zip(got.lines[:near], want.lines[:near], strict=True):
    mine, theirs = mine.split(" mel "), theirs.split(" mel ")
    assert mine[0] == theirs[0]
    assert mine[1].split()[0][:5] == theirs[1].split()[0][:5]
