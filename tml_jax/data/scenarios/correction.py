"""The scenario "correction": the user changes their mind in mid-reply.

For: an agent that stops and says something else. Not for: interruptions by
something new (`barge_in`). Start reading at `CorrectionScenario._compose`.

The user says "first" and a number, seven to nine, and the agent counts up to
it. Meanwhile the user says "no" and another number, two to five, and the agent
counts up to that instead; or "please try again", and the agent begins again
from one. It is silent from the second or third window after the one in which
the user began, and

  reply onset window = window of the user's last sample + 2

Split: by the numbers, the kind of correction and when it comes, by hash.
"""

import numpy as np

from tml_jax.data.scenarios import instructed
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

ASKED = (7, 9)
MEANT = (2, 5)
_AGAIN_SHARE = 0.4
# Seconds from the reply's beginning to the correction, and from there to where
# the reply would have ended.
_BEFORE, _AFTER = 0.5, 0.8


class CorrectionScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "correction"
  needed = frozenset(
    [instructed.FIRST, instructed.NO, instructed.AGAIN]
    + instructed.digits(*range(1, ASKED[1] + 1))
  )

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """A reply, what is wrong with it, and another one."""
    asked, meant, when = self._ours(
      score,
      lambda: (
        int(random.integers(ASKED[0], ASKED[1] + 1)),
        "again"
        if random.random() < _AGAIN_SHARE
        else int(random.integers(MEANT[0], MEANT[1] + 1)),
        round(random.uniform(0, 1), 2),
      ),
    )
    score.pause(instructed.LEAD, random=random)
    start = self._instruct(
      score, instructed.FIRST, *instructed.digits(asked), random=random
    )
    end, onset = score.cursor, score.quiet_window + instructed.REPLY_DELAY
    begins = score.onset(onset)
    over = score.speak(
      self._agent(score, *instructed.digits(*range(1, asked + 1))),
      window=onset,
    )
    score.cursor = begins
    length = (over - score.cursor) / clock.SAMPLE_RATE
    before = _BEFORE + when * (length - _AFTER - _BEFORE)
    score.cursor += round(before * clock.SAMPLE_RATE)
    if meant == "again":
      last, correction = asked, [instructed.AGAIN]
    else:
      last, correction = meant, [instructed.NO, *instructed.digits(meant)]
    begin = self._instruct(score, *correction, random=random)
    stop = begin // clock.TICKS.samples + int(random.choice(instructed.YIELD))
    cut = score.break_off(window=stop)
    score.annotate(
      Kind.TURN, start=start, end=end, onset=onset, until=begin, said=cut
    )
    score.annotate(Kind.BARGE_IN, start=begin, end=score.cursor)
    finish = score.cursor
    said = self._agent(score, *instructed.digits(*range(1, last + 1)))
    window = max(score.quiet_window, score.free_window, stop)
    window += instructed.REPLY_DELAY
    score.cursor = score.speak(said, window=window)
    score.wait(instructed.BETWEEN, random=random)
    score.annotate(
      Kind.TURN,
      start=begin,
      end=finish,
      onset=window,
      until=score.cursor,
      said=said,
    )
