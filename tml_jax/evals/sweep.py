"""The same users met with several settings, and the best of these.

For: `evaluate --sweep`, which tunes a harness and shows what a bias trades;
`--tuned`, which uses what was chosen. Not for: training several models
(`ablation`), or pictures (`sweep_picture`). Start at `points`, then `hold`.

Chosen is the point with the best value of one row, `summary_score` unless
another is named; of equal ones that with the lower median response latency, and
of equal ones again the first of the grid.
"""

import collections
import dataclasses
import enum
import hashlib
import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tml_jax import errors, files
from tml_jax.config import Config
from tml_jax.config import text as config_text
from tml_jax.data.splits import Split
from tml_jax.evals import kept as kept_lib
from tml_jax.evals import run, suites, turn_based
from tml_jax.evals.metrics import panel
from tml_jax.evals.metrics.panel import Better
from tml_jax.evals.metrics.statistics import Value
from tml_jax.evals.report import Report, Scored
from tml_jax.live import user
from tml_jax.logs import columns, observe, ticks
from tml_jax.models import interaction
from tml_jax.streams import clock
from tml_jax.streams.tokenizer import Tokenizer

LATENCY = "latency_p50"
_SECTIONS = ("sample.", "turns.")  # what trained weights do not depend on


@dataclasses.dataclass(frozen=True)
class Point:
  """One setting.

  Attributes:
    changes: values by dotted path.
    config: of the run, with these.
  """

  changes: Mapping[str, Any]
  config: Config

  @property
  def name(self) -> str:
    """Of its folder and its row."""
    return ",".join(
      f"{path.split('.')[-1]}={value}" for path, value in self.changes.items()
    )


def points(config: Config, *, grid: Sequence[str]) -> list[Point]:
  """Every combination of the values, the last field first.

  Args:
    config: of the run.
    grid: FIELD=VALUE,VALUE,... of sections that weights do not depend on.

  Raises:
    errors.UserError: another field, or values that cannot be.
  """
  axes = {}
  for entry in grid:
    path, _, values = entry.partition("=")
    if not path.startswith(_SECTIONS):
      raise errors.UserError(
        f"--sweep={entry}: only fields of {' and '.join(_SECTIONS)} can be"
        " swept, as no weights depend on them; write FIELD=VALUE,VALUE, for"
        " instance turns.endpoint_s=0.3,0.5"
      )
    if path in axes:
      raise errors.UserError(f"--sweep={entry}: {path} is swept twice")
    axes[path] = [_value(each, path=path) for each in values.split(",")]
    for k, value in enumerate(axes[path]):
      if value in axes[path][:k]:
        raise errors.UserError(
          f"--sweep={entry}: the value {value} is there twice; leave out one"
        )
  made = []
  for values in itertools.product(*axes.values()):
    changes = dict(zip(axes, values, strict=True))
    point = Point(changes, config_text.with_fields(config, changes))
    turns, run_turns = point.config.turns, config.turns
    if turns.vad is not run_turns.vad:
      turn_based.connect(point.config)  # its package may be missing
    made.append(point)
  return made


def _value(text: str, *, path: str) -> Any:
  """A value of the field at `path`; what is wrong with it is said later."""
  types = config_text.field_types(Config)
  if path not in types:
    near = ", ".join(name for name in types if name.startswith(_SECTIONS))
    raise errors.UserError(f"--sweep={path}=...: no such field; one of {near}")
  if issubclass(types[path], enum.Enum):
    return text
  try:
    return types[path](text)
  except ValueError:
    raise errors.UserError(
      f"--sweep={path}=...: {text!r} is no {types[path].__name__}"
    ) from None


def hold(
  suite: suites.Suite,
  *,
  config: Config,
  program: Config,
  connect: turn_based.Connect = user.Recorded,
  model: interaction.InteractionModel,
  variables: dict[str, Any],
  tokenizer: Tokenizer,
  kept: kept_lib.Kept,
) -> Report:
  """A suite held live, without forced predictions or agents without a model.

  Args:
    suite: what to evaluate.
    config: of the run, with the settings.
    program: as `config`, without what the compiled tick does not depend on.
    connect: how the model meets its users.
    model: the model.
    variables: its parameters and router biases.
    tokenizer: of the run.
    kept: where logs go, and come from when the same was cut before.

  Raises:
    errors.UserError: no item says what is due, or data or a log are broken.
  """
  logs: dict[int, ticks.Log] = {}
  items, named = suite.items(), {}
  waiting, skipped = [], collections.Counter[str]()
  for i, item in enumerate(items):
    timeline = item.load()
    named[i] = kept_lib.of_item(item, script=timeline)
    if not suite.asks(timeline):
      skipped[item.family] += 1
    elif log := kept.find(item, timeline):
      logs[i] = log
    else:
      waiting.append((i, item))
  if not logs and not waiting:
    raise suites.nothing_due(sorted(skipped))

  def done(held: run.Held) -> None:
    i, item = waiting[held.index]
    log = observe.from_frames(
      held.frames,
      timeline=held.timeline,
      tokenizer=tokenizer,
      grid=clock.of(config.streams),
      seconds=held.seconds,
      provenance=kept.of(item, script=held.script),
    )
    ticks.write(log, kept.path(item.family, log.id))
    logs[i] = log

  tick_seconds = run.converse(
    program,
    model=model,
    variables=variables,
    items=[item for _, item in waiting],
    tokenizer=tokenizer,
    done=done,
    connect=connect,
    users=suite.users,
  )
  return Report(
    scored=[
      Scored(
        items[i].family,
        log=logs[i],
        series={panel.MODEL: suite.measure(logs[i])},
        columns={panel.MODEL: columns.of(logs[i])},
        of=named[i],
      )
      for i in sorted(logs)
    ],
    sums={},
    skipped=dict(skipped),
    reused=len(logs) - len(waiting),
    tick_seconds=tick_seconds,
    metrics=suite.metrics,
    agents=(),
    corpora=suite.corpora,
    provenance=kept.provenance,
  )


