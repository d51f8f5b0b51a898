"""Every second of a run is in one category, over all its starts."""

import pytest

from tml_jax.training import goodput
from tml_jax.training.goodput import Category


@pytest.fixture
def now(monkeypatch):
  class Clock:
    seconds = 1000.0

    def pass_(self, seconds: float) -> None:
      self.seconds += seconds

  clock = Clock()
  monkeypatch.setattr(goodput.time, "time", lambda: clock.seconds)
  return clock


def start(tmp_path, now) -> goodput.Goodput:
  return goodput.Goodput(str(tmp_path), process_start=now.seconds, writes=True)


def test_a_killed_start_costs_its_last_steps_and_the_pause(tmp_path, now):
  clock = start(tmp_path, now)
  clock.resumed(0)
  now.pass_(5)
  with clock.during(Category.COMPILE):
    now.pass_(10)
  clock.enter(Category.STEP)
  before = dict(clock.seconds)
  for step in range(1, 11):
    with clock.during(Category.DATA):
      now.pass_(0.5)
    now.pass_(1.5)
    if step == 6:
      with clock.during(Category.CHECKPOINT):
        now.pass_(2)
      clock.saved(step)
  waited = clock.since(before)
  assert waited == {"data_wait_seconds": 5, "checkpoint_blocked_seconds": 2}
  clock.write()  # as after every logged step; then it is killed
  now.pass_(100)

  clock = start(tmp_path, now)
  now.pass_(5)
  clock.resumed(6)
  clock.enter(Category.STEP)
  now.pass_(4 * 1.5)
  scalars = clock.scalars()
  seconds = {
    name.split("/")[1]: value for name, value in scalars.items() if "/" in name
  }
  assert seconds == {
    "step_seconds": 15,
    "startup_seconds": 10,
    "compile_seconds": 10,
    "data_wait_seconds": 5,
    "checkpoint_blocked_seconds": 2,
    "evaluation_seconds": 0,
    "repeated_seconds": 6,
    "stopped_seconds": 100,
  }
  assert sum(seconds.values()) == now.seconds - 1000
  assert scalars["goodput"] == 15 / 148


def test_other_processes_keep_no_file(tmp_path, now):
  clock = goodput.Goodput(
    str(tmp_path), process_start=now.seconds, writes=False
  )
  clock.write()
  assert not any(tmp_path.iterdir())
