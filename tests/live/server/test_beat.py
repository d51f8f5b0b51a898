"""The clock of a pool: slow ticks, pauses, those who come and go, faults."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from tests.helpers import served
from tml_jax import errors
from tml_jax.live import conversation
from tml_jax.live.server import beat as beat_lib
from tml_jax.live.server.attached import Attached
from tml_jax.live.server.ear import Heard
from tml_jax.live.server.line import Line
from tml_jax.streams import clock
from tml_jax.tools import background


class _Slow:
  """The real pool, some of whose ticks take longer, or fail."""

  def __init__(self, pool):
    self._pool = pool
    self.sleeps = {}  # seconds, by the number of the tick
    self.fails = set()
    self.last = None  # called in the fifth tick
    self.ticks = 0

  def __getattr__(self, name):
    return getattr(self._pool, name)

  def tick(self, inputs, **more):
    number, self.ticks = self.ticks, self.ticks + 1
    if number == 4 and self.last is not None:
      self.last()
    if number in self.fails:
      raise RuntimeError("a device is gone")
    time.sleep(self.sleeps.get(number, 0.0))
    return self._pool.tick(inputs, **more)


class _Held:
  """A beat and what it delivered."""

  def __init__(self, pool):
    self.rounds = []
    self.runner = background.Runner({})
    self.pool = _Slow(pool)
    self.beat = beat_lib.Beat(
      conversation.Room(self.pool, tokenizer=served.TOKENIZER),
      grid=clock.TICKS,
      deliver=self.rounds.append,
    )

  def line(self, seed=0):
    attached = Attached(
      self.runner,
      tokenizer=served.TOKENIZER,
      config=served.config().streams,
      patience=5.0,
    )
    made = Line(
      session_id=f"s{seed}", seed=seed, grid=clock.TICKS, attached=attached
    )
    self.call(lambda: self.beat.join(made))
    return made

  def call(self, errand):
    return self.beat.call(errand).result(60)

  def until(self, count):
    end = time.monotonic() + 60
    while len(self.rounds) < count and time.monotonic() < end:
      time.sleep(0.02)
    assert len(self.rounds) >= count

  def passed(self, line):
    return [p for r in self.rounds for one, p in r.passed if one is line]


@pytest.fixture(name="held")
def _held(pool):
  made = _Held(pool)
  yield made
  for line in list(made.beat._seats):
    made.call(lambda line=line: made.beat.leave(line))
  made.beat.close()
  made.runner.close()


def _speak(line, stop):
  """A client's thread: 20 ms packets of noise until it is told to stop."""
  sound = served.noise(0, seconds=0.02, rate=16_000)
  start, k = time.monotonic(), 0
  while not stop.is_set():
    line.hear(sound)
    k += 1
    time.sleep(max(0.0, start + 0.02 * k - time.monotonic()))


def test_a_pool_far_behind_lets_its_clock_stand_still(held):
  """Nothing is skipped: sessions go on with the window that comes next."""
  line, stop = held.line(), threading.Event()
  held.pool.sleeps = {3: 1.8}
  speaking = threading.Thread(target=_speak, args=(line, stop))
  speaking.start()
  held.call(lambda: held.beat.go_on(line))
  held.until(12)
  stop.set()
  speaking.join()
  passed = held.passed(line)
  windows = [each.answer.frame.window for each in passed]
  assert windows == list(range(len(windows)))
  late = held.rounds[3]
  assert late.missed and 1.0 <= late.stood_still <= 60.0
  assert late.stood_still % 0.2 == pytest.approx(0, abs=1e-6) or (
    late.stood_still % 0.2 == pytest.approx(0.2, abs=1e-6)
  )
  assert passed[3].timing.late > 1.0
  assert any(p.heard.heard is Heard.SOUND for p in passed[:3])
  assert any(p.heard.heard is Heard.SOUND for p in passed[6:])


def test_a_window_that_is_late_is_absent(held):
  line, stop = held.line(), threading.Event()
  held.pool.sleeps = {3: 0.7}
  speaking = threading.Thread(target=_speak, args=(line, stop))
  speaking.start()
  held.call(lambda: held.beat.go_on(line))
  held.until(8)
  stop.set()
  speaking.join()
  passed = held.passed(line)
  assert held.rounds[3].missed
  # The next tick began after its deadline: what it would hear is absent.
  assert passed[4].timing.waited > 0.2
  assert passed[4].heard.heard is Heard.ABSENT
  assert passed[4].answer.frame.user_dmel is None
  assert passed[4].lost > passed[2].lost


