"""Evaluation: `python -m tml_jax.evaluate --workdir=RUN --data_dir=DIR`.

For: the interactivity panel of a trained run on conversations it never saw,
beside agents without a model. Not for: listening to it (`sample`).
Definitions are in `evals/metrics`; the config is the run's own. Prints a
table, writes FILE.json and FILE.html, and a tick log of every conversation,
FILE/ticks/FAMILY/ID.jsonl: an evaluation that was cut goes on from these when
it is started again. FILE is WORKDIR/evaluation.
--agent=NAME with one of `evals.agents.AGENTS` needs no run: its conversations
are held at once, and written where --json says.
--suite=fdb --fdb_root=DIR is Full-Duplex-Bench (docs/full_duplex_bench.md).
"""

import functools
import hashlib
import json
import pathlib
import sys
import time
from typing import Any

import numpy as np
from absl import flags

from tml_jax import errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.config import text as config_text
from tml_jax.evals import agents
from tml_jax.live.reacting import Users
from tml_jax.streams import clock
from tml_jax.training import run_tokenizer, trained

_SUITE = flags.DEFINE_string("suite", "interactivity", "What to evaluate.")
_FAMILIES = flags.DEFINE_list(
  "families",
  [],
  "Scenario families, those of data.mixture if not given; of fdb its tasks, all"
  " that are there if not given.",
)
_COUNT = flags.DEFINE_integer(
  "count",
  64,
  "Conversations of each family; of fdb all if not given.",
  lower_bound=1,
)
_USERS = flags.DEFINE_enum(
  "users",
  str(Users.REACTING),
  [*map(str, Users)],
  "reacting: the users of scenarios wait for the agent, ask again, interrupt"
  " again, give up (docs/panel.md); scripted: everything comes when it was"
  " planned, whatever the agent does.",
)
_FDB_ROOT = flags.DEFINE_string(
  "fdb_root",
  "",
  "Full-Duplex-Bench for --suite=fdb. Every output.wav and output.json goes"
  " beside its input.wav, or below --out in the same folders.",
)
_SPLIT = flags.DEFINE_enum(
  "split",
  "heldout",
  ["heldout", "dev", "fresh"],
  "heldout: utterances never trained on, for the table; dev: others never"
  " trained on, for every choice (data.dev_share); fresh: those of training, in"
  " new conversations.",
)
_MODELS = ("trained", "duplex", "turns")  # of --agent: with a run
_AGENT = flags.DEFINE_enum(
  "agent",
  "trained",
  [*_MODELS, *agents.AGENTS],
  "How the model meets its user. duplex: it hears and answers every window;"
  " turns: behind voice-activity detection, turn by turn; trained: as it was"
  " trained, config.data.layout. All others are agents without a model, which"
  " need no --workdir.",
)
_NO_RUN = "experiments/interaction.py:interactive"  # --config without a run
_VAD = flags.DEFINE_string(
  "vad", "energy", "Detector of --agent=turns: energy or silero."
)
_ENDPOINT = flags.DEFINE_float(
  "endpoint",
  0.5,
  "Seconds without speech that end a turn, for --agent=turns.",
  lower_bound=0.1,
)


def main(config: Config) -> None:
  if _AGENT.value in agents.AGENTS:
    _without_model(config)
  else:
    _of_run(config)


def _without_model(config: Config) -> None:
  """Holds the conversations of an agent without a model."""
  start, name = time.monotonic(), _AGENT.value
  if config_flags.WORKDIR.value:
    raise errors.UserError(
      f"--agent={name} has no model, and needs no --workdir: leave that out, or"
      " give --agent=trained"
    )
  data_dir = config_flags.data_dir() if _SUITE.value != "fdb" else ""
  path = config_flags.JSON.value
  output = _check_output(path) if path else None
  from tml_jax.evals import suites, without_model
  from tml_jax.logs import ticks

  suites.check_name(_SUITE.value)
  if _SUITE.value == "fdb":
    raise errors.UserError(
      f"--suite=fdb --agent={name}: agents without a model stand beside every"
      " model there; give a run, or leave --suite out"
    )
  suite = _suite(config, data_dir=data_dir)

  def keep(family: str, log: ticks.Log) -> None:
    if output is not None:
      folder = output.with_suffix("") / workdir_lib.TICKS / family
      ticks.write(log, folder / f"{log.id.replace('/', '-')}.jsonl")

  report = without_model.evaluate(suite, name=name, keep=keep)
  _write(
    report,
    suite=suite,
    output=output,
    start=start,
    title=f"{name}, an agent without a model, {_SUITE.value}",
    source={"config": config.name, "step": None, "agent": name},
  )


def _of_run(config: Config) -> None:
  """Holds the conversations of a run's model."""
  start = time.monotonic()
  workdir = config_flags.WORKDIR.value
  trained.check(workdir)
  data_dir = config_flags.data_dir()
  output = _check_output(
    config_flags.JSON.value or f"{workdir}/{workdir_lib.EVALUATION}"
  )
  from tml_jax.evals import suites
  from tml_jax.streams import tokenizer as tokenizer_lib

  suites.check_name(_SUITE.value)
  tokenizer_file = run_tokenizer.of_run(
    workdir, given=config_flags.TOKENIZER.value, data_dir=data_dir
  )
  tokenizer = tokenizer_lib.load(tokenizer_file, config=config.streams)
  suite = _suite(config, data_dir=data_dir, tokenizer_file=tokenizer_file)
  # jax starts here: bad input has been refused by now.
  from tml_jax.evals import kept, run

  how, connect = _agent(config)
  agent = trained.load(
    config, path=workdir, data_dir=data_dir, tokenizer_file=tokenizer_file
  )
  report = run.evaluate(
    suite,
    config=config,
    model=agent.model,
    variables=agent.variables,
    tokenizer=tokenizer,
    agent=connect,
    kept=kept.Kept(
      output.with_suffix(""),
      provenance={
        "run": workdir_lib.start_ids(workdir)[:1],
        "config": _digest(config),
        "step": agent.step,
        "agent": how,
        "tokenizer": tokenizer_lib.digest(tokenizer_file),
        "users": str(suite.users),
      },
    ),
  )
  _write(
    report,
    suite=suite,
    output=output,
    start=start,
    title=f"{config.name}, step {agent.step}, {how}, {_SUITE.value}",
    source={"config": config.name, "step": agent.step, "agent": how},
  )


