"""Deadlines, late and lost windows, against a clock that the test turns."""

import numpy as np

from tests.helpers import small_session
from tml_jax.live import conversation, realtime, user
from tml_jax.live import pool as pool_lib
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
  """Tick k, its sound included, takes `durations[k]` on the test's clock."""

  def slow_down(self, clock, durations):
    self._clock, self._durations = clock, list(durations)

  def tick(self, inputs, **more):
    ticked = super().tick(inputs, **more)
    self._clock.time += self._durations.pop(0)
    return ticked


class _Results:
  """A tool that has something to say after one window."""

  def step(self, frame):
    return [[3, 4]] if frame.window == 2 else []


def _hold(durations, *, lost=frozenset(), **guest):
  """Frames of the session, and the transport."""
  pool = _SlowPool(
    small_session.program(_CONFIG, slots=4),
    variables=small_session.variables(_CONFIG),
  )
  sound = np.random.default_rng(0).normal(size=_WINDOWS * 3200) / 9
  timeline = Timeline(
    id="test",
    duration=_WINDOWS * 0.2,
    tracks=(Track(Role.USER, sound.astype(np.float32), (), (), "u"),),
  )
  pace = _Clock()
  pool.slow_down(pace, durations)
  part = user.UserPart(
    timeline, tokenizer=small_session.Letters(), grid=clock.TICKS
  )
  recorded = user.Recorded(part, lost=lost)
  transport = realtime.Realtime(recorded, grid=clock.TICKS, pace=pace)
  room = conversation.Room(pool, tokenizer=small_session.Letters())
  guest = conversation.Guest(transport, seed=1, **guest)
  seconds = conversation.hold(room, [guest])
  assert seconds.tolist() == transport.seconds == recorded.seconds
  assert pool.sessions == []
  return recorded.frames, transport


def test_results_of_tools_come_in_the_next_window():
  frames, _ = _hold([0.15] * _WINDOWS, tools=_Results())
  bursts = {frame.window: frame.text_in for frame in frames}
  assert bursts.pop(3) == (Burst(Control.RESULT, (3, 4), complete=True),)
  assert not any(bursts.values())


def test_ticks_in_time_miss_nothing():
  frames, transport = _hold([0.15] * _WINDOWS)
  assert (transport.missed, transport.late) == ([], [])
  assert all(frame.user_dmel is not None for frame in frames)
  assert "0 of 8 deadlines missed, 0 windows late" in str(transport)


def test_a_slow_tick_makes_windows_late_and_shifts_no_time():
  # Window 2 ends at 0.6 s and is due at 0.8; its decision comes at 1.15, when
  # that of window 3 was due, too. Window 5 is heard and answered 50 ms late.
  frames, transport = _hold([0.1, 0.1, 0.55, 0.1, 0.1, 0.1, 0.1, 0.1])
  assert transport.missed == [2, 3, 4, 5]
  assert transport.late == [3, 4]
  on_time, _ = _hold([0.1] * _WINDOWS)
  for k, (frame, expected) in enumerate(zip(frames, on_time, strict=True)):
    assert frame.window == k
    assert (frame.user_dmel is None) == (k in transport.late)
    # A window behind a gap hears silence for the 50 ms that it looks back on.
    if k not in (3, 4, 5):
      np.testing.assert_array_equal(frame.user_dmel, expected.user_dmel)


def test_lost_windows_are_absent():
  frames, transport = _hold([0.1] * _WINDOWS, lost=frozenset({1, 6}))
  absent = [frame.window for frame in frames if frame.user_dmel is None]
  assert absent == [1, 6]
  assert transport.missed == transport.late == []


def test_losses_are_drawn_by_seed():
  drawn = user.losses(2000, share=0.25, seed=3)
  assert drawn == user.losses(2000, share=0.25, seed=3)
  assert abs(len(drawn) / 2000 - 0.25) < 0.04
  assert drawn != user.losses(2000, share=0.25, seed=4)
  assert user.losses(50, share=0.0, seed=0) == frozenset()
