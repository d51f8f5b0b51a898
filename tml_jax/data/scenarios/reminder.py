"""The scenario "reminder": something every few seconds, until "goodbye".

For: the agent that acts by the clock and by nothing else. Not for: one reply
(`timed_reply`). Start reading at `ReminderScenario._compose`.

The user says "message", a number N from three to five, "seconds" and a prompt.
The agent says the prompt after N seconds and every N seconds from then on,
until the user says "goodbye", which it answers:

  onset window k = window of the prompt's last sample + 1 + 5 N k, k = 1, 2, ..
  goodbye onset window = window of the user's last sample + 2

The user says goodbye right after a reminder, so that it is answered before the
next would be due, and the recording goes on for longer than N seconds. Split:
prompts by hash.
"""

import numpy as np

from tml_jax.data.scenarios import instructed, reply
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

SECONDS = (3, 5)
_TIMES = {3: (2, 4), 4: (2, 3), 5: (2, 2)}  # by seconds; what fits
_BEFORE_GOODBYE = (0.1, 0.3)  # seconds after a reminder's end


class ReminderScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "reminder"
  needed = frozenset(
    [instructed.EVERY, instructed.SECONDS, instructed.GOODBYE]
    + instructed.digits(3, 4, 5)
  )
  prompt_seconds = (0.4, 0.9)
  duration = (8.0, 20.0)

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """The period, the prompt and how often; the rest follows."""
    seconds = int(random.integers(SECONDS[0], SECONDS[1] + 1))
    period = seconds * reply.WINDOWS_PER_SECOND
    score.pause(instructed.LEAD, random=random)
    start = self._instruct(
      score,
      instructed.EVERY,
      *instructed.digits(seconds),
      instructed.SECONDS,
      random=random,
    )
    score.wait(instructed.AFTER_INSTRUCTION, random=random)
    prompt = self._prompt(score, random=random)
    self._instruct(score, prompt, random=random)
    end, quiet = score.cursor, score.quiet_window
    said = self._agent(score, prompt)
    low, high = _TIMES[seconds]
    times = int(random.integers(low, high + 1))
    for k in range(1, times + 1):
      onset = quiet + period * k
      score.cursor = score.speak(said, window=onset)
      score.annotate(
        Kind.TIMED,
        start=start,
        end=end,
        onset=onset,
        until=(2 * onset + period) * clock.TICKS.samples // 2,
        said=said,
        group="reminder",
      )
    self._goodbye(score, random=random)
    score.cursor += (period + 2) * clock.TICKS.samples

  def _goodbye(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """The user takes leave."""
    score.pause(_BEFORE_GOODBYE, random=random)
    start = self._instruct(score, instructed.GOODBYE, random=random)
    end, said = score.cursor, self._agent(score, instructed.GOODBYE)
    onset = score.answer(said, delay_windows=instructed.REPLY_DELAY)
    score.annotate(
      Kind.TURN,
      start=start,
      end=end,
      onset=onset,
      until=score.cursor,
      said=said,
    )
