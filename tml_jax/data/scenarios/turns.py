"""The scenario "turns": the user thinks in the middle of a turn.

For: telling a pause from the end of a turn. Not for: interruptions. Start
reading at `TurnsScenario._compose`.

The user says "extension", how many digits, and the digits, with pauses of 0.6
to 1.6 s between most of them. The agent says the digits back, but not before
the last of them, which it can know from the number it heard:

  reply onset window = window of the last digit's last sample + 2

Split: digit strings by hash.
"""

import numpy as np

from tml_jax.data.scenarios import instructed
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams.annotation import Kind

LENGTHS = (2, 4)
THINKING = (0.6, 1.6)  # seconds
_THINKING_SHARE = 0.6  # of the gaps between digits
_EXCHANGES = (1, 2)


class TurnsScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "turns"
  needed = frozenset([instructed.EXTENSION, *instructed.digits(2, 3, 4)])

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Draws digit strings and pauses; the score keeps the time."""
    low, high = LENGTHS
    choices = self._numbers(score, low=0, high=9)
    score.pause(instructed.LEAD, random=random)
    for _ in range(random.integers(_EXCHANGES[0], _EXCHANGES[1] + 1)):
      string = self._ours(
        score,
        lambda: random.choice(choices, random.integers(low, high + 1)).tolist(),
      )
      start, gain_db = score.cursor, random.uniform(*instructed.GAIN_DB)
      score.say_all(
        self._user(
          score, instructed.EXTENSION, *instructed.digits(len(string))
        ),
        gain_db=gain_db,
        gap=instructed.BREATH,
        random=random,
      )
      for recording in self._user(score, *instructed.digits(*string)):
        thinks = random.random() < _THINKING_SHARE
        before = score.cursor
        if thinks:
          score.wait(THINKING, random=random)
          score.annotate(Kind.PAUSE, start=before, end=score.cursor)
        else:
          score.pause(instructed.BREATH, random=random)
        score.say(recording, gain_db=gain_db)
      end, said = score.cursor, self._agent(score, *instructed.digits(*string))
      onset = score.answer(said, delay_windows=instructed.REPLY_DELAY)
      score.wait(instructed.BETWEEN, random=random)
      score.annotate(
        Kind.TURN,
        start=start,
        end=end,
        onset=onset,
        until=score.cursor,
        said=said,
      )
