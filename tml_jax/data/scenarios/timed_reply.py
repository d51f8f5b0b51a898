"""The scenario "timed_reply": "three seconds", and what to say then.

For: speech at a time that was asked for, up to six seconds ahead. Not for:
again and again (`reminder`). Start reading at `TimedReplyScenario._compose`.

The user says a number N from two to six, "seconds" and a prompt. The rule of
timing is that of `reply`, whose instructions end at three:

  reply onset window = window of the prompt's last sample + 1 + 5 N

Split: prompts by hash.
"""

import numpy as np

from tml_jax.data.scenarios import instructed, reply
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams.annotation import Kind

SECONDS = (2, 6)
_EXCHANGES = (1, 2)


class TimedReplyScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "timed_reply"
  needed = frozenset([instructed.SECONDS, *instructed.digits(2, 3, 4, 5, 6)])

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Draws times and prompts; the score keeps the time."""
    score.pause(instructed.LEAD, random=random)
    for _ in range(random.integers(_EXCHANGES[0], _EXCHANGES[1] + 1)):
      seconds = int(random.integers(SECONDS[0], SECONDS[1] + 1))
      start = self._instruct(
        score,
        *instructed.digits(seconds),
        instructed.SECONDS,
        random=random,
      )
      score.wait(instructed.AFTER_INSTRUCTION, random=random)
      prompt = self._prompt(score, random=random)
      self._instruct(score, prompt, random=random)
      end, said = score.cursor, self._agent(score, prompt)
      onset = score.answer(
        said, delay_windows=reply.WINDOWS_PER_SECOND * seconds
      )
      score.wait(instructed.BETWEEN, random=random)
      score.annotate(
        Kind.TIMED,
        start=start,
        end=end,
        onset=onset,
        until=score.cursor,
        said=said,
      )
