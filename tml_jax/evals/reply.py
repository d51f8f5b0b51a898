"""Timing of replies: did the agent answer, when, and did it start unasked?

For: the judge-free numbers of the `reply` scenarios. Not for: running the
model (`run`). Start reading at `score`. All times are windows of 200 ms.

Definitions, after Full-Duplex-Bench (arXiv 2503.04721, smooth turn-taking):
  onset         a window in which the agent sounds, after one in which it
                does not
  opportunity   from the window after the user's last speech of an exchange
                until the user speaks again (or the recording ends)
  reply         the first onset in an opportunity
  latency       reply's window - window of the user's last speech; 1 is the
                fastest possible
  delay error   |reply's window - window that the instruction asked for|
  false start   any onset that is not a reply
  overlap       a window of the user's speech in which the agent sounds

A reply that began while the user still spoke has its onset there: it is a
false start and no reply. So an agent that always talks answers nobody.
"""

import dataclasses
from typing import Any

import numpy as np

from tml_jax.streams import clock


@dataclasses.dataclass(frozen=True)
class Exchange:
  """One thing the user said and what came of it.

  Attributes:
    instructed: whether the user asked for a delay.
    asked_window: where the reply was due.
    reply_window: where it came; None without a reply.
    latency: in windows; None without a reply.
  """

  instructed: bool
  asked_window: int
  reply_window: int | None
  latency: int | None

  @property
  def delay_error(self) -> int | None:
    """Windows between the reply and where it was due."""
    if self.reply_window is None:
      return None
    return abs(self.reply_window - self.asked_window)


@dataclasses.dataclass(frozen=True)
class Score:
  """One conversation; `user_windows` are those of the user's speech."""

  exchanges: tuple[Exchange, ...]
  false_starts: int
  overlap_windows: int
  user_windows: int
  windows: int


def onsets(sounding: np.ndarray) -> list[int]:
  """Windows in which sound begins. `sounding` is [windows] bool."""
  before = np.concatenate([[False], sounding[:-1]])
  return np.flatnonzero(sounding & ~before).tolist()


def score(sounding: np.ndarray, *, exchanges: list[dict[str, Any]]) -> Score:
  """Scores one conversation.

  Args:
    sounding: [windows] bool, whether the agent is audible.
    exchanges: metadata of the scenario: user_start and user_end in seconds,
      onset_window, instruction.
  """
  starts = onsets(sounding)
  matched, scored = set(), []
  is_user = np.zeros(len(sounding), bool)
  for i, exchange in enumerate(exchanges):
    # The user's last sample is just before user_end.
    last = clock.num_windows(exchange["user_end"]) - 1
    is_user[clock.window_of(exchange["user_start"]) : last + 1] = True
    until = len(sounding)
    if i + 1 < len(exchanges):
      until = clock.window_of(exchanges[i + 1]["user_start"])
    reply = next((w for w in starts if last < w < until), None)
    matched.add(reply)
    scored.append(
      Exchange(
        instructed=bool(exchange["instruction"]),
        asked_window=int(exchange["onset_window"]),
        reply_window=reply,
        latency=None if reply is None else reply - last,
      )
    )
  return Score(
    exchanges=tuple(scored),
    false_starts=sum(w not in matched for w in starts),
    overlap_windows=int((sounding & is_user).sum()),
    user_windows=int(is_user.sum()),
    windows=len(sounding),
  )


def summarise(scores: list[Score]) -> dict[str, float]:
  """Numbers over all conversations; NaN where nothing was to be measured.

  Returns:
    response_rate; latency_median, latency_p90 (windows; answered exchanges
    without an instruction); delay_error_median (windows; answered exchanges
    with an instruction); delay_within_1 (share of the exchanges with an
    instruction; unanswered ones are outside); timing_within_1 (the same of
    all exchanges); false_starts_per_minute; overlap (share of the windows of
    user speech); exchanges.
  """
  exchanges = [e for s in scores for e in s.exchanges]
  plain = [e for e in exchanges if not e.instructed]
  instructed = [e for e in exchanges if e.instructed]
  latencies = [e.latency for e in plain if e.latency is not None]
  errors = [e.delay_error for e in instructed if e.delay_error is not None]
  minutes = sum(s.windows for s in scores) * clock.TURN_SECONDS / 60

  def within(group: list[Exchange]) -> float:
    hits = [e.delay_error is not None and e.delay_error <= 1 for e in group]
    return float(np.mean(hits)) if hits else float("nan")

  def quantile(values: list[int], q: float) -> float:
    return float(np.quantile(values, q)) if values else float("nan")

  answered = [e.reply_window is not None for e in exchanges]
  false_starts = sum(s.false_starts for s in scores)
  overlap = sum(s.overlap_windows for s in scores)
  user_windows = sum(s.user_windows for s in scores)
  return {
    "response_rate": float(np.mean(answered)) if answered else float("nan"),
    "latency_median": quantile(latencies, 0.5),
    "latency_p90": quantile(latencies, 0.9),
    "delay_error_median": quantile(errors, 0.5),
    "delay_within_1": within(instructed),
    "timing_within_1": within(exchanges),
    "false_starts_per_minute": false_starts / max(minutes, 1e-9),
    "overlap": overlap / max(user_windows, 1),
    "exchanges": float(len(exchanges)),
  }
