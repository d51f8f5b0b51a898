"""The scenario "draw": the user asks for letters, the agent draws them.

For: drawing while speaking and listening. Not for: rendering what is drawn
(`tools.drawing`). Start reading at `DrawScenario._compose`.

The user says "record" and one or two letters. One window after hearing them
the agent begins to draw, a `<draw>` message a letter in SVG path commands, as
many tokens a window as fit, on a line of its own for each time it was asked;
and says the letters in its own voice, beginning at the same time:

  reply onset window = window of the user's last speech sample + 2

Split: letters and pairs of letters by hash; single letters and the word before
them (`WORDS`) belong to all splits, but for those held out as prompts.
"""

import string
from collections.abc import Mapping
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data import source
from tml_jax.data.scenarios import bank as bank_lib
from tml_jax.data.scenarios import family
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import EventKind

CUE = "dictate/record"
WORDS = frozenset([CUE] + [f"letters/{c}" for c in string.ascii_lowercase])
REPLY_DELAY = 1  # windows
ADVANCE, LINE = 6, 8  # of the grid, to the next letter and the next line

_EXCHANGES = (1, 3)
_PAIR_SHARE = 0.5
_GAIN_DB = (-6.0, 6.0)
# Pauses in seconds.
_LEAD = (0.4, 1.5)
_BETWEEN_WORDS = (0.05, 0.12)
_BETWEEN_EXCHANGES = (1.5, 3.0)

# Strokes on a grid of 4 by 6, y downwards; "z" closes the one before it.
_STROKES = {
  "a": "06 20 46|13 33",
  "b": "00 30 41 42 33 44 45 36 06 z|03 33",
  "c": "40 00 06 46",
  "d": "00 30 42 44 36 06 z",
  "e": "40 00 06 46|03 33",
  "f": "40 00 06|03 33",
  "g": "40 00 06 46 43 23",
  "h": "00 06|40 46|03 43",
  "i": "20 26",
  "j": "40 46 06 04",
  "k": "00 06|40 03 46",
  "l": "00 06 46",
  "m": "06 00 23 40 46",
  "n": "06 00 46 40",
  "o": "00 40 46 06 z",
  "p": "06 00 40 43 03",
  "q": "00 40 46 06 z|24 46",
  "r": "06 00 40 43 03|23 46",
  "s": "40 00 03 43 46 06",
  "t": "00 40|20 26",
  "u": "00 06 46 40",
  "v": "00 26 40",
  "w": "00 16 23 36 40",
  "x": "00 46|40 06",
  "y": "00 23 40|23 26",
  "z": "00 40 06 46",
}


def path(letter: str, *, x: int, y: int) -> str:
  """SVG path commands of a letter whose upper left corner is (x, y)."""
  text, at = "", (0, 0)
  for stroke in _STROKES[letter].split("|"):
    for i, point in enumerate(stroke.split()):
      if point == "z":
        text += "Z"
        continue
      to = (x + int(point[0]), y + int(point[1]))
      if i == 0:
        text += f"M{to[0]} {to[1]}"
      elif to[1] == at[1]:
        text += f"H{to[0]}"
      elif to[0] == at[0]:
        text += f"V{to[1]}"
      else:
        text += f"L{to[0]} {to[1]}"
      at = to
  return text


class DrawScenario(family.Family):
  """See the module; `family.Family` for the arguments."""

  name = "draw"
  words = WORDS
  duration = (6.0, 20.0)

  def __init__(
    self, voices: Mapping[str, source.Source], **arguments: Any
  ) -> None:
    super().__init__(voices, **arguments)
    if not self._known([CUE]):
      raise errors.UserError(
        f"data.heldout_share = {arguments['heldout_share']} holds out the word"
        f" {CUE}, which every item of scenario {self.name!r} needs; lower it"
      )

  def _check_bank(self, name: str, bank: bank_lib.Bank) -> None:
    if CUE not in bank.words or not self._letters(bank, bank):
      raise errors.UserError(
        f"voice {name} cannot ask for a drawing: it needs the prompts {CUE} and"
        " letters/a to letters/z; leave it out of data.voices or prepare them"
      )

  def _letters(self, user: bank_lib.Bank, agent: bank_lib.Bank) -> list[str]:
    """Letters that both can say."""
    return [
      prompt.split("/")[1]
      for prompt in self._known(sorted(WORDS - {CUE}))
      if prompt in user.words and prompt in agent.words
    ]

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Draws exchanges; the score keeps the time."""
    user = self._banks[score.user_voice]
    agent = self._banks[score.agent_voice]
    score.pause(_LEAD, random=random)
    for line in range(random.integers(_EXCHANGES[0], _EXCHANGES[1] + 1)):
      asked = self._choose(self._letters(user, agent), random=random)
      score.asked.append(f"{self.name}/{asked}")
      start, gain_db = score.cursor, random.uniform(*_GAIN_DB)
      words = [CUE, *(f"letters/{letter}" for letter in asked)]
      score.say_all(
        [user.load(word) for word in words],
        gain_db=gain_db,
        gap=_BETWEEN_WORDS,
        random=random,
      )
      end = score.cursor
      drawn = [
        path(letter, x=ADVANCE * i, y=LINE * line)
        for i, letter in enumerate(asked)
      ]
      for commands in drawn:
        score.show(commands, kind=EventKind.DRAW)
      replies = [agent.load(f"letters/{letter}") for letter in asked]
      onset = score.answer(replies, delay_windows=REPLY_DELAY)
      score.wait(_BETWEEN_EXCHANGES, random=random)
      score.annotate(
        Kind.TURN,
        start=start,
        end=end,
        onset=onset,
        until=score.cursor,
        said=replies,
      )

  def _choose(self, letters: list[str], *, random: np.random.Generator) -> str:
    """One or two letters of this split."""
    while True:
      count = 2 if random.random() < _PAIR_SHARE else 1
      asked = "".join(
        family.choose(letters, random=random) for _ in range(count)
      )
      if self._is_ours(asked):
        return asked