def choose(found: Sequence[Mapping[str, Value]], *, by: str) -> int:
  """Which of the points is the best; see the module.

  Raises:
    errors.UserError: none has a value.
  """
  metric = _metric(by)
  sign = -1 if metric.better is Better.HIGHER else 1

  def key(i: int) -> tuple[float, float, int]:
    value, latency = found[i][by].value, found[i][LATENCY].value
    return (
      sign * value if not math.isnan(value) else math.inf,
      latency if not math.isnan(latency) else math.inf,
      i,
    )

  best = min(range(len(found)), key=key)
  if math.isnan(found[best][by].value):
    raise errors.UserError(
      f"--by={by}: no conversation has an event of it; choose by another row,"
      " or of other families"
    )
  return best


def check_by(name: str) -> None:
  """Refuses a row that says nothing of good and bad.

  Raises:
    errors.UserError: no such row, or none with a better side.
  """
  _metric(name)


def _metric(name: str) -> panel.Metric:
  known = {m.name: m for m in panel.metrics() if m.better is not Better.NEITHER}
  if name not in known:
    raise errors.UserError(
      f"--by={name}: no row of the panel that can be better; one of"
      f" {', '.join(known)}"
    )
  return known[name]


def tuned(path: str, *, config: Config, agent: str) -> dict[str, Any]:
  """Values by path that a sweep on dev has chosen.

  Args:
    path: of the file.
    config: of the run, which must be of the same name as that of the sweep.
    agent: how it meets its users, as in the sweep.

  Raises:
    errors.UserError: no such file, chosen on conversations of a table, or for
      another agent or config.
  """
  numbers = read(files.path(path), flag="tuned")
  if numbers["split"] != Split.DEV:
    raise errors.UserError(
      f"--tuned={path}: swept on --split={numbers['split']}; what is chosen is"
      " chosen on dev: sweep with --split=dev"
    )
  for what, wanted in (("agent", agent), ("config", config.name)):
    if numbers[what] != wanted:
      raise errors.UserError(
        f"--tuned={path}: it was chosen for the {what} {numbers[what]}, and"
        f" this is {wanted}: sweep that with --split=dev"
      )
  return dict(numbers["choice"])


def digest(path: str) -> str:
  """Names the content of a file that `tuned` has read."""
  return hashlib.sha256(files.path(path).read_bytes()).hexdigest()[:16]


def read(path: pathlib.Path, *, flag: str) -> dict[str, Any]:
  """What `evaluate --sweep` wrote, checked.

  Raises:
    errors.UserError: not such a file, named with its flag.
  """
  try:
    numbers = files.load_json(path)
    rows = [dict(point["rows"]) for point in numbers["points"]]
    changes = [dict(point["changes"]) for point in numbers["points"]]
    is_one = dict(numbers["choice"]) in changes and len(rows) > 0
    if not is_one or not isinstance(numbers["split"], str):
      raise ValueError("its choice is none of its points")
    return numbers | {n: str(numbers[n]) for n in ("agent", "config")}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f"--{flag}={path}: no file of `evaluate --sweep` ({error!r}); sweep again"
    ) from error


def program_of(point: Point, *, run_config: Config) -> Config:
  """What the tick is compiled for: a harness changes nothing in it."""
  return dataclasses.replace(point.config, turns=run_config.turns)


def kept_at(
  directory: pathlib.Path, point: Point, *, provenance: dict[str, Any]
) -> kept_lib.Kept:
  """Where the logs of a point are."""
  return kept_lib.Kept(directory / point.name, provenance=provenance)


def table(
  found: Sequence[Mapping[str, Value]], *, names: Sequence[str], best: int
) -> str:
  """A row a point, the chosen one marked."""
  shown = [m for m in panel.metrics() if m.name in panel.HEADLINE]
  lines = [["", *(m.name for m in shown)]]
  for i, (values, name) in enumerate(zip(found, names, strict=True)):
    cells = [_cell(values[m.name], m) for m in shown]
    lines.append([("* " if i == best else "  ") + name, *cells])
  widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
  return "\n".join(
    "  ".join(
      [line[0].ljust(widths[0])]
      + [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
    )
    for line in lines
  )


def _cell(value: Value, metric: panel.Metric) -> str:
  if math.isnan(value.value):
    return "-"
  return f"{metric.factor * value.value:.{metric.digits}f}"
