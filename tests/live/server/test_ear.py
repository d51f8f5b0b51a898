"""Sound on the clock: jitter, bursts, loss, pauses, clocks that differ."""

import numpy as np
import pytest

from tml_jax.live.server import ear as ear_lib
from tml_jax.live.server.ear import Heard
from tml_jax.streams import clock

_RATE, _SIZE = clock.SAMPLE_RATE, clock.TICKS.samples
_START = 100.0


def _listen(*, part_ms, count, delay=lambda j: 0.0, rate=1.0, loud=True):
  """Takes a stream of counting samples; parts arrive in order, as by TCP."""
  ear = ear_lib.Ear(clock.TICKS)
  ear.start(_START, now=_START)
  size = _RATE * part_ms // 1000
  stream = np.arange(1, count * size + 1) % 30_000 + 1
  if not loud:
    stream = np.ones_like(stream)
  spoken = _START + 0.013 + (np.arange(count) + 1) * part_ms / 1000 / rate
  arrival = np.maximum.accumulate(
    spoken + np.array([delay(j) for j in range(count)])
  )
  windows = []
  for j in range(count):
    while _START + 0.2 * (len(windows) + 1) + 0.001 <= arrival[j]:
      windows.append(ear.take(now=_START + 0.2 * (len(windows) + 1) + 0.001))
    part = stream[j * size : (j + 1) * size].astype(np.int16)
    assert ear.push(part, now=float(arrival[j])) == 0
  return windows, ear


def _word(windows):
  return "".join("-" if w.samples is None else "x" for w in windows)


def _assert_in_order(windows):
  """Samples that were heard count on, without gaps inside of windows."""
  for one, two in zip(windows, windows[1:], strict=False):
    for window in (one, two):
      if window.samples is not None:
        inside = window.samples[window.samples > 0].astype(int)
        assert {*np.diff(inside)} <= {1, -29_999}
    if one.samples is not None and two.samples is not None:
      step = int(two.samples[0]) - int(one.samples[-1])
      assert step in (1, -29_999)


