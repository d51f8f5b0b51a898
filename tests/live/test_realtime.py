"""Deadlines, late and lost windows, against a clock that the test turns."""

import dataclasses

import numpy as np

from tests.helpers import small_session
from tml_jax.live import pool as pool_lib
from tml_jax.live import realtime, user
from tml_jax.streams import clock
from tml_jax.streams.frame import Burst, Control
from tml_jax.streams.timeline import Role, Timeline, Track

_CONFIG = small_session.config(temperature=1.0, horizon=96, sinks=8)
_WINDOWS = 8


class _Clock:
  """Stands still but for waiting and for what ticks take."""

  def __init__(self):
    self.time = 0.0

  def now(self):
    return self.time

  def wait_until(self, seconds):
    self.time = max(self.time, seconds)


class _SlowPool(pool_lib.SessionPool):
  """Tick k takes `durations[k]` on the test's clock."""

  def slow_down(self, clock, durations):
    self._clock, self._durations = clock, list(durations)

  def tick(self, inputs):
    ticked = super().tick(inputs)
    self._clock.time += self._durations.pop(0)
    return ticked


def _hold(durations, *, lost=frozenset(), results=lambda frame: []):
  pool = _SlowPool(
    _CONFIG,
    model=small_session.model(_CONFIG),
    variables=small_session.variables(_CONFIG),
    slots=4,
    text_pieces=small_session.Letters.num_pieces,
  )
  sound = np.random.default_rng(0).normal(size=_WINDOWS * 3200) / 9
  timeline = Timeline(
    id="test",
    duration=_WINDOWS * 0.2,
    tracks=(Track(Role.USER, sound.astype(np.float32), (), (), "u"),),
  )
  pace = _Clock()
  pool.slow_down(pace, durations)
  return realtime.hold(
    pool,
    session=pool.join(seed=1),
    part=user.UserPart(
      timeline, tokenizer=small_session.Letters(), grid=clock.TICKS
    ),
    results=results,
    pace=pace,
    lost=lost,
  )


def test_results_of_tools_come_in_the_next_window():
  course = _hold(
    [0.15] * _WINDOWS,
    results=lambda frame: [[3, 4]] if frame.window == 2 else [],
  )
  bursts = {frame.window: frame.text_in for frame in course.frames}
  assert bursts.pop(3) == (Burst(Control.RESULT, (3, 4), complete=True),)
  assert not any(bursts.values())


def test_ticks_in_time_miss_nothing():
  course = _hold([0.15] * _WINDOWS)
  assert (course.missed, course.late, course.lost) == ((), (), ())
  assert all(frame.user_dmel is not None for frame in course.frames)
  assert "0 of 8 deadlines missed" in str(course)


def test_a_slow_tick_makes_windows_late_and_shifts_no_time():
  # Window 2 ends at 0.6 s and is due at 0.8; its decision comes at 1.15, when
  # that of window 3 was due, too. Window 5 is heard and answered 50 ms late.
  course = _hold([0.1, 0.1, 0.55, 0.1, 0.1, 0.1, 0.1, 0.1])
  assert course.missed == (2, 3, 4, 5)
  assert course.late == (3, 4)
  on_time = _hold([0.1] * _WINDOWS)
  for k, (frame, expected) in enumerate(
    zip(course.frames, on_time.frames, strict=True)
  ):
    assert frame.window == k
    assert (frame.user_dmel is None) == (k in course.late)
    # A window behind a gap hears silence for the 50 ms that it looks back on.
    if k not in (3, 4, 5):
      np.testing.assert_array_equal(frame.user_dmel, expected.user_dmel)


def test_lost_windows_are_absent():
  course = _hold([0.1] * _WINDOWS, lost=frozenset({1, 6}))
  absent = [frame.window for frame in course.frames if frame.user_dmel is None]
  assert absent == [1, 6] == list(course.lost)
  assert course.missed == ()


def test_losses_are_drawn_by_seed():
  drawn = realtime.losses(2000, share=0.25, seed=3)
  assert drawn == realtime.losses(2000, share=0.25, seed=3)
  assert abs(len(drawn) / 2000 - 0.25) < 0.04
  assert drawn != realtime.losses(2000, share=0.25, seed=4)
  assert realtime.losses(50, share=0.0, seed=0) == frozenset()
  course = realtime.Course(
    frames=[], tick_seconds=np.ones(2) / 50, grid=clock.TICKS
  )
  assert dataclasses.is_dataclass(course) and "20.0 ms" in str(course)
