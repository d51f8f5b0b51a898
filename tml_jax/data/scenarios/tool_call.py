"""The scenario "tool_call": the user asks for a sum and goes on talking.

For: calls whose results come later, while somebody may be speaking. Not for:
running tools (`tools.background`): the results are part of the timeline.
Start reading at `ToolCallScenario._compose`.

The user asks "three plus four", alone or in the middle of other words, and
perhaps a second sum before the first is answered. The agent writes the call
one window after hearing the question, the result is there 4 to 24 windows
later, and the agent says it, with its own recording of the number, at the next
pause. The rule of timing:

  reply onset window = 1 + the first window, after the one in which the result
  came, in which neither side speaks

so that a window of silence is heard before every reply. The user's pauses are
either too short to hold such a window, or longer than a second. A call in ten
fails, and the agent says that it is sorry. Apart from numbers the user says
prompts of the split, which nobody answers.

Split: sums by hash of the question; the words of questions (`WORDS`) belong to
all splits, but for those that are held out as prompts.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data import source
from tml_jax.data.scenarios import bank as bank_lib
from tml_jax.data.scenarios import family
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import calls, clock
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Event, EventKind

TOOL = "calculator"
NUMBERS = range(21)
OPERATORS = {"letters/plus": "+", "digits/minus": "-"}
SORRY = "im-sorry"
WORDS = frozenset([f"digits/{n}" for n in NUMBERS] + [*OPERATORS, SORRY])
RESULT_WINDOWS = (4, 24)  # between a call and its result
READING = 1  # windows between a result and the first pause that counts

_EXCHANGES = (1, 2)
_BEFORE = 1  # prompts, at most, in one breath before a question
_AFTER = 2  # prompts, at most, after it
_BREATH_SHARE = 0.5  # of what follows: said without a pause
_SECOND_SHARE = 0.25  # of questions: another follows before the answer
_FAILURES = 0.1
_GAIN_DB = (-6.0, 6.0)
# Pauses in seconds. A breath never holds a whole window.
_LEAD = (0.4, 1.5)
_BREATH = (0.05, 0.12)
_PAUSE = (1.0, 2.0)


@dataclasses.dataclass(frozen=True)
class _Turn:
  """Something that the user says: a prompt, or a question."""

  said: tuple[str, ...]
  call: str  # "" for a prompt
  answer: str  # prompt of the agent
  result: str
  gap: tuple[float, float]  # before it


@dataclasses.dataclass(frozen=True)
class _Waiting:
  """A question whose answer has not been said."""

  turn: _Turn
  asked: int  # sample, where the question ends
  arrival: int  # window


class ToolCallScenario(family.Family):
  """See the module; `family.Family` for the arguments."""

  name = "tool_call"
  words = WORDS
  duration = (6.0, 20.0)
  max_gap = 0.15  # no pause inside a prompt either

  def __init__(
    self, voices: Mapping[str, source.Source], **arguments: Any
  ) -> None:
    super().__init__(voices, **arguments)
    self._questions = self._make_questions()
    if not self._questions:
      raise errors.UserError(
        f"the {arguments['split']} split of scenario {self.name!r} has no sum;"
        f" change data.heldout_share = {arguments['heldout_share']}"
      )

  def _check_bank(self, name: str, bank: bank_lib.Bank) -> None:
    needed = {f"digits/{n}" for n in range(10)} | OPERATORS.keys()
    missing = sorted(needed - bank.words.keys())
    if missing:
      raise errors.UserError(
        f"voice {name} cannot ask for sums: it lacks the prompts"
        f" {', '.join(missing)}; leave it out of data.voices or prepare them"
      )

  def _make_questions(self) -> list[tuple[str, str, str, str]]:
    """Prompts of number, operator, number and answer; of this split."""
    known = self._known([f"digits/{n}" for n in NUMBERS])
    numbers = {int(prompt.split("/")[1]): prompt for prompt in known}
    questions = []
    for operator in self._known(list(OPERATORS)):
      sign = OPERATORS[operator]
      for a in numbers:
        for b in numbers:
          answer = a + b if sign == "+" else a - b
          if answer in numbers and self._is_ours(f"{a}{sign}{b}"):
            questions.append(
              (numbers[a], operator, numbers[b], numbers[answer])
            )
    return questions

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """Lays the user's plan on the clock; answers go where they are due."""
    user = self._banks[score.user_voice]
    score.pause(_LEAD, random=random)
    waiting: list[_Waiting] = []
    number = 0  # calls so far
    for turn in [*self._plan(score, random=random), None]:
      start = None
      if turn is not None:
        gap = random.uniform(*turn.gap) if score.user else 0.0
        gap *= score.waits if turn.gap == _PAUSE else 1.0
        start = score.cursor + round(gap * clock.SAMPLE_RATE)
      while waiting:
        first = min(waiting, key=lambda w: w.arrival)
        due = max(score.quiet_window, first.arrival + READING)
        if start is not None and due >= start // clock.TICKS.samples:
          break  # the user speaks again before that
        waiting.remove(first)
        self._answer(score, first, window=due + 1)
        if start is not None:
          pause = random.uniform(*_PAUSE) * score.waits
          start = score.cursor + round(pause * clock.SAMPLE_RATE)
      if turn is None:
        break
      assert start is not None  # every turn has one
      score.cursor = start
      gain_db = random.uniform(*_GAIN_DB)
      for i, prompt in enumerate(turn.said):
        if i:
          score.pause(_BREATH, random=random)
        score.say(user.load(prompt), gain_db=gain_db)
      if turn.call:
        number += 1
        waiting.append(self._call(score, turn, number=number, random=random))
    score.pause(_LEAD, random=random)

  def _plan(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> list[_Turn]:
    """What the user is going to say, whatever the agent does."""
    prompts = self._shared[score.user_voice, score.agent_voice]
    user = self._banks[score.user_voice].words
    agent = self._banks[score.agent_voice].words
    questions = [
      q for q in self._questions if {*q[:3]} <= user.keys() and q[3] in agent
    ]

    def prompt(gap: tuple[float, float]) -> _Turn:
      score.asked.append(family.choose(prompts, random=random))
      return _Turn((score.asked[-1],), "", "", "", gap)

    def question(gap: tuple[float, float]) -> _Turn:
      *said, answer = questions[int(random.integers(len(questions)))]
      a, b = (said[i].split("/")[1] for i in (0, 2))
      result = answer.split("/")[1]
      if random.random() < _FAILURES and SORRY in agent:
        answer, result = SORRY, f"{calls.FAILED}: timed out"
      expression = f"{a}{OPERATORS[said[1]]}{b}"
      score.asked.append(f"{self.name}/{expression}")
      call = calls.call_text(calls.Request(TOOL, expression))
      return _Turn(tuple(said), call, answer, result, gap)

    def going_on() -> tuple[float, float]:
      return _BREATH if random.random() < _BREATH_SHARE else _PAUSE

    plan = []
    for _ in range(random.integers(_EXCHANGES[0], _EXCHANGES[1] + 1)):
      gap = _PAUSE
      for _ in range(random.integers(_BEFORE + 1)):
        plan.append(prompt(gap))
        gap = _BREATH
      plan.append(question(gap))
      if random.random() < _SECOND_SHARE:
        plan.append(question(going_on()))
      for _ in range(random.integers(_AFTER + 1)):
        plan.append(prompt(going_on()))
    return plan

  def _call(
    self,
    score: score_lib.Score,
    turn: _Turn,
    *,
    number: int,
    random: np.random.Generator,
  ) -> _Waiting:
    """The agent calls; the result comes when it comes."""
    asked = score.cursor
    called = score.show(turn.call, kind=EventKind.CALL)
    low, high = RESULT_WINDOWS
    arrival = called + int(random.integers(low, high + 1))
    score.events.append(
      Event(
        (arrival + 0.5) * clock.TICKS.seconds,
        EventKind.RESULT,
        calls.result_text(number, turn.result),
      )
    )
    return _Waiting(turn, asked, arrival)

  def _answer(
    self,
    score: score_lib.Score,
    waiting: _Waiting,
    *,
    window: int,
  ) -> None:
    """The agent says a result from `window` on."""
    reply = self._banks[score.agent_voice].load(waiting.turn.answer)
    score.cursor = score.speak([reply], window=window)
    score.annotate(
      Kind.TOOL,
      start=waiting.asked,
      end=round((waiting.arrival + 0.5) * clock.TICKS.samples),
      onset=window,
      said=[reply],
      call=waiting.turn.call,
    )
