"""The scenario "elapsed": how long ago was that?

For: an agent that knows how much time went by. Not for: acting at a time
(`timed_reply`). Start reading at `ElapsedScenario._compose`.

The user says "new", and some seconds later "hold time". The agent answers how
many seconds lay between the ends of the two, to the nearest, "four seconds":

  reply onset window = window of the last sample of "hold time" + 2

The time is within 0.25 s of a whole number of seconds, so that it is never in
doubt. Split: by the number of windows between, by hash.
"""

import numpy as np

from tml_jax.data.scenarios import instructed
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

SECONDS = (3, 9)
_NEAR = 1  # windows from the whole number
_JITTER = 0.05  # seconds
_EXCHANGES = (1, 2)


class ElapsedScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "elapsed"
  needed = frozenset(
    [instructed.MARK, instructed.HOW_LONG, instructed.SECONDS]
    + instructed.digits(*range(SECONDS[0], SECONDS[1] + 1))
  )

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Draws times; the score keeps them."""
    score.pause(instructed.LEAD, random=random)
    for _ in range(random.integers(_EXCHANGES[0], _EXCHANGES[1] + 1)):
      (windows,) = self._ours(
        score,
        lambda: (
          5 * int(random.integers(SECONDS[0], SECONDS[1] + 1))
          + int(random.integers(-_NEAR, _NEAR + 1)),
        ),
      )
      start = self._instruct(score, instructed.MARK, random=random)
      (question,) = self._user(score, instructed.HOW_LONG)
      score.cursor += windows * clock.TICKS.samples
      score.pause((-_JITTER, _JITTER), random=random)
      score.cursor -= len(question.tracks[0].audio)
      asked = self._instruct(score, instructed.HOW_LONG, random=random)
      end = score.cursor
      seconds = round(windows * clock.TICKS.seconds)
      said = self._agent(score, *instructed.digits(seconds), instructed.SECONDS)
      onset = score.answer(said, delay_windows=instructed.REPLY_DELAY)
      score.wait(instructed.BETWEEN, random=random)
      score.annotate(
        Kind.TURN,
        start=asked,
        end=end,
        onset=onset,
        until=score.cursor,
        said=said,
        group=f"elapsed since {start / clock.SAMPLE_RATE:.2f} s",
        since=start,
      )
