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


def measure(heard: Heard) -> Series:
  """All series; none where there are annotations, or nobody was recorded."""
  log = heard.log
  if log.annotations or not log.recorded:
    return {}
  made = floor.changes(heard.agent, user=heard.directed)
  wanted = floor.changes(heard.recorded, user=heard.directed)
  both = made.keys() & wanted.keys()
  union = heard.agent | heard.recorded
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
  }


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
