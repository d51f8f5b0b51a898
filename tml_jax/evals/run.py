"""Evaluation of a model: live sessions for timing, forced for content.

For: the numbers of `evaluate` and of the training loop. Not for: definitions
(`panel`, `content`) or what is evaluated (`suites`). Start reading at
`evaluate`. Live: the model hears an item's user, window by window, and answers
itself; the recorded agent is not played.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from tml_jax.config import Config
from tml_jax.data import turns
from tml_jax.evals import agents as agents_lib
from tml_jax.evals import content, simulated_tool, suites, turn_based
from tml_jax.evals import kept as kept_lib
from tml_jax.evals import sums as sums_lib
from tml_jax.evals.metrics import panel
from tml_jax.evals.report import SLOTS, Report, Scored
from tml_jax.evals.sums import Sums
from tml_jax.live import conversation, reacting_part, user
from tml_jax.live import pool as pool_lib
from tml_jax.live import program as program_lib
from tml_jax.live.reacting import Users
from tml_jax.logs import columns, observe, ticks
from tml_jax.models import interaction
from tml_jax.streams import clock, framing
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import Role, Timeline
from tml_jax.streams.tokenizer import Tokenizer

_CHUNK = 16  # recordings in memory together; of video, 30 MB each


def evaluate(
  suite: suites.Suite,
  *,
  config: Config,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  tokenizer: Tokenizer,
  kept: kept_lib.Kept | None = None,
  agent: Callable[[Config], turn_based.Connect] = turn_based.as_trained,
) -> Report:
  """Scores every item of a suite, live and forced.

  Args:
    suite: what to evaluate.
    config: of the run.
    model: the model.
    variables: its parameters and router biases.
    tokenizer: of the run.
    kept: where logs go and come from; None keeps none.
    agent: how the model of a config is connected to its users.

  Raises:
    errors.UserError: no item says what is due, or data or a log are broken.
  """
  variables = jax.tree.map(jnp.asarray, variables)
  items = suite.items()
  known, sums = _forced(
    suite,
    items,
    config=config,
    model=model,
    variables=variables,
    tokenizer=tokenizer,
    kept=kept,
  )
  if not known.dummies:
    raise suites.nothing_due(sorted(known.skipped))
  logs = dict(known.logs)
  alike: set[int] = set()

  def like_model(index: int, script: Timeline) -> None:
    alike.add(index)
    for name, like in agents_lib.LIKE_MODEL.items():
      if name in suite.agents:
        log = like(logs[index], script=script, users=suite.users)
        known.dummies[index][name] = suite.measure(log)
        known.columns[index][name] = columns.of(log)

  def done(held: Held) -> None:
    index = known.waiting[held.index]
    log = observe.from_frames(
      held.frames,
      timeline=held.timeline,
      tokenizer=tokenizer,
      grid=clock.of(config.streams),
      seconds=held.seconds,
      provenance=kept.of(items[index], script=held.script) if kept else {},
    )
    family = items[index].family
    suite.keep(held.timeline, frames=held.frames, log=log, family=family)
    if kept:
      ticks.write(log, kept.path(family, log.id))
    logs[index] = log
    like_model(index, held.script)

  tick_seconds = converse(
    config,
    model=model,
    variables=variables,
    items=[items[i] for i in known.waiting],
    tokenizer=tokenizer,
    done=done,
    connect=agent(config),
    users=suite.users,
  )
  for i in logs.keys() - alike:
    like_model(i, items[i].load())
  return Report(
    scored=[
      Scored(
        family=items[i].family,
        log=logs[i],
        series={panel.MODEL: suite.measure(logs[i])} | known.dummies[i],
        columns={panel.MODEL: columns.of(logs[i])} | known.columns[i],
        of=known.of[i],
      )
      for i in sorted(logs)
    ],
    sums=sums | {panel.ALL: sum(sums.values(), sums_lib.nothing())},
    skipped=dict(known.skipped),
    reused=len(known.logs),
    tick_seconds=tick_seconds,
    metrics=suite.metrics,
    agents=tuple(suite.agents),
    corpora=suite.corpora,
    provenance=kept.provenance if kept else {},
  )


def _forced(
  suite: suites.Suite,
  items: list[suites.Item],
  *,
  config: Config,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  tokenizer: Tokenizer,
  kept: kept_lib.Kept | None,
) -> tuple[kept_lib.Known, dict[str, Sums]]:
  """Looks through all items; returns what is known, and content by family."""
  known = kept_lib.Known()
  sums: dict[str, Sums] = {}
  chunks = tqdm.tqdm(_chunks(items), desc="forced", unit="chunk")
  for family, indices in chunks:
    loaded = {i: items[i].load() for i in indices}
    asked = [
      i
      for i, timeline in loaded.items()
      if known.add(i, suite=suite, item=items[i], timeline=timeline, kept=kept)
    ]
    if asked:
      sums.setdefault(family, sums_lib.nothing())
    # Where there is no recorded agent, there is nothing to predict.
    predicted = [i for i in asked if loaded[i].track(Role.AGENT)]
    of = {loaded[i].id: known.of[i] for i in predicted}
    found = kept.find_content(family, of) if kept else None
    if found is None and predicted:
      found = content.forced(
        config,
        model=model,
        variables=variables,
        recordings=[
          framing.frames(
            turns.lay_out(
              items[i].recorded() if items[i].recorded else loaded[i],
              config=config,
              tokenizer=tokenizer,
            ),
            config=config.streams,
            tokenizer=tokenizer,
          )
          for i in predicted
        ],
      )
      if kept:
        kept.write_content(found, family=family, of=of)
    if found is not None:
      sums[family] += found
  return known, sums


def _chunks(items: list[suites.Item]) -> list[tuple[str, list[int]]]:
  """Family and indices of at most `_CHUNK` items each."""
  by_family: dict[str, list[int]] = {}
  for i, item in enumerate(items):
    by_family.setdefault(item.family, []).append(i)
  return [
    (family, indices[first : first + _CHUNK])
    for family, indices in by_family.items()
    for first in range(0, len(indices), _CHUNK)
  ]


@dataclasses.dataclass(frozen=True)
class Held:
  """A conversation that is over.

  Attributes:
    index: of the item.
    script: as the item was composed.
    timeline: what became of it: the script, where the user does not react.
    frames: one per window.
    seconds: [windows] wall-clock time of the calls it took part in, of all
      sessions of the pool.
  """

  index: int
  script: Timeline
  timeline: Timeline
  frames: list[Frame]
  seconds: np.ndarray


def converse(
  config: Config,
  *,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  items: list[suites.Item],
  tokenizer: Tokenizer,
  done: Callable[[Held], None],
  connect: turn_based.Connect = user.Recorded,
  users: Users = Users.SCRIPTED,
) -> np.ndarray:
  """Lets the model answer the users of `items`; `done` gets each that is over.

  Args:
    config: of the run.
    model: the model.
    variables: its parameters and router biases.
    items: whose users to meet.
    tokenizer: of the run.
    done: called with each that is over.
    connect: how the model meets its user.
    users: whether they react.

  Returns:
    [ticks] wall-clock time of each call, compilation included.
  """
  pool = pool_lib.SessionPool(
    program_lib.on_device(
      config, model=model, sessions=SLOTS, text_pieces=tokenizer.num_pieces
    ),
    variables=variables,
  )
  grid = clock.of(config.streams)
  with tqdm.tqdm(total=len(items), desc="live", unit="talk") as progress:

    def over(
      index: int, script: Timeline, part: user.Part, talk: turn_based.Talk
    ) -> None:
      seconds = np.array(talk.seconds)
      done(Held(index, script, part.timeline, talk.frames, seconds))
      progress.update()

    def guests():
      for index, item in enumerate(items):
        script = item.load()
        part = _part(script, tokenizer=tokenizer, grid=grid, users=users)
        talk = connect(part)
        yield conversation.Guest(
          talk,
          seed=item.seed,
          done=functools.partial(over, index, script, part, talk),
        )

    room = conversation.Room(pool, tokenizer=tokenizer)
    return conversation.hold(room, guests())


def _part(
  script: Timeline, *, tokenizer: Tokenizer, grid: clock.Grid, users: Users
) -> user.Part:
  """The user of an item, with a tool where the item asks for one."""
  options = {"tokenizer": tokenizer, "grid": grid}
  make = (
    reacting_part.ReactingPart if users is Users.REACTING else user.UserPart
  )
  if not simulated_tool.answers(script):
    return make(script, **options)
  return make(
    simulated_tool.without_results(script),
    tool=simulated_tool.SimulatedTool(script, **options),
    **options,
  )
