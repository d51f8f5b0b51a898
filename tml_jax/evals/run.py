"""Evaluation of a model: live sessions for timing, forced for content.

For: the numbers of `evaluate` and of the training loop. Not for: definitions
(`panel`, `content`) or what is evaluated (`suites`). Start reading at
`evaluate`. Live: the model hears an item's user, window by window, and answers
itself; the recorded agent is not played.
"""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from tml_jax.config import Config
from tml_jax.data import layouts
from tml_jax.evals import (
  content,
  dummies,
  observe,
  panel,
  suites,
  ticks,
  turn_based,
)
from tml_jax.evals import live as live_lib
from tml_jax.evals.floor import Series
from tml_jax.models import interaction
from tml_jax.sampling import pool as pool_lib
from tml_jax.sampling import session, user
from tml_jax.streams import annotation, clock, framing
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import Timeline
from tml_jax.streams.tokenizer import Tokenizer

MODEL = "model"  # beside the names of `dummies.AGENTS`
ALL = "all"  # families together
SLOTS = 16  # conversations ticked together


@dataclasses.dataclass(frozen=True)
class Scored:
  """One item.

  Attributes:
    family: whose it is.
    log: of the model's session.
    series: by agent: the model's and those of the dummies.
  """

  family: str
  log: ticks.Log
  series: dict[str, Series]

  @property
  def score(self) -> float:
    return panel.score(self.series[MODEL])


@dataclasses.dataclass(frozen=True)
class Report:
  """A suite evaluated.

  Attributes:
    scored: items, those of a family together.
    content: of each family, and of `ALL`; see `content.Sums`.
    skipped: items that say nothing of what is due, by family.
    reused: items whose log was there.
    tick_seconds: [ticks] of `SLOTS` sessions at once, compilation included.
  """

  scored: list[Scored]
  content: dict[str, dict[str, float]]
  skipped: dict[str, int]
  reused: int
  tick_seconds: np.ndarray

  @property
  def families(self) -> list[str]:
    return list(dict.fromkeys(item.family for item in self.scored))

  def items(self, family: str) -> list[Scored]:
    """Those of a family, or `ALL`."""
    return [s for s in self.scored if family in (ALL, s.family)]

  def summary(
    self, family: str, *, agent: str = MODEL, resamples: int = panel.RESAMPLES
  ) -> dict[str, panel.Value]:
    items = [item.series[agent] for item in self.items(family)]
    return panel.summarise(items, resamples=resamples)

  def scalars(self) -> dict[str, float]:
    """Of all families, for the metrics of training."""
    values = self.summary(ALL, resamples=0)
    return panel.scalars(values) | self.content[ALL]


@dataclasses.dataclass(frozen=True)
class Kept:
  """Where logs are kept, and what they must say to be used again.

  Attributes:
    directory: FAMILY/ID.jsonl are written below it.
    provenance: of this model; the item's seed is added to it.
  """

  directory: pathlib.Path
  provenance: dict[str, Any]

  def path(self, family: str, identifier: str) -> pathlib.Path:
    name = re.sub(r"[^\w.-]+", "-", identifier.removeprefix(f"{family}/"))
    return self.directory / family / f"{name}.jsonl"

  def of(self, item: suites.Item) -> dict[str, Any]:
    return self.provenance | {"seed": item.seed}

  def find(self, item: suites.Item, timeline: Timeline) -> ticks.Log | None:
    """The log of an item that need not be held again.

    Raises:
      errors.UserError: the file is broken.
    """
    path = self.path(item.family, timeline.id)
    if not path.exists():
      return None
    log = ticks.read(path)
    asked = annotation.of(timeline)
    if log.provenance != self.of(item) or log.annotations != asked:
      return None
    return log


def evaluate(
  suite: suites.Suite,
  *,
  config: Config,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  tokenizer: Tokenizer,
  kept: Kept | None = None,
  agent: Callable[[Config], live_lib.Hold] = turn_based.as_trained,
) -> Report:
  """Scores every item of a suite, live and forced.

  `agent` says how the model is connected to its users.

  Raises:
    errors.UserError: no item says what is due, or data or a log are broken.
  """
  variables = jax.tree.map(jnp.asarray, variables)
  items = suite.items()
  known = _Known()
  sums: dict[str, content.Sums] = {}
  for family in dict.fromkeys(item.family for item in items):
    recordings = []
    for i in (i for i, item in enumerate(items) if item.family == family):
      timeline = items[i].load()
      if known.add(i, item=items[i], timeline=timeline, kept=kept):
        recordings.append(
          framing.frames(
            layouts.lay_out(timeline, config=config, tokenizer=tokenizer),
            config=config.streams,
            tokenizer=tokenizer,
          )
        )
    if recordings:
      sums[family] = content.forced(
        config,
        model=model,
        variables=variables,
        recordings=recordings,
        title=f"{family}: forced",
      )
  if not known.dummies:
    raise suites.nothing_due(sorted(known.skipped))
  logs = dict(known.logs)

  def done(held: Held) -> None:
    index = known.waiting[held.index]
    suite.keep(held.timeline, frames=held.frames)
    log = observe.from_frames(
      held.frames,
      timeline=held.timeline,
      tokenizer=tokenizer,
      seconds=held.seconds,
      provenance=kept.of(items[index]) if kept else {},
    )
    if kept:
      ticks.write(log, kept.path(items[index].family, log.id))
    logs[index] = log

  tick_seconds = converse(
    config,
    model=model,
    variables=variables,
    items=[items[i] for i in known.waiting],
    tokenizer=tokenizer,
    done=done,
    windows=known.windows,
    hold=agent(config),
  )
  scored = [
    Scored(
      family=items[i].family,
      log=logs[i],
      series={MODEL: panel.measure(logs[i]), **known.dummies[i]},
    )
    for i in sorted(logs)
  ]
  sums[ALL] = sum(sums.values(), content.nothing())
  return Report(
    scored=scored,
    content={family: found.scalars() for family, found in sums.items()},
    skipped=dict(known.skipped),
    reused=len(known.logs),
    tick_seconds=tick_seconds,
  )