@pytest.mark.parametrize("part_ms", [5, 10, 20, 32, 50, 100, 200, 400])
def test_a_steady_stream_loses_nothing(part_ms):
  windows, ear = _listen(part_ms=part_ms, count=8000 // part_ms)
  word = _word(windows).lstrip("-")
  assert word == "x" * len(word) and len(word) > 30
  assert ear.counts == ear_lib.Counts(anchors=1)
  _assert_in_order(windows)
  # Not longer on its way than it must be: a part, and 30 ms.
  first = next(w for w in windows if w.samples is not None)
  before = int((first.samples == 0).sum())
  assert before < _SIZE


def test_jitter_within_the_margin_loses_nothing():
  random = np.random.default_rng(0)
  windows, ear = _listen(
    part_ms=20, count=3000, delay=lambda j: 0.03 * random.random()
  )
  assert ear.counts.lost_windows == 0
  _assert_in_order(windows)


def test_a_pause_of_the_network_shifts_nothing():
  """A second's parts come all at once; what is in time is where it was."""
  steady, _ = _listen(part_ms=20, count=400)
  windows, ear = _listen(
    part_ms=20,
    count=400,
    delay=lambda j: max(0.0, 1.0 - 0.02 * (j - 100)) if j >= 100 else 0.0,
  )
  word = _word(windows)
  assert word.count("-") == ear.counts.lost_windows == 5
  for one, two in zip(windows, steady, strict=False):
    if one.samples is not None and two.samples is not None:
      shift = int(two.samples[-1]) - int(one.samples[-1])
      assert shift in (0, 480, 480 - 30_000)  # 30 ms more room, later on


def test_a_client_that_paused_is_heard_when_it_goes_on():
  windows, ear = _listen(
    part_ms=20, count=400, delay=lambda j: 3.0 if j > 100 else 0.0
  )
  word = _word(windows)
  assert word.strip("x") == "-" * word.count("-")  # one gap
  assert 14 <= word.count("-") <= 16
  assert ear.counts.anchors == 2
  # Of its first word a tenth of a second is lost at most.
  assert ear.counts.late_samples <= 0.1 * _RATE


@pytest.mark.parametrize("rate", [0.999, 1.001])
def test_clocks_may_differ(rate):
  windows, ear = _listen(part_ms=20, count=6000, rate=rate, loud=False)
  assert _word(windows).count("-") <= 8  # of 600: 30 ms are used up in 30 s
  assert abs(ear._end - ear._position(_START + 120 / rate)) < 0.3 * _RATE


def test_silence_is_cut_where_a_stream_runs_ahead():
  windows, ear = _listen(part_ms=20, count=3000, rate=1.01, loud=False)
  assert ear.counts.cut_samples > 0.2 * _RATE
  assert ear.counts.lost_windows == 0


def test_a_file_at_once_is_heard_at_its_pace():
  ear = ear_lib.Ear(clock.TICKS)
  ear.start(_START, now=_START)
  ear.push(np.arange(3 * _RATE, dtype=np.int32).astype(np.int16), now=_START)
  windows = [ear.take(now=_START + 0.2 * (k + 1)) for k in range(16)]
  assert _word(windows) == "x" * 15 + "-"


def test_no_more_is_kept_ahead_than_ten_seconds():
  ear = ear_lib.Ear(clock.TICKS)
  ear.start(_START, now=_START)
  part = np.zeros(_RATE, np.int16)
  surplus = [ear.push(part, now=_START) for _ in range(20)]
  assert surplus[:9] == [0] * 9 and sum(surplus) >= 9 * _RATE
  assert len(ear._buffer) <= 10.1 * _RATE
  ear.clear()
  assert ear.take(now=_START + 0.2).heard is Heard.ABSENT


def test_what_comes_before_the_clock_starts_is_its_beginning():
  ear = ear_lib.Ear(clock.TICKS)
  part = np.full(_SIZE, 7, np.int16)
  assert ear.push(part, now=_START) == 0
  ear.start(_START - ear.lead, now=_START)
  window = ear.take(now=_START - ear.lead + 0.2)
  np.testing.assert_array_equal(window.samples, part)


def test_a_muted_client_is_absent_and_not_lost():
  ear = ear_lib.Ear(clock.TICKS)
  ear.start(_START, now=_START)
  ear.mute(True)
  ear.push(np.ones(_SIZE, np.int16), now=_START)
  assert ear.take(now=_START + 0.2).heard is Heard.ABSENT
  ear.mute(False)
  for k in range(10):
    ear.push(np.full(320, 9000, np.int16), now=_START + 0.2 + 0.02 * k)
  assert ear.take(now=_START + 0.4).heard is Heard.SOUND
  assert ear.counts.lost_windows == 0


def test_a_clock_that_stood_still_begins_anew():
  ear = ear_lib.Ear(clock.TICKS)
  ear.start(_START, now=_START)
  ear.push(np.ones(_SIZE, np.int16), now=_START)
  ear.take(now=_START + 0.2)
  ear.shift(5.0)
  ear.push(np.full(_SIZE, 9000, np.int16), now=_START + 5.37)
  assert ear.take(now=_START + 5.4).heard is not Heard.ABSENT


def test_levels():
  assert ear_lib.level_db(np.zeros(100, np.int16)) == -96.0
  full = np.full(100, 32767, np.int16)
  assert ear_lib.level_db(full) == pytest.approx(0.0, abs=1e-3)


def test_a_clock_that_is_stopped_keeps_no_backlog():
  """Neither while it stands nor from before; ten seconds at most wait."""
  ear = ear_lib.Ear(clock.TICKS)
  ear.start(_START, now=_START)
  ear.push(np.ones(5 * _RATE, np.int16), now=_START)
  ear.stop()
  for k in range(300):
    ear.push(np.ones(_RATE, np.int16), now=_START + k)
  assert len(ear._buffer) <= 10 * _RATE and not ear._late
  ear.stop()
  ear.start(_START + 300, now=_START + 300)
  assert ear.take(now=_START + 300.2).heard is Heard.ABSENT
