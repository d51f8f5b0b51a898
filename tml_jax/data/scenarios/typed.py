"""The scenario "typed": text comes in while somebody speaks.

For: an agent that reads and listens at once. Not for: results of tools
(`tool_call`). Start reading at `TypedScenario._compose`.

The user says a prompt, which the agent says back, and meanwhile types the text
of another one. The agent says that as well, in the same breath; so it must
have read it three windows before the first reply ends. Text that is typed in
silence is said at once. The rule of timing:

  reply onset window = window of the user's last sample + 2
  reply onset window = window in which the text is typed + 3, in silence

which leaves two windows to read a text that does not fit one. Split: prompts
by hash, spoken and typed.
"""

import numpy as np

from tml_jax.data.scenarios import instructed
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Event, EventKind, Timeline

READING = 3  # windows
_EXCHANGES = (2, 3)
_SILENT_SHARE = 0.4  # of exchanges: nothing but text
_ALONE_SHARE = 0.2  # of the others: nothing is typed


class TypedScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "typed"
  needed = frozenset()
  prompt_seconds = (0.4, 1.6)

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Spoken and typed prompts; the agent says both."""
    score.pause(instructed.LEAD, random=random)
    for _ in range(random.integers(_EXCHANGES[0], _EXCHANGES[1] + 1)):
      typed = self._agent(score, self._prompt(score, random=random))
      begin = score.cursor
      if random.random() < _SILENT_SHARE:
        self._type(score, typed, at=begin)
        end, said = begin, typed
        onset = begin // clock.TICKS.samples + READING
      else:
        prompt = self._prompt(score, random=random)
        self._instruct(score, prompt, random=random)
        end, said = score.cursor, self._agent(score, prompt)
        onset = score.quiet_window + instructed.REPLY_DELAY
        if random.random() >= _ALONE_SHARE:
          first = len(said[0].tracks[0].audio)
          last = min(
            (onset - READING) * clock.TICKS.samples + first,
            score.decided(score.onset(onset) + first),
          )
          self._type(score, typed, at=int(random.integers(begin, last)))
          said += typed
      score.cursor = score.speak(said, window=onset)
      score.wait(instructed.BETWEEN, random=random)
      score.annotate(
        Kind.TURN,
        start=begin,
        end=end,
        onset=onset,
        until=score.cursor,
        said=said,
      )

  def _type(
    self, score: score_lib.Score, typed: list[Timeline], *, at: int
  ) -> None:
    """The user types the words of a recording at sample `at`."""
    time, text = at / clock.SAMPLE_RATE, score_lib.text_of(typed)
    score.events.append(Event(time, EventKind.USER_TEXT, text))
