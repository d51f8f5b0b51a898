"""The scenario "silent_until": nothing, until something happens.

For: waiting for what is heard or seen, whatever is said meanwhile. Not for:
waiting for a time (`timed_reply`). Start reading at
`SilentUntilScenario._compose`.

The user says "for" and a prompt, and in half of the items another prompt
later on. After two to seven seconds a tone sounds, or a square appears in the
video, which was empty so far. The agent then says the prompt it was given,
and nothing else:

  onset window = window of the tone's last sample + 2
  onset window = the first window whose frame shows the square + 1

Split: prompts by hash.
"""

import numpy as np

from tml_jax.data.scenarios import count, instructed, sounds, video
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

_SEEN_SHARE = 0.5  # of items; the others are heard
_TALK_SHARE = 0.5
_WAIT = (2.0, 5.0)  # seconds, from what was said last
_TALK_AFTER = (0.8, 1.5)
_TONE_DB = (-6.0, 0.0)


class SilentUntilScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "silent_until"
  needed = frozenset([instructed.UNTIL])
  prompt_seconds = (0.4, 1.6)
  video_share = 0.0  # of other videos

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """What to say, and when."""
    score.pause(instructed.LEAD, random=random)
    prompt = self._prompt(score, random=random)
    self._instruct(score, instructed.UNTIL, prompt, random=random)
    start = score.cursor
    if random.random() < _TALK_SHARE:
      score.wait(_TALK_AFTER, random=random)
      self._instruct(score, self._prompt(score, random=random), random=random)
    score.pause(_WAIT, random=random)
    seen = bool(random.random() < _SEEN_SHARE)
    if seen:
      appears = score.quiet_window
      event, onset = appears * clock.TICKS.samples, appears + count.SEEN
    else:
      event = score.cursor
      score.cursor = score.sound(
        sounds.tone(random=random),
        start=event,
        gain_db=random.uniform(*_TONE_DB),
      )
      onset = score.quiet_window + instructed.REPLY_DELAY
    said = self._agent(score, prompt)
    score.cursor = score.speak(said, window=onset)
    score.wait(instructed.BETWEEN, random=random)
    score.annotate(
      Kind.SILENT_UNTIL,
      start=start,
      end=event,
      onset=onset,
      until=score.cursor,
      said=said,
    )
    if seen:
      self._film(score, appears, random=random)

  def _film(
    self, score: score_lib.Score, appears: int, *, random: np.random.Generator
  ) -> None:
    """Nothing, and then a square somewhere."""
    painter = video.painter(self.frame_size, random=random)
    at = (random.uniform(0, 1), random.uniform(0, 1))
    score.video.extend(
      painter.frame(window, at=at if window >= appears else None)
      for window in range(score.windows)
    )
