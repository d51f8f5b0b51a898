"""Turns cut from activity, window by window."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tml_jax.config import TurnsConfig
from tml_jax.streams import endpoint
from tml_jax.streams.endpoint import Brings

_HOP = 160  # 10 ms: 20 frames a window


def _endpointer(timeout, *, interruption=0.5):
  return endpoint.Endpointer(
    TurnsConfig(endpoint_s=timeout, minimum_interruption_s=interruption)
  )


def _push(endpointer, speech, *, windows, brings=()):
  """`speech` in seconds; the turns found, and where one was in progress."""
  active = np.zeros(windows * 20, bool)
  for start, end in speech:
    active[round(start * 100) : round(end * 100)] = True
  brings = dict(brings)
  turns, busy = [], []
  for k, frames in enumerate(active.reshape(windows, 20)):
    turn = endpointer.push(
      frames, hop=_HOP, brings=brings.get(k, Brings.NOTHING)
    )
    if turn is not None:
      turns.append(turn)
    if endpointer.in_turn:
      busy.append(k)
  return turns, busy


def test_a_turn_by_hand():
  # Speech from 0.95 to 2.05 s, in windows 4 (its end) to 10; 0.5 s later, at
  # 2.55, it is over, which is seen at 2.6 s, the end of window 12.
  turns, busy = _push(_endpointer(0.5), [(0.95, 2.05)], windows=20)
  (turn,) = turns
  assert turn.windows == tuple(range(4, 11))
  # 0.1 s of speech at 1.05 s, in window 5.
  assert (turn.detected, turn.last, turn.ended) == (5, 10, 12)
  assert turn.is_spoken and busy == list(range(5, 12))


@pytest.mark.parametrize(
  "timeout, pause, count",
  [
    (0.3, 0.2, 1),
    (0.3, 0.4, 2),
    (0.5, 0.4, 1),
    (0.5, 0.6, 2),
    (0.7, 0.6, 1),
    (0.7, 0.8, 2),
  ],
)
def test_a_pause_longer_than_the_timeout_makes_two_turns(timeout, pause, count):
  # The pause begins in the middle of a window, whose end is 0.1 s away.
  speech = [(0.4, 1.1), (1.1 + pause, 2.5 + pause)]
  turns, _ = _push(_endpointer(timeout), speech, windows=30)
  assert len(turns) == count
  if count == 1:
    last = round((2.5 + pause) / 0.2 - 0.5)
    assert turns[0].windows == tuple(range(1, last + 1))


@pytest.mark.parametrize(
  "seconds, minimum, interrupts",
  [
    (0.45, 0.5, None),  # too short
    (0.55, 0.5, 7),  # from 0.95 to 1.5 s, seen at 1.6 s
    (0.65, 0.5, 7),
    (0.45, 0.4, 6),
    (0.45, 0.1, 5),  # no sooner than it is noticed
  ],
)
def test_speech_interrupts_when_it_has_lasted(seconds, minimum, interrupts):
  endpointer = _endpointer(0.5, interruption=minimum)
  (turn,), _ = _push(endpointer, [(0.95, 0.95 + seconds)], windows=20)
  assert turn.interrupts == interrupts
  assert endpointer.interrupts is None  # nobody speaks any more


def test_when_all_of_a_turn_was_there():
  # Silent since 1.35 s: at the end of window 6; over at the end of window 9.
  endpointer = _endpointer(0.5)
  _push(endpointer, [(0.95, 1.35)], windows=10)
  assert (endpointer.ready_since, endpointer.in_turn) == (6, False)
  assert endpointer.silence == pytest.approx(0.65)
  # A picture in window 8 is part of it.
  endpointer = _endpointer(0.5)
  _push(
    endpointer,
    [(0.95, 1.35)],
    windows=10,
    brings=[(8, Brings.PICTURES)],
  )
  assert endpointer.ready_since == 8


def test_clicks_begin_no_turn_and_lead_and_tail_are_not_delivered():
  clicks = [(t, t + 0.08) for t in (0.1, 0.5, 1.0)]
  assert _push(_endpointer(0.5), clicks, windows=10) == ([], [])
  turns, _ = _push(_endpointer(0.7), [(4.0, 4.4)], windows=40)
  # 0.1 s before 4.0 s is window 19.
  assert turns[0].windows == (19, 20, 21)


def test_text_is_a_turn_unless_somebody_speaks():
  turns, _ = _push(
    _endpointer(0.5),
    [(2.0, 3.0)],
    windows=30,
    brings=[
      (1, Brings.PICTURES),
      (3, Brings.TEXT),
      (12, Brings.TEXT),
      (16, Brings.PICTURES),
      (20, Brings.PICTURES),
      (25, Brings.PICTURES),
    ],
  )
  assert [t.windows for t in turns] == [
    (1, 3),
    (9, 10, 11, 12, 13, 14, 16),  # the picture came during the time-out
  ]
  assert [t.is_spoken for t in turns] == [False, True]
  assert [t.ended for t in turns] == [3, 17]


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
  st.lists(st.booleans(), min_size=20, max_size=400),
  st.sampled_from([0.3, 0.5, 0.7]),
  st.sampled_from([160, 512]),
)
def test_no_window_is_delivered_twice_or_out_of_order(flags, timeout, hop):
  endpointer = _endpointer(timeout)
  active = np.repeat(flags, 5)
  ends = np.arange(1, len(active) * hop // 3200 + 1) * 3200 // hop
  turns, start = [], 0
  for k, end in enumerate(ends):
    turn = endpointer.push(
      active[start:end], hop=hop, brings=list(Brings)[k % 3]
    )
    start = end
    if turn is not None:
      turns.append(turn)
  delivered = [w for turn in turns for w in turn.windows]
  assert delivered == sorted(set(delivered))
  assert all(turn.detected <= turn.ended for turn in turns)
  assert all(
    a.ended <= b.ended and a.detected <= b.detected
    for a, b in zip(turns, turns[1:], strict=False)
  )
