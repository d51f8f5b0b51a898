"""The scenario "activity": say when it starts and when it stops.

For: the beginning and the end of something in a video. Not for: how often
(`count`). Start reading at `ActivityScenario._compose`.

The user says "record, paused". A square in the video, one frame a window,
begins to move, and stops, once or twice. The agent says "record" when it moves
and "paused" when it rests:

  onset window = the first window whose frame differs from the one before + 1
  stop window = the first window whose frame does not + 1

It moves for two to four seconds. Split: by what it does when, by hash.
"""

import numpy as np

from tml_jax.data.scenarios import count, instructed, video
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

TIMES = (1, 2)
MOVING = (10, 20)  # windows
_RESTING = (8, 15)
_SPEED = (0.15, 0.3)  # of the width, a window


class ActivityScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "activity"
  needed = frozenset([instructed.START, instructed.STOP])
  video_share = 0.0  # of other videos

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Rest, movement, rest; the agent says which."""
    lengths = self._ours(
      score,
      lambda: tuple(
        int(n)
        for _ in range(random.integers(TIMES[0], TIMES[1] + 1))
        for n in (random.integers(*_RESTING), random.integers(*MOVING))
      ),
    )
    score.pause(instructed.LEAD, random=random)
    self._instruct(score, instructed.START, instructed.STOP, random=random)
    moving: list[int] = []
    at = score.quiet_window
    start, stop = self._agent(score, instructed.START, instructed.STOP)
    for rest, length in zip(lengths[::2], lengths[1::2], strict=True):
      first = at + rest
      at = first + length  # the first window at rest
      moving += range(first, at)
      score.speak([start], window=first + count.SEEN)
      score.cursor = score.speak([stop], window=at + count.SEEN)
      score.annotate(
        Kind.ACTIVITY,
        start=first * clock.TICKS.samples,
        end=at * clock.TICKS.samples,
        onset=first + count.SEEN,
        said=[start, stop],
      )
    score.wait(instructed.BETWEEN, random=random)
    self._film(score, moving, random=random)

  def _film(
    self,
    score: score_lib.Score,
    moving: list[int],
    *,
    random: np.random.Generator,
  ) -> None:
    """From left to right, again and again, in the windows `moving`."""
    painter = video.painter(self.frame_size, random=random)
    height, right = random.uniform(0, 1, size=2)
    speed = random.uniform(*_SPEED)
    for window in range(score.windows):
      right = (right + speed * (window in moving)) % 1
      score.video.append(painter.frame(window, at=(height, right)))
