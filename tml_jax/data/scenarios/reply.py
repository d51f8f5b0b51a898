"""The scenario "reply": the user says a prompt, the agent says it back.

For: duplex timelines with two voices, exact timing and exact text, composed
from voice corpora. Not for: making the voices (`voices`). Start reading at
`ReplyScenario`.

Two or three exchanges a timeline, 8 to 20 s. In an exchange the user says one
prompt and the agent answers with its own recording of the same prompt: the
same words in another voice, or the sentence in the other voice's language.
In half of the exchanges the user first asks for a delay ("wait three", or the
recorded words "three", "seconds"), N in 1..3, and the agent shows the number
that it understood, one window later, in writing. The rule of timing:

  reply onset window = window of the user's last speech sample + 1 + delay
  delay = 1 window without an instruction, 5 N windows (N seconds) with one

so the usual latency is 2 windows: one window of silence is heard before the
agent speaks.

Gain, noise and babble touch the user's track only. The words of delay
instructions (`DELAY_WORDS`) belong to all splits and are never prompts; a voice
without them never asks for a delay.
"""

import numpy as np
from absl import logging

from tml_jax.data.scenarios import bank as bank_lib
from tml_jax.data.scenarios import family
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Timeline

DELAYS = (1, 2, 3)  # seconds that an instruction may ask for
WINDOWS_PER_SECOND = 5
PROMPT_DELAY = 1  # windows, without an instruction
DELAY_WORDS = frozenset(
  ["seconds"] + [f"{kind}/{n}" for kind in ("digits", "wait") for n in DELAYS]
)

_EXCHANGES = (2, 3)
# Drawn for 0.56: plans with many delays are more often too long and drawn
# again, and half of what remains has an instruction.
_INSTRUCTION_SHARE = 0.56
_GAIN_DB = (-6.0, 6.0)
# Pauses in seconds.
_LEAD = (0.4, 1.5)
_BETWEEN_WORDS = (0.05, 0.12)
_AFTER_INSTRUCTION = (0.4, 1.0)
_BETWEEN_EXCHANGES = (0.6, 2.0)


class ReplyScenario(family.Family):
  """See the module; `family.Family` for the arguments."""

  name = "reply"
  words = DELAY_WORDS

  def _check_bank(self, name: str, bank: bank_lib.Bank) -> None:
    if not _can_ask(bank):
      logging.info(
        "voice %s never asks for a delay in scenario %r: it has no prompts"
        " wait/1..3, nor digits/1..3 and seconds",
        *(name, self.name),
      )

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Draws exchanges; the score keeps the time."""
    user = self._banks[score.user_voice]
    agent = self._banks[score.agent_voice]
    prompts = self._shared[score.user_voice, score.agent_voice]
    can_ask = _can_ask(user)
    score.pause(_LEAD, random=random)
    for _ in range(random.integers(_EXCHANGES[0], _EXCHANGES[1] + 1)):
      prompt = family.choose(prompts, random=random)
      score.asked.append(prompt)
      gain_db = random.uniform(*_GAIN_DB)
      start = score.cursor
      instruction = bool(random.random() < _INSTRUCTION_SHARE) and can_ask
      delay_windows = PROMPT_DELAY
      if instruction:
        seconds = int(random.choice(DELAYS))
        delay_windows = WINDOWS_PER_SECOND * seconds
        score.say_all(
          _instruction(user, seconds),
          gain_db=gain_db,
          gap=_BETWEEN_WORDS,
          random=random,
        )
        score.show(str(seconds))
        score.wait(_AFTER_INSTRUCTION, random=random)
      score.say(user.load(prompt), gain_db=gain_db)
      end = score.cursor
      reply = agent.load(prompt)
      onset = score.answer([reply], delay_windows=delay_windows)
      score.wait(_BETWEEN_EXCHANGES, random=random)
      score.annotate(
        Kind.TIMED if instruction else Kind.TURN,
        start=start,
        end=end,
        onset=onset,
        until=score.cursor,
        said=[reply],
      )


def _can_ask(bank: bank_lib.Bank) -> bool:
  """Whether a voice has the words of delay instructions."""
  can_wait = all(f"wait/{n}" in bank.words for n in DELAYS)
  can_count = all(f"digits/{n}" in bank.words for n in DELAYS)
  return can_wait or (can_count and "seconds" in bank.words)


def _instruction(bank: bank_lib.Bank, delay: int) -> list[Timeline]:
  """The recordings that ask for a delay of so many seconds."""
  spoken = [f"wait/{delay}"]
  if spoken[0] not in bank.words:
    spoken = [f"digits/{delay}", "seconds"]
  return [bank.load(prompt) for prompt in spoken]