def _write(
  report,
  *,
  suite,
  output: pathlib.Path | None,
  start: float,
  title: str,
  source: dict[str, Any],
) -> None:
  """Prints the tables of a `report.Report`; writes `output` and its page."""
  from tml_jax.evals import as_json, show
  from tml_jax.evals.metrics import panel

  asked = _asked()
  if "split" in asked:
    title += f": {asked['split']}, {asked['users']} users"
  numbers = {
    **source,
    "git": workdir_lib.git_hash(),
    "suite": _SUITE.value,
    **asked,
    **as_json.of(report, left_out=suite.left_out),
  }
  wrote = ""
  if output is not None:
    text = json.dumps(as_json.without_nan(numbers), indent=1, allow_nan=False)
    files.write_atomically(output, content=text + "\n")
    page = output.with_suffix(".html")
    files.write_atomically(page, content=show.html(report, title=title))
    wrote = (
      f"wrote {output}, {page} and {output.with_suffix('')}/{workdir_lib.TICKS}"
    )
  # What can fail, as where nobody reads it, comes after what took the time.
  for family in (*report.families, panel.ALL):
    if family != panel.ALL or len(report.families) > 1:
      print(show.table(report, family) + "\n")
  print(f"{title}; {len(report.scored)} conversations\n{show.NOTE}")
  for name, why in suite.left_out.items():
    print(errors.escaped(f"left out {name}: {why}"))
  print(_summary(report, seconds=time.monotonic() - start))
  if wrote:
    print(wrote)


def _agent(config: Config):
  """What --agent asks for, in words, and as a function for `run.evaluate`."""
  from tml_jax.evals import turn_based
  from tml_jax.live import user

  name = _AGENT.value
  if name == "trained":
    name = str(config.data.layout)
  if name == "duplex":
    return name, lambda config: user.Recorded
  options = {"vad": _VAD.value, "endpoint_seconds": _ENDPOINT.value}
  connect = functools.partial(turn_based.connect, **options)
  connect(config)  # refuses what cannot be, before anything starts
  return f"turns ({_VAD.value}, {_ENDPOINT.value:g} s)", connect


def _suite(config: Config, *, data_dir: str, tokenizer_file: str = ""):
  """What --suite names, checked."""
  from tml_jax.data import mixture, splits
  from tml_jax.evals import suites
  from tml_jax.evals.full_duplex_bench import suite as suite_lib
  from tml_jax.vocoder import griffin_lim

  families = tuple(_FAMILIES.value)
  if _SUITE.value == "fdb":
    return suite_lib.FullDuplexBench(
      _FDB_ROOT.value,
      out=config_flags.OUT.value,
      tasks=families,
      count=_COUNT.value if flags.FLAGS["count"].present else None,
      render=functools.partial(
        griffin_lim.render,
        grid=clock.of(config.streams),
        iterations=config.sample.griffin_lim_iterations,
        seed=0,
      ),
    )
  mixture.check(config, data_dir=data_dir, tokenizer_file=tokenizer_file)
  suite = suites.Interactivity(
    config,
    data_dir=data_dir,
    split=splits.Split(_SPLIT.value),
    count=_COUNT.value,
    families=families,
    users=Users(_USERS.value),
  )
  suites.check_annotations(suite.items())
  return suite


def _asked() -> dict[str, Any]:
  """The flags that say which conversations of a suite."""
  if _SUITE.value == "fdb":
    return {}
  return {
    "split": _SPLIT.value,
    "count": _COUNT.value,
    "users": _USERS.value,
  }


def _summary(report, *, seconds: float) -> str:
  """What was left out, what was there, how long it took."""
  lines = [
    f"{count} conversations of {family} have no annotations and were skipped"
    for family, count in report.skipped.items()
  ]
  if report.reused:
    lines.append(f"{report.reused} conversations were there from before")
  line = f"all took {seconds:.0f} s"
  if len(report.tick_seconds):
    from tml_jax.evals import run

    median = 1000 * np.median(report.tick_seconds)
    line = (
      f"a window of {run.SLOTS} sessions took {median:.0f} ms (median); {line}"
    )
  return "\n".join([*lines, line])


def _digest(config: Config) -> str:
  """Names the config."""
  text = config_text.to_text(config)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_output(path: str) -> pathlib.Path:
  """The JSON file, proved writable; everything else goes beside it."""
  output = pathlib.Path(path)
  if output.suffix != ".json" or output.is_dir():
    raise errors.UserError(f"--json={path}: name a file that ends with .json")
  files.check(
    output.parent,
    what=f"--json={path}: {output.parent}",
    fix="name a file in a directory that can",
  )
  return output


def _needs_run(argv: list[str]) -> bool:
  """Whether the command line asks for a model."""
  name = config_flags.value_of("agent", argv=argv)
  return name in ("", *_MODELS)  # another is refused by its flag


if __name__ == "__main__":
  if _needs_run(sys.argv):
    config_flags.run(main, config_from=config_flags.ConfigFrom.WORKDIR)
  else:
    config_flags.run(main, default=_NO_RUN)
