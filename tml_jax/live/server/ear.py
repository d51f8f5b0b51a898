"""A client's sound on the clock of its session.

For: which samples belong to which window, whatever the network did to them.
Not for: coding (`formats`), or the clock (`beat`). Start at `Ear`: `push` is
given sound when it arrives, `take` a window when it has ended.

A stream of samples is put on the clock when its first part arrives: as early
as the parts behind it will be there in time, which is `_MARGIN` after the last
that arrives before a window ends. From then on samples are counted. Then

- what comes after its window was taken is late: that window was absent, and no
  other moves;
- where the client had paused (nothing catches up within `_PATIENCE`), its
  sound is put on the clock anew, and counts as new, not as late;
- what is sent ahead of time is heard at its time, up to `_MOST_AHEAD`;
- where a stream runs ahead for long, because a clock is fast or a late start
  gave it more room than it needs, silence is taken out of it.
"""

import dataclasses
import enum
import math

import numpy as np

from tml_jax.streams import clock

_RATE = clock.SAMPLE_RATE
_MARGIN = round(0.030 * _RATE)  # samples: of jitter, and of our own thread
_PATIENCE = 0.1  # seconds that late parts wait for those behind them
_MOST_AHEAD = 10 * _RATE
_SPARE = round(0.060 * _RATE)  # more than margin and part, before it is cut
_WATCH = 10.0  # seconds after which spare room is looked at
_QUIET_DB, _SOUND_DB = -55.0, -42.0
_FLOOR_DB = -96.0


class Heard(enum.StrEnum):
  """What a window brought."""

  ABSENT = "absent"
  SILENT = "silent"
  SOUND = "sound"


@dataclasses.dataclass(frozen=True)
class Window:
  """The sound of one window.

  Attributes:
    samples: [grid.samples] int16; None where it is absent.
    heard: what it brought.
    level_db: dBFS.
  """

  samples: np.ndarray | None
  heard: Heard
  level_db: float


ABSENT = Window(None, Heard.ABSENT, _FLOOR_DB)


@dataclasses.dataclass
class Counts:
  """What became of the sound, so far.

  Attributes:
    lost_windows: absent although the client had a microphone.
    late_samples: came after their window.
    early_samples: more than a client may send ahead.
    cut_samples: of silence, taken out.
    anchors: times that a stream was put on the clock.
  """

  lost_windows: int = 0
  late_samples: int = 0
  early_samples: int = 0
  cut_samples: int = 0
  anchors: int = 0