def test_those_who_come_and_go_share_the_beat(held):
  one = held.line(1)
  held.call(lambda: held.beat.go_on(one))
  held.until(2)
  two = held.line(2)
  with pytest.raises(errors.UserError, match="all 2 slots"):
    held.line(3)
  held.call(lambda: held.beat.go_on(two))
  held.until(6)
  held.call(lambda: held.beat.pause(one))
  count = len(held.passed(one))
  held.until(len(held.rounds) + 3)
  assert len(held.passed(one)) == count
  held.call(lambda: held.beat.go_on(one))
  held.until(len(held.rounds) + 3)
  windows = [p.answer.frame.window for p in held.passed(one)]
  assert windows == list(range(len(windows))) and len(windows) > count
  together = [r for r in held.rounds if len(r.passed) == 2]
  assert len(together) >= 3
  ends = [p.timing.ended for p in held.passed(two)]
  np.testing.assert_allclose(np.diff(ends), 0.2)


def test_a_window_that_fails_is_not_the_end(held):
  line = held.line()
  held.pool.fails = {2}
  held.call(lambda: held.beat.go_on(line))
  held.until(6)
  assert not held.beat.is_broken
  assert held.pool.ticks >= 7


def test_a_pool_that_fails_for_good_says_so(pool):
  held = _Held(pool)
  line = held.line()
  held.pool.fails = set(range(100))
  held.call(lambda: held.beat.go_on(line))
  end = time.monotonic() + 60
  while not held.beat.is_broken and time.monotonic() < end:
    time.sleep(0.05)
  assert held.beat.is_broken
  held.beat.close()
  held.runner.close()
  for session in pool.sessions:
    pool.leave(session)


def test_a_rehearsal_leaves_the_pool_empty(pool):
  seconds = beat_lib.rehearse(pool, windows=3)
  assert len(seconds) == 3 and min(seconds) > 0
  assert not pool.sessions


def test_a_session_that_rested_is_the_same(held):
  line = held.line(7)
  held.call(lambda: held.beat.go_on(line))
  held.until(4)
  snapshot = held.call(lambda: held.beat.rest(line))
  assert not held.beat._seats
  assert snapshot.state["seed"] == 7 and snapshot.state["window"] >= 4
  held.call(lambda: held.beat.come_back(line, snapshot))
  again = held.call(lambda: held.beat.rest(line))
  assert again.state == snapshot.state
  for one, two in zip(again.arrays, snapshot.arrays, strict=True):
    np.testing.assert_array_equal(one, two)


def test_nobody_waits_for_a_thread_that_has_given_up(pool):
  held = _Held(pool)
  line = held.line()
  held.pool.fails = set(range(100))
  waiting = []

  def ask():  # in the last window that fails
    waiting.append(held.beat.call(lambda: None))
    raise RuntimeError("a device is gone")

  held.pool.last = ask
  held.call(lambda: held.beat.go_on(line))
  end = time.monotonic() + 60
  while not held.beat.is_broken and time.monotonic() < end:
    time.sleep(0.05)
  (future,) = waiting
  with pytest.raises(beat_lib.Ended, match="failed 5 times"):
    future.result(5)
  with pytest.raises(beat_lib.Ended, match="failed 5 times"):
    held.beat.call(lambda: None)
  held.beat.close()
  held.runner.close()
  for session in pool.sessions:
    pool.leave(session)


def test_a_snapshot_that_fails_gives_its_slot_back(held):
  line = held.line()

  def fail(session):
    raise RuntimeError("a device is gone")

  held.pool.snapshot = fail
  with pytest.raises(RuntimeError, match="is gone"):
    held.call(lambda: held.beat.rest(line))
  assert not held.pool.sessions and not held.beat._seats


def test_a_state_that_is_none_takes_no_slot(held):
  line = held.line()
  held.call(lambda: held.beat.go_on(line))
  held.until(2)
  snapshot = held.call(lambda: held.beat.rest(line))
  for wrong in (
    {"unfinished": [[99, [1]]]},
    {"line": {"choices": {"heard": 7}}},
  ):
    line.seconds = 0.0  # as in a server that is new
    bad = dataclasses.replace(snapshot, state=snapshot.state | wrong)
    with pytest.raises(errors.UserError, match="no state of a line"):
      held.call(lambda bad=bad: held.beat.come_back(line, bad))
    assert not held.pool.sessions


def test_what_is_said_in_a_pause_is_not_heard_after_it(held):
  line = held.line()
  held.call(lambda: held.beat.go_on(line))
  held.until(1)
  for _ in range(20):
    line.hear(served.noise(0, seconds=0.2, rate=16_000))
  held.call(lambda: held.beat.pause(line))
  count = len(held.passed(line))
  held.call(lambda: held.beat.go_on(line))
  held.until(len(held.rounds) + 3)
  heard = [p.heard.heard for p in held.passed(line)[count:]]
  assert heard and set(heard) == {Heard.ABSENT}
