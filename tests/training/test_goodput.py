"""Every second of a run is in one category, over all its starts."""

import pytest

from tml_jax import workdir
from tml_jax.training import goodput
from tml_jax.training.goodput import Category


@pytest.fixture
def now(monkeypatch):
  class Clock:
    seconds = 1000.0
    wall = 1.7e9  # may be set

    def pass_(self, seconds: float) -> None:
      self.seconds += seconds
      self.wall += seconds

  clock = Clock()
  monkeypatch.setattr(goodput.time, "monotonic", lambda: clock.seconds)
  monkeypatch.setattr(goodput.time, "time", lambda: clock.wall)
  return clock


def start(tmp_path, now) -> goodput.Goodput:
  return goodput.Goodput(str(tmp_path), process_start=now.seconds, writes=True)


def ten_good_seconds(tmp_path, now) -> goodput.Goodput:
  clock = start(tmp_path, now)
  clock.enter(Category.STEP)
  now.pass_(10)
  clock.saved(5)
  clock.write()
  return clock


def test_a_killed_start_costs_its_last_steps_and_the_pause(tmp_path, now):
  clock = start(tmp_path, now)
  clock.resumed(0)
  now.pass_(5)
  with clock.during(Category.COMPILE):
    now.pass_(10)
  clock.enter(Category.STEP)
  for step in range(1, 11):
    with clock.during(Category.DATA):
      now.pass_(0.5)
    now.pass_(1.5)
    if step == 6:
      with clock.during(Category.CHECKPOINT):
        now.pass_(2)
      clock.saved(step)
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


@pytest.mark.parametrize("to", [0.0, 3e9])
def test_a_clock_that_is_set_changes_no_second_of_a_start(tmp_path, now, to):
  clock = ten_good_seconds(tmp_path, now)
  now.wall = to
  now.pass_(10)
  assert clock.scalars()["goodput"] == 1
  assert sum(clock.seconds.values()) == 20


def test_a_clock_set_back_between_starts_counts_no_pause(tmp_path, now):
  ten_good_seconds(tmp_path, now)
  now.wall -= 1e9
  clock = start(tmp_path, now)
  clock.resumed(5)
  assert clock.seconds[Category.STOPPED] == 0
  assert clock.scalars()["goodput"] == 1


def test_a_clock_that_stands_still(tmp_path, now):
  clock = start(tmp_path, now)
  clock.enter(Category.STEP)
  assert clock.scalars()["goodput"] == 0  # nothing is divided by zero


@pytest.mark.parametrize(
  "text",
  [
    "",
    "{",
    "[]",
    "{}",
    '{"time": 1, "seconds": [], "at_step": {}}',
    '{"time": 1, "seconds": {"step": -1e12}, "at_step": {}}',
    '{"time": 1, "seconds": {"step": NaN}, "at_step": {}}',
    '{"time": 1, "seconds": {"other": 1}, "at_step": {}}',
    '{"time": "x", "seconds": {}, "at_step": {"a": 1}}',
  ],
)
def test_a_damaged_file_is_begun_anew(tmp_path, now, text, caplog):
  ten_good_seconds(tmp_path, now)
  (tmp_path / workdir.GOODPUT).write_text(text)
  clock = start(tmp_path, now)
  assert sum(clock.seconds.values()) == 0
  assert "begun anew" in caplog.text
  clock.write()
  assert start(tmp_path, now).scalars()["goodput"] == 0
