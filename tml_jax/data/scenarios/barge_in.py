"""The scenario "barge_in": the user interrupts, the agent gives way.

For: stopping, and answering what was said meanwhile. Not for: sounds that are
no interruption (`backchannel`). Start reading at `BargeInScenario._compose`.

The user says "first" and a number, seven to nine, and the agent counts up to
it. In three of four items the user says a prompt meanwhile. The agent is
silent from the second or third window after the one in which the user began,
which leaves it 0.2 to 0.6 s to hear that, and says the prompt back:

  reply onset window = window of the user's last sample + 2

Split: prompts by hash.
"""

import numpy as np

from tml_jax.data.scenarios import instructed
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Timeline

UP_TO = (7, 9)
_INTERRUPTED = 0.75  # of items
# Seconds from the reply's beginning to the interruption, and from there to
# where the reply would have ended.
_BEFORE, _AFTER = 0.6, 0.8


class BargeInScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "barge_in"
  prompt_seconds = (0.6, 2.5)  # it ends after the agent has stopped
  needed = frozenset(
    [instructed.FIRST, *instructed.digits(*range(1, UP_TO[1] + 1))]
  )

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """One long reply, and what becomes of it."""
    score.pause(instructed.LEAD, random=random)
    number = int(random.integers(UP_TO[0], UP_TO[1] + 1))
    begin = self._instruct(
      score, instructed.FIRST, *instructed.digits(number), random=random
    )
    end, onset = score.cursor, score.quiet_window + instructed.REPLY_DELAY
    said = self._agent(score, *instructed.digits(*range(1, number + 1)))
    begins = score.onset(onset)
    over = score.speak(said, window=onset)
    if random.random() < _INTERRUPTED:
      score.cursor = begins
      length = (over - score.cursor) / clock.SAMPLE_RATE
      score.pause((_BEFORE, length - _AFTER), random=random)
      said, over = self._interrupt(score, random=random), score.cursor
    score.annotate(
      Kind.TURN, start=begin, end=end, onset=onset, until=over, said=said
    )
    score.cursor = max(score.cursor, over)
    score.wait(instructed.BETWEEN, random=random)

  def _interrupt(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> list[Timeline]:
    """Returns what the agent still said."""
    prompt = self._prompt(score, random=random)
    start = self._instruct(score, prompt, random=random)
    stop = start // clock.TICKS.samples + int(random.choice(instructed.YIELD))
    said = score.break_off(window=stop)
    end, reply = score.cursor, self._agent(score, prompt)
    window = score.answer(reply, delay_windows=instructed.REPLY_DELAY)
    score.annotate(Kind.BARGE_IN, start=start, end=end)
    score.annotate(
      Kind.TURN,
      start=start,
      end=end,
      onset=window,
      until=score.cursor,
      said=reply,
    )
    return said