class Ear:
  """Sound of one client. Not safe to use from two threads at once.

  Positions are samples of the session, from its first window on.

  Attributes:
    counts: of all sound.
    muted: nothing is heard, which is not silence.
  """

  def __init__(self, grid: clock.Grid):
    self._size = grid.samples
    self._base: float | None = None  # time of position 0; None: no clock yet
    self._taken = 0  # position up to which windows were taken
    self._buffer = _nothing()  # from `_taken` to `_end`
    self._end = 0  # position of the stream's next sample; may be in the past
    self._is_anchored = False
    self._late: list[np.ndarray] = []  # behind `_end`; more may follow at once
    self._late_since = 0.0
    self._last_push = 0.0
    self._spare = math.inf  # samples of room that no part needed
    self._watched = 0.0  # since when
    self._pushed = 0  # samples since then
    self._to_cut = 0
    self.muted = False
    self.counts = Counts()

  def start(self, at: float, *, now: float) -> None:
    """The next window begins at the time `at`."""
    self._base = at - self._taken / _RATE
    waiting = self._buffer
    self.clear()
    if len(waiting):
      self._last_push = now
      self._anchor(waiting, part=len(waiting), now=now)

  def stop(self) -> None:
    """No windows pass until `start`; what waits is not heard."""
    self._base = None
    self.clear()

  def shift(self, seconds: float) -> None:
    """The clock of the session stood still for so long."""
    if self._base is not None:
      self._base += seconds
      self.clear()

  def mute(self, muted: bool) -> None:
    self.muted = muted
    self.clear()

  def clear(self) -> None:
    """What was sent ahead is not heard; the next part begins anew."""
    self._buffer, self._late, self._is_anchored = _nothing(), [], False
    self._spare, self._pushed, self._to_cut = math.inf, 0, 0

  @property
  def lead(self) -> float:
    """Seconds ago that the first window began, if the clock is to start now.

    The first part of a stream is then a window's beginning, or all of it.
    """
    part = min(len(self._buffer), self._size)
    return max(0, part - _MARGIN) / _RATE

  def push(self, samples: np.ndarray, *, now: float) -> int:
    """Takes [n] int16 that arrived; returns how many were too far ahead."""
    if self.muted or not len(samples):
      return 0
    if self._base is None:  # kept until the clock starts
      self._buffer = np.concatenate([self._buffer, samples])
      surplus = max(0, len(self._buffer) - _MOST_AHEAD)
      self._buffer = self._buffer[:_MOST_AHEAD]
      self.counts.early_samples += surplus
      return surplus
    self._last_push = now
    here = self._position(now)
    if not self._is_anchored:
      self._anchor(samples, part=len(samples), now=now)
    elif self._late or self._end < self._taken:
      if not self._late:
        self._late_since = now
      self._late.append(samples)
      if self._end + sum(map(len, self._late)) >= here:
        self._catch_up()  # what follows is in time again
      elif now - self._late_since >= _PATIENCE:
        self._anchor_late()
    else:
      self._buffer = np.concatenate([self._buffer, samples])
      self._end += len(samples)
      self._observe(len(samples), here=here, now=now)
    surplus = max(0, int(self._end - here) - _MOST_AHEAD)
    surplus = min(surplus, len(self._buffer))
    if surplus:
      self._buffer = self._buffer[:-surplus]
      self._end -= surplus
      self.counts.early_samples += surplus
    return surplus

  def take(self, *, now: float) -> Window:
    """The next window, which has ended by the time `now`."""
    if self._late and now - self._late_since >= _PATIENCE:
      self._anchor_late()
    self._cut()
    part, self._buffer = self._buffer[: self._size], self._buffer[self._size :]
    self._taken += self._size
    if len(part) < self._size:
      if self._is_anchored:
        self.counts.lost_windows += 1
        self.counts.late_samples += len(part)  # of no use without the rest
      return ABSENT
    level = level_db(part)
    heard = Heard.SOUND if level > _SOUND_DB else Heard.SILENT
    return Window(part, heard, level)

  def _position(self, now: float) -> float:
    assert self._base is not None
    return (now - self._base) * _RATE

  def _lead(self, part: int, *, here: float) -> float:
    """Samples from the arrival of a part of a stream to its end's place.

    Parts come at the pace of the clock. Where whole ones make a window, one
    always comes at the same time before a window's end: that may be the last
    of it. Else the worst case counts.
    """
    count = max(1, round(self._size / part))
    if abs(self._size / count - part) > 32:  # the first of a filter is shorter
      return _MARGIN + part
    room = self._taken + self._size - _MARGIN - here
    # A millisecond too late is in time.
    return _MARGIN + max(0.0, (room + 16) % (self._size / count) - 16)

  def _anchor(self, samples: np.ndarray, *, part: int, now: float) -> None:
    """Puts samples, the last of which arrived at `now`, on the clock.

    Before them there is silence, from the last window's end.
    """
    here = self._position(now)
    end = math.ceil(here + self._lead(part, here=here) - 1e-3)
    if len(samples) > self._size and len(samples) == part:
      end = max(end, math.ceil(here) + _MARGIN + part)  # not in the past
    start = max(self._taken, end - len(samples))
    if len(samples) > part:  # what waited: the oldest gives way
      samples = samples[-max(1, end - start) :]
    before = np.zeros(start - self._taken, np.int16)
    self._buffer = np.concatenate([before, samples])
    self._end = start + len(samples)
    self._is_anchored = True
    self._late = []
    self._spare, self._watched, self._pushed = math.inf, now, 0
    self.counts.anchors += 1

  def _anchor_late(self) -> None:
    """The client had paused: what seemed late is new."""
    samples, part = np.concatenate(self._late), len(self._late[-1])
    count = len(samples)
    self._anchor(samples, part=part, now=self._last_push)
    self.counts.late_samples += max(0, count - len(self._buffer))

  def _catch_up(self) -> None:
    """The network had paused: late parts are gone, all others keep their place.

    From here on there is more room for the next time.
    """
    samples = np.concatenate(self._late)
    gone = min(len(samples), max(0, self._taken - self._end))
    pad = np.zeros(_MARGIN, np.int16)
    self._end += len(samples) + len(pad)
    kept = np.concatenate([samples[gone:], pad])
    # Where all of it was late, a little of the silence may be, too.
    self._buffer = kept[max(0, len(kept) - max(0, self._end - self._taken)) :]
    self._late = []
    self.counts.late_samples += gone
    self._spare, self._pushed = math.inf, 0
    self._watched = self._last_push

  def _observe(self, part: int, *, here: float, now: float) -> None:
    """Looks for room that a stream does not need."""
    self._spare = min(self._spare, self._end - here - _MARGIN - part)
    self._pushed += part
    seconds = now - self._watched
    if seconds < _WATCH:
      return
    if abs(self._pushed / _RATE / seconds - 1) < 0.05 and self._spare > _SPARE:
      self._to_cut = int(self._spare)
    self._spare, self._watched, self._pushed = math.inf, now, 0

  def _cut(self) -> None:
    """Takes silence out of what waits."""
    count = min(self._to_cut, self._size, len(self._buffer))
    if count and level_db(self._buffer[:count]) < _QUIET_DB:
      self._buffer = self._buffer[count:]
      self._end -= count
      self._to_cut -= count
      self.counts.cut_samples += count


def _nothing() -> np.ndarray:
  return np.zeros(0, np.int16)


def level_db(samples: np.ndarray) -> float:
  """dBFS of [n] int16."""
  power = float(np.square(samples.astype(np.float32) / 32768).mean())
  return max(_FLOOR_DB, 10 * math.log10(max(power, 1e-12)))
