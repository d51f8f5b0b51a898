"""Timing of replies against conversations worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tml_jax.evals import reply
from tml_jax.streams import clock


def _exchange(start, end, *, due, instruction=False):
  """User speech in the windows `start` to `end`, both included."""
  return {
    "user_start": (start + 0.5) * clock.TURN_SECONDS,
    "user_end": (end + 0.5) * clock.TURN_SECONDS,
    "onset_window": due,
    "instruction": instruction,
  }


# The user speaks in windows 2..5 (reply due in 7) and, asking for a second,
# in 14..17 (reply due in 23). 32 windows are 6.4 s.
_EXCHANGES = [
  _exchange(2, 5, due=7),
  _exchange(14, 17, due=23, instruction=True),
]
_WINDOWS = 32


def _score(text: str) -> reply.Score:
  """From a drawing: `#` sounds, anything else is quiet."""
  sounding = np.zeros(_WINDOWS, bool)
  for i, letter in enumerate(text):
    sounding[i] = letter == "#"
  return reply.score(sounding, exchanges=_EXCHANGES)


#                    0         1         2         3
#          window    01234567890123456789012345678901
#          user      --uuuu--------uuuu--------------
_PERFECT = "       ###             ####"
_EARLY = "       ###         ####"
_NOTHING = ""
_OVER_USER = "   ####                ##"
_TWICE = "       ## ##           ## #"
_SLOW = "         ##              ##"
_INTO_USER = "       ###    ##      ##"
_LATE = "             ##        ##"


@pytest.mark.parametrize(
  "drawing, latency, delay_error, false_starts, overlap",
  [
    (_PERFECT, 2, 0, 0, 0),
    (_EARLY, 2, 4, 0, 0),  # heard the prompt, forgot the delay
    (_NOTHING, None, None, 0, 0),
    (_OVER_USER, None, 0, 1, 3),  # onset in the user's speech: no reply
    (_TWICE, 2, 0, 2, 0),  # the second onset after each reply is unasked
    (_SLOW, 4, 2, 0, 0),
    (_INTO_USER, 2, 1, 1, 2),  # an onset at the user's next word: no reply
    (_LATE, 8, 0, 0, 1),  # before the user's next word: a reply, though late
  ],
)
def test_by_hand(drawing, latency, delay_error, false_starts, overlap):
  score = _score(drawing)
  plain, asked = score.exchanges
  assert plain.latency == latency
  assert asked.delay_error == delay_error
  assert score.false_starts == false_starts
  assert (score.overlap_windows, score.user_windows) == (overlap, 8)


def test_the_fastest_reply_has_latency_1():
  # The user's last sample ends window 5 exactly.
  exchange = _exchange(2, 5, due=7) | {"user_end": 6 * clock.TURN_SECONDS}
  sounding = np.arange(_WINDOWS) == 6
  (scored,) = reply.score(sounding, exchanges=[exchange]).exchanges
  assert scored.latency == 1 and scored.delay_error == 1


def test_an_agent_that_never_stops_answers_nobody():
  score = _score(" " + "#" * (_WINDOWS - 1))
  assert [e.reply_window for e in score.exchanges] == [None, None]
  assert score.false_starts == 1
  assert score.overlap_windows == score.user_windows


def test_summary_by_hand():
  drawings = (_PERFECT, _EARLY, _NOTHING, _OVER_USER, _SLOW)
  scores = [_score(drawing) for drawing in drawings]
  summary = reply.summarise(scores)
  minutes = len(drawings) * _WINDOWS * clock.TURN_SECONDS / 60
  assert summary == pytest.approx(
    {
      "response_rate": 7 / 10,
      "latency_median": 2,  # of 2, 2, 4
      "latency_p90": 3.6,
      "delay_error_median": 1,  # of 0, 4, 0, 2
      "delay_within_1": 2 / 5,
      "timing_within_1": 4 / 10,
      "false_starts_per_minute": 1 / minutes,
      "overlap": 3 / 40,
      "exchanges": 10,
    }
  )


def test_nothing_to_measure_is_not_a_number():
  summary = reply.summarise([_score(_NOTHING)])
  assert np.isnan(summary["latency_median"])
  assert np.isnan(summary["delay_error_median"])
  assert summary["response_rate"] == summary["delay_within_1"] == 0


@given(
  st.lists(st.booleans(), min_size=_WINDOWS, max_size=_WINDOWS),
  st.integers(0, 500),
)
def test_shifting_everything_in_time_changes_nothing(sounding, shift):
  sounding = np.array(sounding)
  later = [
    exchange
    | {
      "user_start": exchange["user_start"] + shift * clock.TURN_SECONDS,
      "user_end": exchange["user_end"] + shift * clock.TURN_SECONDS,
      "onset_window": exchange["onset_window"] + shift,
    }
    for exchange in _EXCHANGES
  ]
  now = reply.score(sounding, exchanges=_EXCHANGES)
  then = reply.score(
    np.concatenate([np.zeros(shift, bool), sounding]), exchanges=later
  )
  assert then.false_starts == now.false_starts
  assert then.overlap_windows == now.overlap_windows
  for a, b in zip(now.exchanges, then.exchanges, strict=True):
    assert (a.latency, a.delay_error) == (b.latency, b.delay_error)


@given(st.lists(st.booleans(), min_size=_WINDOWS, max_size=_WINDOWS))
def test_every_onset_is_a_reply_or_a_false_start(sounding):
  sounding = np.array(sounding)
  score = reply.score(sounding, exchanges=_EXCHANGES)
  replies = [e for e in score.exchanges if e.reply_window is not None]
  assert len(reply.onsets(sounding)) == len(replies) + score.false_starts
  assert all(e.latency >= 1 for e in replies)
