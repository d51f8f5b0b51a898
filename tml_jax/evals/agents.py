"""Agents without a model, scored like one: what the numbers of a model mean.

For: columns beside a model's in every report: a metric that rewards nonsense
shows there. Not for: baselines that listen to words. Start at `AGENTS`; `meet`
holds a conversation. Each is told every 200 ms what came before, and takes a
timeline to the log of the conversation; users are those of a model. None draws
a random number that the id of the conversation does not decide.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tml_jax import errors, registry
from tml_jax.data import vad
from tml_jax.evals.metrics import speech
from tml_jax.live.reacting import Reacting, Users
from tml_jax.logs import observe, ticks
from tml_jax.streams import annotation, clock
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Timeline

LATE_TICKS = 5  # `recorded_late`: one second
_SILENCE = ticks.Tick(agent=False, user=False)
_SOUND = ticks.Tick(agent=True, user=False)


@dataclasses.dataclass(frozen=True)
class Moment:
  """What an agent may know when a tick begins.

  Attributes:
    tick: its number.
    position: window of the script that comes next: for the recorded agent,
      whose own the script is.
    hear: gives [samples] of a tick before.
  """

  tick: int
  position: int
  hear: Callable[[int], np.ndarray]


Behaviour = Callable[[Moment], ticks.Tick]


def meet(script: Timeline, behave: Behaviour, *, users: Users) -> ticks.Log:
  """Holds the conversation of a script with an agent.

  Args:
    script: the conversation as composed.
    behave: what the agent does in a tick.
    users: whether the user reacts to it.
  """
  user = Reacting(script, users=users)
  made: list[ticks.Tick] = []
  while True:
    tick = behave(Moment(len(made), user.position, hear=user.heard))
    if user.next(tick.agent) is None:
      return observe.from_ticks(made, timeline=user.told)
    made.append(tick)


@dataclasses.dataclass(frozen=True)
class Agent:
  """An agent of this file.

  Attributes:
    begin: how it behaves in a conversation.
    users: whom it meets.
  """

  begin: Callable[[Timeline], Behaviour]
  users: Users = Users.SCRIPTED

  def __call__(self, script: Timeline) -> ticks.Log:
    """The log of the conversation that it would have."""
    return meet(script, self.begin(script), users=self.users)


def _as_recorded(*, late: int) -> Callable[[Timeline], Behaviour]:
  """Says what the recorded agent says, `late` ticks later.

  What is said without a break begins so long after the script has come there,
  and is not broken; calls and results come with it.
  """

  def begin(script: Timeline) -> Behaviour:
    log = observe.from_activity(
      script, agent=observe.recorded_activity(script), says_recording=True
    )
    begins = {k: k for k in range(len(log.ticks))}
    for first, stop in speech.runs_of(log.agent):
      begins |= dict.fromkeys(range(first, stop), first)
    coming: dict[int, ticks.Tick] = {}
    seen = 0

    def behave(moment: Moment) -> ticks.Tick:
      nonlocal seen
      while seen <= moment.position and seen < len(log.ticks):
        for k in (k for k in begins if begins[k] == seen):
          at = moment.tick + late + k - seen
          coming[at] = _both(coming.get(at), log.ticks[k])
        seen += 1
      return coming.get(moment.tick, _SILENCE)

    return behave

  return begin


def _both(one: ticks.Tick | None, other: ticks.Tick) -> ticks.Tick:
  """What two ticks of an agent hold together, without the user's side."""
  one = one or _SILENCE
  return ticks.Tick(
    agent=one.agent or other.agent,
    user=False,
    agent_text=one.agent_text + other.agent_text,
    calls=one.calls + other.calls,
    results=one.results + other.results,
  )


def _is_on(sounds: Callable[[int], Any]) -> Agent:
  """Sounds by the number of the tick, never in the first."""

  def behave(moment: Moment) -> ticks.Tick:
    return _SOUND if moment.tick and sounds(moment.tick) else _SILENCE

  return Agent(lambda script: behave)


def blink(on: int, off: int) -> Agent:
  """An agent that hears nothing: `on` ticks of sound, `off` of silence."""
  return _is_on(lambda tick: (tick - 1) % (on + off) < on)


