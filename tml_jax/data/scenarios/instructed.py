"""What the families share whose user says what is wanted: words and splits.

For: one vocabulary, in which a word means one thing, so that a model trained
on a mixture of families can tell what it is asked. Not for: what happens then
(a file each). Start reading at `Instructed`.

The words are prompts that are recorded in all five languages, some for want
of better ones: "first eight" asks for the numbers up to eight, "message, two
seconds" for a reminder every two seconds. They belong to all splits; an item
is held out by what is asked, or by a prompt in it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data import source
from tml_jax.data.scenarios import bank as bank_lib
from tml_jax.data.scenarios import family, reply
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams.timeline import Timeline

NUMBERS = tuple(n for n in range(21) if n != 10)  # Spanish lacks ten
FIRST = "vm-first"  # and a number: count up to it
EXTENSION = "vm-extension"  # and how many: digits follow, say them back
SECONDS = "seconds"  # after a number
EVERY = "vm-message"  # and seconds: say it again and again
GOODBYE = "vm-goodbye"  # stop, and answer
MARK = "vm-INBOX"  # "new": time is taken from here
HOW_LONG = "queue-reporthold"  # "hold time": how long ago that was
CUE = "vm-Urgent"  # and a word: say it whenever it is heard
TRANSLATE = "pbx-transfer"  # say what is heard, at once
COUNT = "conf-thereare"  # "there are currently": count what moves
START, STOP = "dictate/record", "dictate/paused"  # say so when it does
UNTIL = "vm-for"  # and a word: wait for the event, then say it
NO = "vm-no"  # what follows is meant
AGAIN = "vm-pls-try-again"  # say it once more
HEARD = ("vm-received", "auth-thankyou", "privacy-thankyou")  # go on

WORDS = frozenset(
  [f"digits/{n}" for n in NUMBERS]
  + [FIRST, EXTENSION, SECONDS, EVERY, GOODBYE, MARK, HOW_LONG, CUE, TRANSLATE]
  + [COUNT, START, STOP, UNTIL, NO, AGAIN, *HEARD]
)

GAIN_DB = (-6.0, 6.0)
# Pauses in seconds. A breath never holds a whole window.
LEAD = (0.4, 1.2)
BREATH = (0.05, 0.12)
AFTER_INSTRUCTION = (0.4, 0.9)
BETWEEN = (0.8, 1.8)
REPLY_DELAY = 1  # windows of silence that are heard before a reply
YIELD = (2, 3)  # windows from an interruption's first to the first silent one
_DRAWS = 10_000


def digits(*numbers: int) -> list[str]:
  return [f"digits/{n}" for n in numbers]


class Instructed(family.Family):
  """A family in which every voice has the same words.

  Attributes:
    needed: those that an item cannot do without.
  """

  words = WORDS
  needed: frozenset[str]
  duration = (6.0, 20.0)
  max_gap = 0.15  # no window without sound inside a prompt

  def __init__(
    self, voices: Mapping[str, source.Source], **arguments: Any
  ) -> None:
    super().__init__(voices, **arguments)
    lost = sorted(self.needed - set(self._known(list(self.needed))))
    if lost:
      raise errors.UserError(
        f"data.heldout_share = {arguments['heldout_share']} holds out"
        f" {', '.join(lost)}, which scenario {self.name!r} needs; lower it"
      )

  @property
  def frame_size(self) -> tuple[int, int]:
    """Height and width of video frames."""
    size = self._arguments["video_size"]
    return size.height, size.width

  def _check_bank(self, name: str, bank: bank_lib.Bank) -> None:
    missing = sorted(self.needed - bank.words.keys())
    if missing:
      raise errors.UserError(
        f"voice {name} cannot take part in scenario {self.name!r}: it lacks the"
        f" prompts {', '.join(missing)}; leave it out of data.voices or prepare"
        " them"
      )

  def _known(self, prompts: list[str]) -> list[str]:
    """Also the words of `reply`, which are never prompts."""
    known = {*super()._known(prompts)} | reply.DELAY_WORDS
    return [prompt for prompt in prompts if prompt in known]

  def _numbers(
    self, score: score_lib.Score, *, low: int, high: int
  ) -> list[int]:
    """Known numbers from low to high that both voices can say."""
    user = self._banks[score.user_voice].words
    agent = self._banks[score.agent_voice].words
    return [
      n
      for n in NUMBERS
      if low <= n <= high
      and self._known(digits(n))
      and f"digits/{n}" in user
      and f"digits/{n}" in agent
    ]

  def _ours(
    self, score: score_lib.Score, draw: Callable[[], tuple[Any, ...]]
  ) -> tuple[Any, ...]:
    """Draws until it is a question of this split.

    Raises:
      errors.UserError: there seems to be none.
    """
    for _ in range(_DRAWS):
      asked = draw()
      question = "/".join(map(str, asked))
      if self._is_ours(question):
        score.asked.append(f"{self.name}/{question}")
        return asked
    raise errors.UserError(
      f"the {self._arguments['split']} split of scenario {self.name!r} has no"
      " question; change data.heldout_share ="
      f" {self._arguments['heldout_share']}"
    )

  def _user(self, score: score_lib.Score, *prompts: str) -> list[Timeline]:
    """The user's recordings."""
    return [self._banks[score.user_voice].load(p) for p in prompts]

  def _agent(self, score: score_lib.Score, *prompts: str) -> list[Timeline]:
    """The agent's."""
    return [self._banks[score.agent_voice].load(p) for p in prompts]

  def _prompt(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> str:
    """One of this split that both can say."""
    shared = self._shared[score.user_voice, score.agent_voice]
    score.asked.append(family.choose(shared, random=random))
    return score.asked[-1]

  def _instruct(
    self,
    score: score_lib.Score,
    *prompts: str,
    random: np.random.Generator,
  ) -> int:
    """The user says the words of an instruction; returns where they begin."""
    start = score.cursor
    score.say_all(
      self._user(score, *prompts),
      gain_db=random.uniform(*GAIN_DB),
      gap=BREATH,
      random=random,
    )
    return start
