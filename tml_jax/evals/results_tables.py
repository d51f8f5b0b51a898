"""Tables of committed results, from archives alone.

For: `results`. Not for: what is computed (`compared`) or writing pages. Start
at `page`, what results/README.md has, and `short`, what README.md has. Rows
that hurt come first: those in which the interaction model loses most.
"""

import math
from collections.abc import Sequence

from tml_jax import workdir
from tml_jax.evals.archive import Archive
from tml_jax.evals.compared import (
  BASE,
  CERTAIN,
  ENOUGH,
  RIVAL,
  Compared,
  Results,
  traded,
)
from tml_jax.evals.metrics import panel, statistics
from tml_jax.evals.metrics.panel import Better, Metric
from tml_jax.evals.metrics.statistics import Difference, Value
from tml_jax.evals.report import Report
from tml_jax.evals.sweep_picture import X, Y

TITLES = {BASE: "interaction model", RIVAL: "behind a turn detector"}
# Of an agent without a model: `conditions.row`.
_SHOWN = ("recorded", "echo", "random", "blink_1_3")
_FEW = panel.FEW_EVENTS
PICTURE = "traded.png"


def page(results: Results) -> list[str]:
  """Lines of results/README.md."""
  lines: list[str] = []
  if results.has_rivals:
    lines += _against(results)
    lines += _conditions(results)
  else:
    lines += [
      "No trained model has been evaluated by this panel yet beside the same"
      " behind a turn detector.",
      "",
    ]
  lines += _traded(results)
  lines += _ablations(results)
  if results.agents:
    lines += _agents(results.agents)
  return lines + _files(results)


def short(results: Results) -> list[str]:
  """Lines of README.md."""
  if results.has_rivals:
    compared = Compared.of(results.arms[BASE], results.arms[RIVAL])
    rows = [m for m in compared.rows if m.name in panel.HEADLINE]
    return [
      f"{_who(results)} {_verdict(compared)}",
      "",
      *_compared_table(compared, rows),
    ]
  if results.agents:
    return [
      "No model has been measured by this panel yet. What agents without a"
      " model score, so that a number of one can be judged:",
      "",
      *_agents_table(results.agents.plain, names=_SHOWN),
    ]
  return ["Nothing has been measured yet."]


def _files(results: Results) -> list[str]:
  """A line for each archive."""
  lines = [
    "## Where the numbers are from",
    "",
    "Every archive has the command, the config and, by columns, the logs of all"
    " its conversations.",
    "",
    "| file | config | step | seeds | met users as | split, users |"
    " conversations | code | KB |",
    "|---|---|--:|---|---|---|--:|---|--:|",
  ]
  for each in results:
    numbers = each.head.numbers
    part = next(iter(each.parts.values()))
    name = "/".join(each.path.parts[-2:]).removeprefix("results/")
    step = numbers.get("step")
    lines.append(
      _line(
        f"[{name}]({name})",
        numbers.get("config", ""),
        "-" if step is None else str(step),
        ", ".join(f"{n} {s}" for n, s in each.head.seeds.items()),
        numbers.get("agent", ""),
        f"{numbers.get('split', '')}, {numbers.get('users', '')}",
        f"{len(part.report.scored)} x {len(each.parts)}",
        workdir.short_hash(str(numbers.get("git", ""))),
        f"{each.path.stat().st_size / 1000:.0f}",
      )
    )
  return [*lines, ""]


def _who(results: Results) -> str:
  """What was compared, in words."""
  ours, theirs = (results.arms[name] for name in (BASE, RIVAL))
  numbers = ours[0].head.numbers
  count = len(ours[0].plain.scored)
  steps = [_steps(arm) for arm in (ours, theirs)]
  return (
    f"The interaction model ({_seeds(ours)}, {steps[0]} steps) and the same"
    f" behind a turn detector ({_seeds(theirs)}, {steps[1]} steps) met the same"
    f" {count} {numbers.get('split', '')} users."
  )


def _steps(arm: Sequence[Archive]) -> str:
  return " and ".join(
    str(n) for n in sorted({int(a.head.numbers.get("step") or 0) for a in arm})
  )


def _seeds(arm: Sequence[Archive]) -> str:
  return "one seed" if len(arm) == 1 else f"{len(arm)} seeds"