def _echo(script: Timeline) -> Behaviour:
  """Answers whatever is loud, for as long as it was, when it is over.

  Loud is what `vad.EnergyVad` takes for speech in the microphone, speech or
  not, for the agent or not; one quiet tick is heard before it answers, and it
  stops in the tick after something is loud again.
  """
  del script  # which it only hears
  detector = vad.EnergyVad()
  until, length = 0, 0  # of what it says; of what is loud

  def behave(moment: Moment) -> ticks.Tick:
    nonlocal until, length
    before = moment.tick - 1
    if before >= 0 and detector.push(moment.hear(before)).any():
      length += 1
      return _SILENCE
    if length:
      until, length = max(until, moment.tick + length), 0
    return _SOUND if moment.tick < until else _SILENCE

  return behave


def _random(script: Timeline) -> Behaviour:
  """As many runs as the recorded agent has, as long, anywhere; no words."""
  return _anywhere(observe.recorded_activity(script), name=script.id)


def _anywhere(agent: np.ndarray, *, name: str) -> Behaviour:
  """The runs of [ticks] bool, arranged at random, and again at its end.

  All arrangements of runs and of the silence around them are equally likely.
  """
  draws = np.random.default_rng(zlib.crc32(name.encode()))
  arranged: list[bool] = []

  def behave(moment: Moment) -> ticks.Tick:
    while moment.tick >= len(arranged):
      arranged.extend(_arranged(agent, draws=draws).tolist())
    return _SOUND if arranged[moment.tick] else _SILENCE

  return behave


def _arranged(agent: np.ndarray, *, draws: np.random.Generator) -> np.ndarray:
  """[ticks] bool: the runs of `agent` in random order and places."""
  lengths = [stop - first for first, stop in speech.runs_of(agent)]
  result = np.zeros(len(agent), bool)
  if lengths:
    places = len(lengths) + len(agent) - sum(lengths)
    chosen = np.sort(draws.choice(places, len(lengths), replace=False))
    moved = 0
    for place, length in zip(chosen, draws.permutation(lengths), strict=True):
      result[place + moved : place + moved + length] = True
      moved += int(length) - 1
  return result


def random_like(
  log: ticks.Log, *, script: Timeline, users: Users = Users.SCRIPTED
) -> ticks.Log:
  """As `random`, of the agent of a log that was made with the same script."""
  return meet(script, _anywhere(log.agent, name=log.id), users=users)


recorded = Agent(_as_recorded(late=0))
recorded_late = Agent(_as_recorded(late=LATE_TICKS))
silent = _is_on(lambda tick: False)
always_talking = _is_on(lambda tick: True)
echo = Agent(_echo)
random = Agent(_random)

# In the order of the columns. Gaps of up to 0.4 s are no silence to the panel;
# `blink_1_3` has longer ones, so that each of its sounds is a run.
AGENTS: dict[str, Agent] = {
  "recorded": recorded,
  "recorded_late": recorded_late,
  "silent": silent,
  "always_talking": always_talking,
  "blink_1_1": blink(1, 1),
  "blink_1_2": blink(1, 2),
  "blink_1_3": blink(1, 3),
  "random": random,
  "echo": echo,
}
# Of these, the ones that take after the model where there is one.
LIKE_MODEL = {"random": random_like}


def among(users: Users) -> Mapping[str, Agent]:
  """All of them, each with these users."""
  return {
    name: dataclasses.replace(agent, users=users)
    for name, agent in AGENTS.items()
  }


def of(name: str) -> Agent:
  """The agent of that name.

  Raises:
    errors.UserError: with the nearest name.
  """
  if name not in AGENTS:
    near = registry.nearest(name, names=[*AGENTS])
    raise errors.UserError(f"--agent={name}: no agent without a model; {near}")
  return AGENTS[name]


def oracle(timeline: Timeline) -> ticks.Log:
  """Does what is asked as soon as a model could, where nothing is recorded.

  Speaks from the window after a turn's end up to the end of the window after
  the one in which the user takes the floor again; nothing else moves it.
  """
  agent = _nothing(timeline)
  asked = annotation.of(timeline)
  taken = [a.start for a in asked if a.kind in (Kind.TURN, Kind.BARGE_IN)]
  for turn in (a for a in asked if a.kind == Kind.TURN):
    later = [start for start in taken if start >= turn.end]
    stop = clock.TICKS.window_of(min(later)) + 1 if later else len(agent)
    agent[clock.TICKS.num_windows(turn.end) : stop] = True
  return observe.from_activity(timeline, agent=agent)


def _nothing(timeline: Timeline) -> np.ndarray:
  """[ticks] bool, all false."""
  return np.zeros(clock.TICKS.num_windows(timeline.duration), bool)
