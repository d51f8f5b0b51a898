"""The floor beside the recorded agent's: no annotation says what is due.

For: logs of recorded conversations, in which somebody else was the agent. Not
for: logs with annotations (`floor`, `timed`), which know what was asked. Start
at `measure`. The recorded agent is scored as every other; its column says what
people do.

A change of floor is an onset of the agent after a run of the user, once for
each run (`floor.changes`); that run names it, so that the changes of two agents
can be compared.

  took_floor      of the recorded agent's changes of floor, those that the agent
                  makes, too: after the same run of the user
  offset_error    |onset - recorded onset| of these
  extra_floor     of the agent's changes, those that the recorded one does not
                  make
  overlapped      of the agent's changes, those that begin before the user's end
                  (negative floor transfer offset: Heldner & Edlund 2010)
  backchannels    a minute: runs of the agent of at most `SHORT_SECONDS`, after
                  `BEFORE_SECONDS` and before `AFTER_SECONDS` of its silence
                  (voice activity projection: Ekstedt & Skantze 2022, arXiv
                  2205.09812; there with the user's voice around it)
  talk_share      share of the time in which the agent sounds
  speech_iou      ticks in which the agent and the recorded one sound over those
                  in which one of them does
  onset_f1        F1 of onsets: pairs of an onset of the agent and one of the
                  recorded agent at most `ONSET_SECONDS` apart, each in one pair
                  at most, over the mean of both counts
  sounds, sounds_recorded, sounds_both
                  ticks in which the agent, the recorded one, both of them sound

Each of the rows above is won by an agent that hears nothing, or no words: a
clock takes every floor. `agreement` is one number that they do not win.
"""

import numpy as np

from tml_jax.evals.metrics import floor
from tml_jax.evals.metrics.chances import seconds
from tml_jax.evals.metrics.floor import Series
from tml_jax.evals.metrics.heard import Heard
from tml_jax.evals.metrics.speech import runs_of
from tml_jax.streams import clock

SHORT_SECONDS = 1.0
BEFORE_SECONDS = 1.0
AFTER_SECONDS = 2.0
ONSET_SECONDS = 0.4  # two windows: as of asked times
SOUNDS = ("sounds", "sounds_recorded", "sounds_both")
ONSETS = "onset_f1"


def measure(heard: Heard) -> Series:
  """All series; none where there are annotations, or nobody was recorded."""
  log = heard.log
  if log.annotations or not log.recorded:
    return {}
  made = floor.changes(heard.agent, user=heard.directed)
  wanted = floor.changes(heard.recorded, user=heard.directed)
  both = made.keys() & wanted.keys()
  union = heard.agent | heard.recorded
  onsets, theirs = (
    [first for first, _ in runs_of(agent)]
    for agent in (heard.agent, heard.recorded)
  )
  sounds = (heard.agent, heard.recorded, heard.agent & heard.recorded)
  return {
    "took_floor": [(float(run in made), 1) for run in wanted],
    "offset_error": [
      (seconds(abs(made[run] - wanted[run])), 1) for run in sorted(both)
    ],
    "extra_floor": [(float(run not in wanted), 1) for run in made],
    "overlapped": [(float(onset < run[1]), 1) for run, onset in made.items()],
    "backchannels": [(backchannels(heard.agent), heard.minutes)],
    "talk_share": [(int(heard.agent.sum()), len(log.ticks))],
    "speech_iou": [
      (int((heard.agent & heard.recorded).sum()), int(union.sum()))
    ],
    ONSETS: [(2 * pairs(onsets, theirs), len(onsets) + len(theirs))],
  } | {
    name: [(int(ticks.sum()), len(log.ticks))]
    for name, ticks in zip(SOUNDS, sounds, strict=True)
  }


def pairs(onsets: list[int], theirs: list[int]) -> int:
  """How many of two lists of ticks, in order, can be paired, each once."""
  within = clock.TICKS.num_windows(ONSET_SECONDS)
  i = k = count = 0
  while i < len(onsets) and k < len(theirs):
    apart = onsets[i] - theirs[k]
    count += abs(apart) <= within
    i += apart <= within
    k += apart >= -within
  return count


def agreement(shares: dict[str, np.ndarray]) -> np.ndarray:
  """How far an agent does what the recorded one did when it did, 0 to 100.

  100 times the product of

    kappa   Cohen's (Educ. Psychol. Meas. 20, 1960) of ticks, sound or silence:
            (o - e) / (1 - e), o the share of ticks in which both do the same, e
            that of two who do so independently, as often as each; 0 if below
    F1      of onsets, `onset_f1`

  Kappa takes off what silence, speech without end, a clock or random runs get
  by the share of time in which they sound: 0. Whoever sounds in the right
  stretches, and begins there again and again or late, loses by F1, in which an
  onset counts once. A product, as either alone is had cheaply: a recording a
  second late has a kappa of 0.59 and an F1 of 0.02, an energy echo 0.22, 0.49.
  Words do not count: a log has none of the recorded agent. So the most that
  hears none, speech whenever the user is silent, is worth 32 of 100 there, and
  30 with the best of 180 time-outs: a score is read beside these.

  Args:
    shares: [R] of `SOUNDS` and `ONSETS`, a row a resample; NaN without events.

  Returns:
    [R]; NaN where the recorded agent speaks always or never.
  """
  ours, theirs, both = (shares[name] for name in SOUNDS)
  same = both + (1 - ours - theirs + both)
  chance = ours * theirs + (1 - ours) * (1 - theirs)
  with np.errstate(invalid="ignore", divide="ignore"):
    kappa = (same - chance) / (1 - chance)
  kappa = np.where((theirs > 0) & (theirs < 1), kappa, np.nan)
  return 100 * np.maximum(kappa, 0.0) * shares[ONSETS]


def backchannels(agent: np.ndarray) -> int:
  """Short runs with silence around. `agent` is [ticks] bool."""
  short, before, after = (
    clock.TICKS.num_windows(time)
    for time in (SHORT_SECONDS, BEFORE_SECONDS, AFTER_SECONDS)
  )
  runs = runs_of(agent)
  ends = [-before, *(stop for _, stop in runs)]
  starts = [*(first for first, _ in runs), len(agent) + after]
  return sum(
    stop - first <= short
    and first - ends[i] >= before
    and starts[i + 1] - stop >= after
    for i, (first, stop) in enumerate(runs)
  )