def _verdict(compared: Compared) -> str:
  """What the intervals carry, in words."""
  if min(compared.seeds) < ENOUGH:
    return (
      f"That is of fewer than {ENOUGH} seeds, so nothing is said of which arm"
      " is better."
    )
  either = [m for m in compared.rows if not m.needs_duplex]
  sides: dict[str, list[str]] = {"behind": [], "ahead": []}
  for metric in either:
    if compared.carries(metric.name):
      lower = compared.less[metric.name].value < 0
      worse = lower == (metric.better is Better.HIGHER)
      sides["behind" if worse else "ahead"].append(metric.title)
  said = [
    f"{side} in {len(names)} ({'; '.join(names)})" if names else f"{side} in 0"
    for side, names in sides.items()
  ]
  return (
    f"Of {len(either)} rows that either arm can have, the interaction model is"
    f" {' and '.join(said)}: p < {CERTAIN:g}, corrected for all rows, on at"
    f" least {_FEW} events. Of the others nothing is known."
  )


def _against(results: Results) -> list[str]:
  """The arms, row by row."""
  compared = Compared.of(results.arms[BASE], results.arms[RIVAL])
  either = [m for m in compared.rows if not m.needs_duplex]
  duplex = [m for m in compared.rows if m.needs_duplex]
  lines = [
    "## Against the same model behind a turn detector",
    "",
    f"{_who(results)} {_verdict(compared)} Rows in which the interaction model"
    " loses most come first.",
    "",
    *_compared_table(compared, either),
    "",
  ]
  if duplex:
    lines += [
      "By definition no agent that speaks when a turn is over can have these:",
      "",
      *_compared_table(compared, duplex),
      "",
    ]
  return lines


def _compared_table(compared: Compared, rows: Sequence[Metric]) -> list[str]:
  lines = [
    f"| | {TITLES[BASE]} | {TITLES[RIVAL]} | difference | p, corrected | events"
    " of a seed |",
    "|---|--:|--:|--:|--:|--:|",
  ]
  for m in rows:
    ours, theirs = compared.ours[m.name], compared.theirs[m.name]
    less = compared.less[m.name]
    lines.append(
      _line(
        _title(m),
        _interval(m, ours),
        _interval(m, theirs),
        _interval(m, less),
        _p(less),
        f"{ours.events} and {theirs.events}",
      )
    )
  return lines


def _conditions(results: Results) -> list[str]:
  """A row for each kind of users, of both arms."""
  arms = {name: results.arms[name] for name in (BASE, RIVAL)}
  names = list(arms[BASE][0].parts)
  if len(names) == 1:
    return []
  rows = {m.name: m for m in panel.METRICS}
  shown = [rows[n] for n in ("summary_score", "done", "unasked_seconds")]
  score = shown[0]
  split = arms[BASE][0].head.numbers.get("split", "")
  lines = [
    "## Users unlike those of training",
    "",
    "Of each arm the summary score, what was done in time, and unasked speech;"
    f" then the scores' difference. `plain` are the {split} users of the table"
    " above. What differs in a row:"
    " [docs/panel.md](../docs/panel.md#users-unlike-those-of-training).",
    "",
    _line(
      "users",
      *(
        f"{TITLES[arm]}: {_title(m)}" if m is score else _title(m)
        for arm in arms
        for m in shown
      ),
      "difference of scores",
    ),
    "|---|" + "--:|" * 7,
  ]
  for name in names:
    compared = Compared.of(
      *arms.values(), metrics=[m.name for m in shown], part=name
    )
    cells = [
      _interval(m, found[m.name]) if m.name in found else "-"
      for found in (compared.ours, compared.theirs)
      for m in shown
    ]
    less = compared.less.get(score.name)
    lines.append(
      _line(f"`{name}`", *cells, _interval(score, less) if less else "-")
    )
  return [*lines, ""]


def _traded(results: Results) -> list[str]:
  """What a bias on the decision to begin trades."""
  found = traded(results)
  if not found:
    return []
  rows = {m.name: m for m in panel.METRICS}
  lines = [
    "## What is traded",
    "",
    "Turns answered against speech that nobody asked for, as"
    " `sample.onset_bias` moves: any table is one point of each line.",
    "",
    f"![turns answered against unasked speech]({PICTURE})",
    "",
    "*Points are means over seeds; a band joins the intervals over users and"
    " seeds. Up and to the left is better.*",
    "",
    f"| arm | bias | {_title(rows[Y])} | {_title(rows[X])} | seeds |",
    "|---|--:|--:|--:|--:|",
  ]
  for arm, points in found.items():
    for point in points:
      lines.append(
        _line(
          TITLES.get(arm, f"`{arm}`"),
          point.label,
          _interval(rows[Y], point.asked),
          _interval(rows[X], point.unasked),
          str(len(results.sweeps[arm])),
        )
      )
  return [*lines, ""]


