"""The scenario "count": how often something moves to and fro, aloud.

For: speech that is due when something is seen. Not for: when it starts and
stops (`activity`). Start reading at `CountScenario._compose`.

The user says "there are currently". A square rests at one side of the video,
one frame a window, swings to the other side and back two to seven times, and
rests again. The agent says the number of each swing when it has come back:

  onset window = the first window whose frame shows the square back + 1

A swing takes six to twelve windows. Split: by direction, period and number,
by hash.
"""

import numpy as np

from tml_jax.data.scenarios import instructed, video
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

SWINGS = (2, 7)
PERIODS = (6, 12)  # windows
SEEN = 1  # windows from what is seen to what is said
_REST = (5, 10)  # windows after the instruction
_AFTER = (8, 12)  # windows of rest in the end


class CountScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "count"
  needed = frozenset(
    [instructed.COUNT, *instructed.digits(*range(1, SWINGS[1] + 1))]
  )
  video_share = 0.0  # of other videos
  duration = (6.0, 18.0)

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """A pendulum and its numbers."""
    upright, period, swings = self._ours(
      score,
      lambda: (
        int(random.integers(2)),
        int(random.integers(PERIODS[0], PERIODS[1] + 1)),
        int(random.integers(SWINGS[0], SWINGS[1] + 1)),
      ),
    )
    score.pause(instructed.LEAD, random=random)
    self._instruct(score, instructed.COUNT, random=random)
    begin = score.quiet_window + int(random.integers(*_REST))
    for k in range(1, swings + 1):
      back = begin + k * period
      said = self._agent(score, *instructed.digits(k))
      score.cursor = score.speak(said, window=back + SEEN)
      score.annotate(
        Kind.REPETITION,
        start=(back - period) * clock.TICKS.samples,
        end=back * clock.TICKS.samples,
        onset=back + SEEN,
        said=said,
      )
    score.cursor = (back + int(random.integers(*_AFTER))) * clock.TICKS.samples
    painter = video.painter(self.frame_size, random=random)
    for window in range(score.windows):
      phase = np.clip(window - begin, 0, swings * period) / period
      place = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
      at = (place, 0.5) if upright else (0.5, place)
      score.video.append(painter.frame(window, at=at))