@dataclasses.dataclass
class _Known:
  """What is known of items before any session.

  Attributes:
    dummies: series by agent, by index of the item.
    logs: that need not be made again.
    waiting: indices of items whose sessions are to be held.
    windows: of these.
    skipped: items that say nothing of what is due, by family.
  """

  dummies: dict[int, dict[str, Series]] = dataclasses.field(
    default_factory=dict
  )
  logs: dict[int, ticks.Log] = dataclasses.field(default_factory=dict)
  waiting: list[int] = dataclasses.field(default_factory=list)
  windows: int = 0
  skipped: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )

  def add(
    self,
    index: int,
    *,
    item: suites.Item,
    timeline: Timeline,
    kept: Kept | None,
  ) -> bool:
    """Takes an item; returns whether there is anything to score."""
    if not annotation.of(timeline):
      self.skipped[item.family] += 1
      return False
    self.dummies[index] = {
      name: panel.measure(agent(timeline))
      for name, agent in dummies.AGENTS.items()
    }
    log = kept.find(item, timeline) if kept else None
    if log is None:
      self.waiting.append(index)
      self.windows += clock.num_windows(timeline.duration)
    else:
      self.logs[index] = log
    return True


@dataclasses.dataclass(frozen=True)
class Held:
  """A conversation that is over.

  Attributes:
    index: of the item.
    timeline: whose user was talked to.
    frames: one per window.
    seconds: [windows] wall-clock time of each decision, of all slots.
  """

  index: int
  timeline: Timeline
  frames: list[Frame]
  seconds: np.ndarray


def converse(
  config: Config,
  *,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  items: Iterable[suites.Item],
  tokenizer: Tokenizer,
  done: Callable[[Held], None],
  windows: int,
  hold: live_lib.Hold = live_lib.duplex,
) -> np.ndarray:
  """Lets the model answer the users of `items`; `done` gets each that is over.

  A conversation depends on its item alone, whoever shares the pool: the next
  one joins when another is over. `windows` of all are for the progress bar;
  `hold` is how the model is connected to its user.

  Returns:
    [ticks] wall-clock time of each call, compilation included.
  """
  pool = pool_lib.SessionPool(
    config,
    model=model,
    variables=variables,
    slots=SLOTS,
    text_pieces=tokenizer.num_pieces,
  )
  seconds: list[float] = []
  waiting = enumerate(items)
  talking: dict[session.Session, _Talk] = {}
  with tqdm.tqdm(total=windows, desc="live", unit="window") as progress:
    while True:
      while len(talking) < SLOTS:
        index, item = next(waiting, (0, None))
        if item is None:
          break
        talk = _Talk.begin(index, item, tokenizer=tokenizer)
        live = pool.join(seed=item.seed)
        talk.steps = hold(talk.part, live, talk.frames)
        if talk.go_on(None):
          talking[live] = talk
        else:  # the model was never asked
          pool.leave(live)
          done(talk.held)
      if not talking:
        return np.array(seconds)
      ticked = pool.tick(
        {live: talk.step.inputs for live, talk in talking.items()},
        quiet={live for live, talk in talking.items() if talk.step.quiet},
      )
      seconds.append(ticked.seconds)
      for live, talk in list(talking.items()):
        before = len(talk.frames)
        goes_on = talk.go_on(ticked.frames[live], seconds=ticked.seconds)
        progress.update(len(talk.frames) - before)
        if not goes_on:
          pool.leave(live)
          del talking[live]
          done(talk.held)


@dataclasses.dataclass
class _Talk:
  """A conversation under way."""

  index: int
  timeline: Timeline
  part: user.UserPart
  frames: list[Frame] = dataclasses.field(default_factory=list)
  seconds: list[float] = dataclasses.field(default_factory=list)
  steps: live_lib.Steps | None = None
  step: live_lib.Step | None = None
  _spent: float = 0.0  # since the last window

  @classmethod
  def begin(
    cls, index: int, item: suites.Item, *, tokenizer: Tokenizer
  ) -> "_Talk":
    timeline = item.load()
    return cls(index, timeline, user.UserPart(timeline, tokenizer=tokenizer))

  @property
  def held(self) -> Held:
    return Held(self.index, self.timeline, self.frames, np.array(self.seconds))

  def go_on(self, frame: Frame | None, *, seconds: float = 0.0) -> bool:
    """Gives the frame of the last step; whether there is another one."""
    self._spent += seconds
    try:
      self.step = self.steps.send(frame)
    except StopIteration:
      self.step = None
    for _ in range(len(self.frames) - len(self.seconds)):
      self.seconds.append(self._spent)
      self._spent = 0.0
    return self.step is not None