def _ablations(results: Results) -> list[str]:
  """Every other row less the base."""
  others = {n: a for n, a in results.arms.items() if n not in (BASE, RIVAL)}
  if not others or BASE not in results.arms:
    return []
  base = results.arms[BASE]
  found = {
    name: Compared.of(arm, base, metrics=panel.HEADLINE, beside=len(others))
    for name, arm in others.items()
  }
  corrected = statistics.holm({name: dict(c.less) for name, c in found.items()})
  rows = [m for m in panel.METRICS if m.name in panel.HEADLINE]
  lines = [
    "## Ablations",
    "",
    "Rows of [experiments/README.md](../experiments/README.md), less the base"
    f" ({_seeds(base)}), over the same users. Bold: p < {CERTAIN:g}, corrected"
    f" for this whole table, on at least {_FEW} events, and {ENOUGH} seeds of"
    " both. Nothing else here says that a row matters.",
    "",
    _line("row", "seeds", *map(_title, rows)),
    "|---|--:|" + "--:|" * len(rows),
  ]
  for name, arm in others.items():
    cells = []
    for m in rows:
      less = corrected[name].get(m.name)
      cell = _interval(m, less) if less else "-"
      sure = less is not None and found[name].carries(m.name, less=less)
      cells.append(f"**{cell}**" if sure else cell)
    lines.append(_line(f"`{name}`", str(len(arm)), *cells))
  return [*lines, ""]


def _agents(found: Archive) -> list[str]:
  """Agents that hear nothing, or no words."""
  plain = found.plain
  lines = [
    "## Agents without a model",
    "",
    f"{len(plain.scored)} users of {len(plain.families)} families (split"
    f" {found.head.numbers.get('split', '')}, --users="
    f"{found.head.numbers.get('users', '')}). Who the agents are:"
    " [docs/panel.md](../docs/panel.md#agents-without-a-model).",
    "",
    *_agents_table(plain, names=plain.agents),
    "",
  ]
  if len(found.parts) == 1:
    return lines
  lines += [
    "Done in time, % (unasked speech, seconds a minute), with users unlike"
    " those of training:",
    "",
    _line("users", *(f"`{name}`" for name in _SHOWN)),
    "|---|" + "--:|" * len(_SHOWN),
  ]
  rows = {m.name: m for m in panel.METRICS}
  for name, part in found.parts.items():
    cells = []
    for agent in _SHOWN:
      values = part.report.summary(panel.ALL, agent=agent, resamples=0)
      done, unasked = values["done"], values["unasked_seconds"]
      cells.append(
        f"{_number(rows['done'], done.value)}"
        f" ({_number(rows['unasked_seconds'], unasked.value)})"
      )
    lines.append(_line(f"`{name}`", *cells))
  return [*lines, ""]


def _agents_table(report: Report, *, names: Sequence[str]) -> list[str]:
  rows = [m for m in report.metrics if m.name in panel.HEADLINE]
  values = {name: report.summary(panel.ALL, agent=name) for name in names}
  lines = [
    _line("", *(f"`{name}`" for name in values)),
    "|---|" + "--:|" * len(values),
  ]
  for m in rows:
    lines.append(
      _line(
        _title(m), *(_interval(m, found[m.name]) for found in values.values())
      )
    )
  lines.append(
    _line(
      "things due", *(str(found["done"].events) for found in values.values())
    )
  )
  return lines


def _title(metric: Metric) -> str:
  unit = f", {metric.unit}" if metric.unit else ""
  title = metric.title.replace("|", r"\|")  # which would end a cell
  return f"{title}{unit}{metric.better}"


def _number(metric: Metric, value: float) -> str:
  if math.isnan(value):
    return "-"
  return f"{metric.factor * value + 0.0:.{metric.digits}f}"


def _interval(metric: Metric, value: Value | Difference) -> str:
  """A value with its interval, and a mark where it is of few events."""
  text = _number(metric, value.value)
  if isinstance(value, Value) and 0 < value.events < _FEW:
    text += "*"
  if math.isnan(value.value) or math.isnan(value.low):
    return text
  low, high = (_number(metric, bound) for bound in (value.low, value.high))
  return f"{text} ({low} to {high})"


def _p(less: Difference) -> str:
  if math.isnan(less.p_holm):
    return "-"
  return f"{less.p_holm:.3f}" if less.p_holm >= 0.001 else "< 0.001"


def _line(*cells: str) -> str:
  return f"| {' | '.join(cells)} |"
