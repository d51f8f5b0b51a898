"""The scenario "follow": say it in your language while it is being said.

For: simultaneous translation with a lag, and shadowing where both speak one
language. Not for: replies. Start reading at `FollowScenario._compose`.

The user says "transfer" and then numbers, five to nine of them, with short
pauses. The agent says each in its own voice and language while the next is
heard:

  onset window of a number = window of its last sample in the user's mouth + 2,
  or the first window after the agent's last number where that is later

so it is two to four windows behind. Split: sequences of numbers by hash.
"""

import numpy as np

from tml_jax.data.scenarios import instructed
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

_LENGTH = (5, 9)
_GAP = (0.1, 0.4)  # seconds


class FollowScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "follow"
  needed = frozenset([instructed.TRANSLATE, *instructed.digits(*range(3, 10))])

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Numbers on both sides of the clock."""
    choices = self._numbers(score, low=0, high=20)
    length = int(random.integers(_LENGTH[0], _LENGTH[1] + 1))
    numbers = self._ours(score, lambda: random.choice(choices, length).tolist())
    score.pause(instructed.LEAD, random=random)
    self._instruct(score, instructed.TRANSLATE, random=random)
    score.wait(instructed.AFTER_INSTRUCTION, random=random)
    start, gain_db = score.cursor, random.uniform(*instructed.GAIN_DB)
    said = self._agent(score, *instructed.digits(*numbers))
    first, over = None, 0
    heard = self._user(score, *instructed.digits(*numbers))
    for theirs, ours in zip(heard, said, strict=True):
      if first is not None:
        score.pause(_GAP, random=random)
      score.say(theirs, gain_db=gain_db)
      free = -(-over // clock.TICKS.samples)
      window = max(score.quiet_window + instructed.REPLY_DELAY, free)
      over = score.speak([ours], window=window)
      first = window if first is None else first
    score.annotate(
      Kind.FOLLOW, start=start, end=score.cursor, onset=first, said=said
    )
    score.cursor = max(score.cursor, over)
    score.wait(instructed.BETWEEN, random=random)
