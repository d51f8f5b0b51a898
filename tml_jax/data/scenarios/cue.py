"""The scenario "cue": speak on a word while the other goes on talking.

For: speech that overlaps the user's because it must. Not for: replies. Start
reading at `CueScenario._compose`.

The user says "urgent" and a word, and then talks: short prompts in one breath,
among them that word, once or twice. The agent says the word whenever the user
says it, in its own voice, at once and over the user, who goes on:

  onset window = window of the word's last sample + 2

Nothing else is answered. Split: words and prompts by hash.
"""

import numpy as np

from tml_jax.data.scenarios import instructed
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind

_TALK = (6, 10)  # prompts
_TWICE = 0.5  # of items
_GAP = (0.08, 0.18)  # seconds between prompts
_LATE = 3  # windows after `due` in which it still counts


class CueScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "cue"
  needed = frozenset([instructed.CUE])
  prompt_seconds = (0.4, 1.0)

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """What the user talks about, and where the word comes in."""
    score.pause(instructed.LEAD, random=random)
    word = self._prompt(score, random=random)
    self._instruct(score, instructed.CUE, word, random=random)
    score.wait(instructed.AFTER_INSTRUCTION, random=random)
    talk = self._talk(score, word, random=random)
    gain_db = random.uniform(*instructed.GAIN_DB)
    said = self._agent(score, word)
    until = 0
    for i, prompt in enumerate(talk):
      if i:
        score.pause(_GAP, random=random)
      start = score.cursor
      score.say(self._user(score, prompt)[0], gain_db=gain_db)
      if prompt == word:
        onset = score.quiet_window + instructed.REPLY_DELAY
        until = score.speak(said, window=onset)
        score.annotate(
          Kind.CUE,
          start=start,
          end=score.cursor,
          onset=onset,
          until=(onset + _LATE) * clock.TICKS.samples,
          said=said,
        )
    score.cursor = max(score.cursor, until)
    score.wait(instructed.BETWEEN, random=random)

  def _talk(
    self, score: score_lib.Score, word: str, *, random: np.random.Generator
  ) -> list[str]:
    """Prompts that are not the word, but for one or two places in them."""
    shared = self._shared[score.user_voice, score.agent_voice]
    others = [prompt for prompt in shared if prompt != word]
    talk = [
      others[i]
      for i in random.integers(len(others), size=random.integers(*_TALK))
    ]
    # At least three others in between: the agent has finished by then.
    first = int(random.integers(1, len(talk) - 1))
    talk[first] = word
    if random.random() < _TWICE and first + 4 < len(talk) - 1:
      talk[int(random.integers(first + 4, len(talk) - 1))] = word
    return talk
