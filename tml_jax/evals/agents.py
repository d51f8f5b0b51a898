"""Agents without a model, scored like one: what the numbers of a model mean.

For: columns beside a model's in every report: a metric that rewards nonsense
shows there. Not for: baselines that listen to words. Start at `AGENTS`. Each
takes a timeline and returns the log of the conversation it would have had;
`random_like` takes a log and needs no timeline. None draws a random number
that the id of the conversation does not decide.
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from tml_jax import errors, registry
from tml_jax.data import vad
from tml_jax.evals.metrics import speech
from tml_jax.logs import observe, ticks
from tml_jax.streams import annotation, clock, microphone
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Timeline

LATE_TICKS = 5  # `recorded_late`: one second
Agent = Callable[[Timeline], ticks.Log]


def recorded(timeline: Timeline) -> ticks.Log:
  """Says what the recorded agent says: the best there is."""
  return observe.from_activity(
    timeline, agent=observe.recorded_activity(timeline), says_recording=True
  )


def recorded_late(timeline: Timeline) -> ticks.Log:
  """The recorded agent one second late: right words at the wrong time.

  What it calls and says comes `LATE_TICKS` after the recording has it, and the
  results of its calls with it.
  """
  log = recorded(timeline)
  blank = ticks.Tick(agent=False, user=False)
  moved = [blank] * LATE_TICKS + list(log.ticks)
  late = [
    dataclasses.replace(
      here,
      agent=then.agent,
      agent_text=then.agent_text,
      calls=then.calls,
      results=then.results,
    )
    for here, then in zip(log.ticks, moved, strict=False)
  ]
  return dataclasses.replace(log, ticks=tuple(late))


def silent(timeline: Timeline) -> ticks.Log:
  """Never says anything."""
  return observe.from_activity(timeline, agent=_nothing(timeline))


def always_talking(timeline: Timeline) -> ticks.Log:
  """Talks from the first window it can to the last."""
  agent = ~_nothing(timeline)
  agent[:1] = False
  return observe.from_activity(timeline, agent=agent)


def blink(on: int, off: int) -> Agent:
  """An agent that hears nothing: `on` ticks of sound, `off` of silence."""

  def blinks(timeline: Timeline) -> ticks.Log:
    count = len(_nothing(timeline))
    agent = np.arange(-1, count - 1) % (on + off) < on
    agent[:1] = False
    return observe.from_activity(timeline, agent=agent)

  blinks.__doc__ = f"Hears nothing: {on} ticks of sound, {off} of silence."
  return blinks


def echo(timeline: Timeline) -> ticks.Log:
  """Answers whatever is loud, for as long as it was, when it is over.

  Loud is what `vad.EnergyVad` takes for speech in the microphone, speech or
  not, for the agent or not; one quiet tick is heard before it answers, and it
  stops in the tick after something is loud again.
  """
  sound = microphone.hear(timeline, grid=clock.TICKS)
  detector = vad.EnergyVad()
  loud = np.array([bool(detector.push(window).any()) for window in sound], bool)
  agent = np.zeros(len(loud), bool)
  for first, stop in speech.runs_of(loud):
    agent[stop + 1 : stop + 1 + stop - first] = True
    agent[first + 1 : stop] = False
  return observe.from_activity(timeline, agent=agent)


def random(timeline: Timeline) -> ticks.Log:
  """As `random_like` of the recorded agent."""
  return random_like(recorded(timeline))


def random_like(log: ticks.Log) -> ticks.Log:
  """As many runs as the agent of `log` has, as long, anywhere; no words.

  The runs come in random order; all arrangements of runs and of the silence
  around them are equally likely.
  """
  lengths = [stop - first for first, stop in speech.runs_of(log.agent)]
  count, draws = (
    len(log.ticks),
    np.random.default_rng(zlib.crc32(log.id.encode())),
  )
  agent = np.zeros(count, bool)
  if lengths:
    places = len(lengths) + count - sum(lengths)
    chosen = np.sort(draws.choice(places, len(lengths), replace=False))
    moved = 0
    for place, length in zip(chosen, draws.permutation(lengths), strict=True):
      agent[place + moved : place + moved + length] = True
      moved += int(length) - 1
  return dataclasses.replace(
    log,
    ticks=tuple(
      ticks.Tick(agent=bool(sounds), user=tick.user, user_text=tick.user_text)
      for sounds, tick in zip(agent, log.ticks, strict=True)
    ),
  )


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
LIKE_MODEL: Mapping[str, Callable[[ticks.Log], ticks.Log]] = {
  "random": random_like
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
