"""Our panel beside tau2-bench's own metrics code, on the same conversations.

`python -m benchmarks.outside_panel --tau2=BIN/tau2 --data_dir=DATA --dir=DIR`
lets agents without a model hold the held-out conversations, gives their tick
logs to tau2-bench (`tml_jax.evals.tau2`), has that benchmark's command compute
its panel of them, and writes benchmarks/outside_panel.md. tau2-bench is not
part of this project: install it in an environment of its own (Python 3.12, `pip
install` of a checkout). What the differences come from is in docs/panel.md.
"""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from absl import app, flags

from benchmarks import timing
from tml_jax.config import flags as config_flags
from tml_jax.evals import tau2

_TAU2 = flags.DEFINE_string("tau2", "", "The command of tau2-bench.")
_DIR = flags.DEFINE_string("dir", "", "Where logs and reports go.")
_COUNT = flags.DEFINE_integer("count", 8, "Conversations of each family.")
_MORE = flags.DEFINE_multi_string(
  "evaluate_flag",
  ["--config=experiments/interaction.py:interactive"],
  "More flags of evaluate.",
)
_AGENTS = flags.DEFINE_list(
  "agents",
  ["recorded", "silent", "blink_1_2", "random", "echo"],
  "Without a model.",
)


@dataclasses.dataclass(frozen=True)
class Pair:
  """A row of both panels.

  Attributes:
    ours: name of our row.
    theirs: of tau2-bench's.
    count: its number of events, by its name.
    title: of the row.
    digits: after the point.
    factor: of theirs, to have our unit.
  """

  ours: str
  theirs: str
  count: str
  title: str
  digits: int = 0
  factor: float = 100.0


PAIRS = (
  Pair("responded", "response_rate", "response_total", "turns answered, %"),
  Pair(
    "latency_p50",
    "response_latency_mean",
    "response_total",
    "response latency, s (ours median, theirs mean)",
    digits=2,
    factor=1.0,
  ),
  Pair("yielded", "yield_rate", "yield_total", "yields, %"),
  Pair(
    "selectivity_backchannel",
    "selectivity_backchannel",
    "backchannel_total",
    "unmoved by backchannels, %",
  ),
  Pair(
    "selectivity_vocal_tic",
    "selectivity_vocal_tic",
    "vocal_tic_total",
    "unmoved by vocal tics, %",
  ),
  Pair(
    "selectivity_side_talk",
    "selectivity_non_directed",
    "non_directed_total",
    "unmoved by side talk, %",
  ),
)


def ours(agent: str, *, directory: pathlib.Path) -> dict:
  """The rows of `evaluate --agent`, whose logs land beside its report."""
  report = directory / f"{agent}.json"
  if not report.exists():
    subprocess.run(
      [
        *(sys.executable, "-m", "tml_jax.evaluate", f"--agent={agent}"),
        *(f"--data_dir={config_flags.data_dir()}", *_MORE.value),
        *(f"--count={_COUNT.value}", f"--json={report}"),
      ],
      check=True,
      stdout=subprocess.DEVNULL,
    )
  return json.loads(report.read_text())["agents"][agent]["rows"]


def theirs(agent: str, *, directory: pathlib.Path) -> dict:
  """tau2-bench's panel of all families together.

  As one domain: it refuses a domain in which nothing happens, as where an agent
  is silent and the user does not speak twice.
  """
  out = directory / f"{agent}.tau2"
  shutil.rmtree(out, ignore_errors=True)
  tau2.export(directory / agent / "ticks", out)
  first, *others = sorted(out.iterdir())
  for family in others:
    for path in (family / "simulations").iterdir():
      path.rename(first / "simulations" / path.name)
    shutil.rmtree(family)
  report = directory / f"{agent}.tau2.json"
  subprocess.run(
    [
      *(_TAU2.value, "submit", "interaction-metrics", str(out)),
      *("--output", str(report)),
    ],
    check=True,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  (found,) = json.loads(report.read_text())["domains"].values()
  return found


def table(found: dict[str, tuple[dict, dict]]) -> list[str]:
  """Ours and theirs of each agent."""
  lines = [
    "| | panel | "
    + " | ".join(f"`{agent}`" for agent in found)
    + " | events |",
    "|---|---|" + "--:|" * (len(found) + 1),
  ]
  for pair in PAIRS:
    mine, other, events = [], [], []
    for rows, outside in found.values():
      row = rows.get(pair.ours)
      mine.append(_cell(row["value"] if row else None, pair))
      other.append(_cell(outside[pair.theirs], pair))
      count = outside["counts"][pair.count]
      events.append((row["events"] if row else 0, count))
    for name, cells, k in (("ours", mine, 0), ("tau2-bench", other, 1)):
      counts = sorted({each[k] for each in events})
      span = f"{counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
      lines.append(
        f"| {pair.title} | {name} | " + " | ".join(cells) + f" | {span} |"
      )
  return lines


def _cell(value: float | None, pair: Pair) -> str:
  return "-" if value is None else f"{pair.factor * value:.{pair.digits}f}"


def main(argv: list[str]) -> None:
  del argv
  for flag in (_TAU2, _DIR):
    if not flag.value:
      sys.exit(f"--{flag.name} is missing")
  directory = pathlib.Path(_DIR.value)
  directory.mkdir(parents=True, exist_ok=True)
  found = {}
  for agent in _AGENTS.value:
    rows = ours(agent, directory=directory)
    found[agent] = rows, theirs(agent, directory=directory)
    print(agent, flush=True)
  lines = [
    "# Our panel beside that of tau2-bench",
    "",
    timing.made(),
    "",
    f"`python -m benchmarks.outside_panel`: {_COUNT.value} held-out"
    " conversations of each family, held by agents without a model, scored by"
    " our code and by `tau2 submit interaction-metrics` of tau2-bench on the"
    " same tick logs, all families as one domain. What the differences come"
    " from: [docs/panel.md](../docs/panel.md#outside-judges).",
    "",
    *table(found),
  ]
  text = "\n".join(lines) + "\n"
  path = pathlib.Path(__file__).with_suffix(".md")
  path.write_text(text, encoding="utf-8")
  print(text)


if __name__ == "__main__":
  app.run(main)
