"""The scenario "side_talk": somebody else speaks, or something roars.

For: sound that is not for the agent. Not for: sounds of the user
(`backchannel`). Start reading at `SideTalkScenario._compose`.

The user says prompts, one or two, and the agent says them back. Before, after
and while the agent speaks, another voice says prompts from the next room (12
to 18 dB lower and without its treble), or something rustles or roars as loud
as that. The agent neither answers nor stops:

  reply onset window = window of the last sample of the user's prompt + 2

What is heard from elsewhere never overlaps the user. With two voices it is
the agent's own, from the next room. Split: prompts by hash, of all voices.
"""

import numpy as np

from tml_jax.data.scenarios import family, instructed, sounds
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

LEVEL_DB = (-18.0, -12.0)  # against speech at its usual level
_EXCHANGES = (1, 2)
_ASIDE = 0.6  # of the pauses
_DURING = 0.6  # of the replies
_BURST = 0.35  # of what is heard; the rest is speech
_LATER = (0.1, 0.3)  # seconds after the beginning of a reply
_APART = (1.2, 1.8)  # no reply comes within 2 s of what is not for the agent
_GOES_ON = 1.6  # seconds of a reply that something else may be heard with


class SideTalkScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "side_talk"
  needed = frozenset()
  prompt_seconds = (0.8, 2.5)

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Exchanges, and something else between and beside them."""
    score.pause(instructed.LEAD, random=random)
    for _ in range(random.integers(_EXCHANGES[0], _EXCHANGES[1] + 1)):
      if random.random() < _ASIDE:
        score.cursor = self._aside(score, random=random)
        score.pause(_APART, random=random)
      self._exchange(score, random=random)
      score.pause(_APART, random=random)
    score.cursor = self._aside(score, random=random)
    score.wait(instructed.BETWEEN, random=random)

  def _exchange(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    prompt = self._prompt(score, random=random)
    start = self._instruct(score, prompt, random=random)
    end, onset = score.cursor, score.quiet_window + instructed.REPLY_DELAY
    said = self._agent(score, prompt)
    begins = score.onset(onset)
    over = score.speak(said, window=onset)
    score.cursor = begins
    long = over - score.cursor >= _GOES_ON * clock.SAMPLE_RATE
    if long and random.random() < _DURING:
      score.pause(_LATER, random=random)
      over = max(over, self._aside(score, random=random))
    score.cursor = over
    score.annotate(
      Kind.TURN, start=start, end=end, onset=onset, until=over, said=said
    )

  def _aside(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> int:
    """Something at the cursor, which stays; returns where it ends."""
    if random.random() < _BURST:
      kind, heard = Kind.BACKGROUND, sounds.burst(random=random)
    else:
      others = sorted(self._banks.keys() - {score.user_voice})
      bank = self._banks[family.choose(others, random=random)]
      prompt = family.choose(list(bank.prompts), random=random)
      kind, heard = Kind.SIDE_TALK, sounds.far(bank.load(prompt))
    start = score.cursor
    end = score.sound(heard, start=start, gain_db=random.uniform(*LEVEL_DB))
    score.annotate(kind, start=start, end=end)
    return end
