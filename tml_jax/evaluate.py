"""Evaluation: `python -m tml_jax.evaluate --workdir=RUN --data_dir=DIR`.

For: the interactivity panel of a trained run on conversations it never saw,
beside agents without a model. Not for: listening to it (`sample`).
Definitions are in `evals/metrics`; the config is the run's own. Prints a
table, writes FILE.json and FILE.html, and a tick log of every conversation,
FILE/ticks/FAMILY/ID.jsonl: an evaluation that was cut goes on from these when
it is started again. FILE is WORKDIR/evaluation.
--agent=NAME with one of `evals.agents.AGENTS` needs no run: its conversations
are held at once, and written where --json says.
--conditions=voices,pauses,rates,noise holds the held-out conversations again
with users unlike those of training, a row each; their tick logs are in
FILE/conditions/NAME.
--sweep=FIELD=VALUE,VALUE meets the users with each setting and names the best;
--tuned=FILE uses it (docs/panel.md).
--suite=fdb --fdb_root=DIR is Full-Duplex-Bench (docs/full_duplex_bench.md).
"""

import functools
import hashlib
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from absl import flags

from tml_jax import errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config, Detector, SemanticEnd, Start
from tml_jax.config import flags as config_flags
from tml_jax.config import text as config_text
from tml_jax.evals import agents, conditions
from tml_jax.evals.report import Report
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
_CONDITIONS = flags.DEFINE_list(
  "conditions",
  [],
  "Also hold the same conversations with users unlike those of training:"
  f" {', '.join(conditions.KINDS)}, or {conditions.ALL}. voices and noise need"
  " `prepare --unheard`.",
)
_NOISE_FOLDER = flags.DEFINE_string(
  "noise_folder",
  "",
  "Files of sound for --conditions=noise; pink noise and babble if not given.",
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
# Of --agent=turns; what is not given is as in the config of the run.
_HARNESS = {
  "vad": flags.DEFINE_enum(
    "vad",
    None,
    [*Detector],
    "Detector of speech, for --agent=turns; if not given, turns.vad of the"
    " run, as those below.",
  ),
  "endpoint_s": flags.DEFINE_float(
    "endpoint", None, "Seconds without speech that end a turn."
  ),
  "semantic_end": flags.DEFINE_enum(
    "semantic_end",
    None,
    [*SemanticEnd],
    "model: it is asked every 200 ms while silence lasts, and `<quiet>` means"
    " not yet; off: once.",
  ),
  "maximum_silence_s": flags.DEFINE_float(
    "maximum_silence", None, "Seconds of silence in which it is asked."
  ),
  "minimum_interruption_s": flags.DEFINE_float(
    "minimum_interruption",
    None,
    "Seconds of speech that interrupt the agent.",
  ),
  "resume_after_false_s": flags.DEFINE_float(
    "resume_after_false",
    None,
    "Seconds of silence after an interruption, in which the model says nothing,"
    " until it goes on where it was cut; 0: it never does.",
  ),
  "start": flags.DEFINE_enum(
    "start",
    None,
    [*Start],
    "When a reply begins to be made: speculative, in the first silence; at_end,"
    " when the turn is over.",
  ),
}
_SWEEP = flags.DEFINE_multi_string(
  "sweep",
  [],
  "FIELD=VALUE,VALUE,... of config.turns or config.sample; several make a grid."
  " The users are met with each, and the best is named in WORKDIR/sweep.json,"
  " or --json: on --split=dev to choose it (--tuned). A picture beside it shows"
  " what is traded.",
)
_BY = flags.DEFINE_string(
  "by",
  "summary_score",
  "Row of the panel by which --sweep chooses; of equal ones the lower median"
  " response latency, then the first.",
)
_BESIDE = flags.DEFINE_list(
  "beside", [], "Files of other sweeps that its picture shows, too."
)
_TUNED = flags.DEFINE_string(
  "tuned",
  "",
  "File of a sweep on dev: what it chose is used, but for what other flags"
  " give.",
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
  if _SWEEP.value or _TUNED.value:
    raise errors.UserError(
      f"--agent={name} has no settings: --sweep and --tuned are for models"
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
  others = _conditions(config, data_dir=data_dir)

  def hold(suite: suites.Suite, *, below: str) -> Report:
    def keep(family: str, log: ticks.Log) -> None:
      if output is not None:
        folder = output.with_suffix("") / below / workdir_lib.TICKS / family
        ticks.write(log, folder / f"{log.id.replace('/', '-')}.jsonl")

    return without_model.evaluate(suite, name=name, keep=keep)

  report = hold(suite, below="")
  _write(
    report,
    rows=_rows(report, others, hold=hold),
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
  name = workdir_lib.SWEEP if _SWEEP.value else workdir_lib.EVALUATION
  output = _check_output(config_flags.JSON.value or f"{workdir}/{name}")
  from tml_jax.evals import suites
  from tml_jax.streams import tokenizer as tokenizer_lib

  suites.check_name(_SUITE.value)
  tokenizer_file = run_tokenizer.of_run(
    workdir, given=config_flags.TOKENIZER.value, data_dir=data_dir
  )
  tokenizer = tokenizer_lib.load(tokenizer_file, config=config.streams)
  suite = _suite(config, data_dir=data_dir, tokenizer_file=tokenizer_file)
  others = _conditions(config, data_dir=data_dir)
  if _SWEEP.value and others:
    raise errors.UserError(
      f"--sweep={_SWEEP.value[0]} chooses on plain users: leave --conditions"
      " for the evaluation that follows"
    )
  # jax starts here: bad input has been refused by now.
  from tml_jax.evals import kept, run

  config = _with_settings(config)
  how, connect = _agent(config)
  load = functools.partial(
    trained.load, path=workdir, data_dir=data_dir, tokenizer_file=tokenizer_file
  )
  provenance = {
    "run": workdir_lib.start_ids(workdir)[:1],
    "tokenizer": tokenizer_lib.digest(tokenizer_file),
    "users": str(suite.users),
  }
  if _SWEEP.value:
    _sweep(
      config,
      suite=suite,
      output=output,
      load=load,
      tokenizer=tokenizer,
      provenance=provenance,
    )
    return
  agent = load(config)

  def hold(suite: suites.Suite, *, below: str) -> Report:
    return run.evaluate(
      suite,
      config=config,
      model=agent.model,
      variables=agent.variables,
      tokenizer=tokenizer,
      agent=connect,
      kept=kept.Kept(
        output.with_suffix("") / below,
        provenance=provenance
        | {"config": _digest(config), "step": agent.step, "agent": how},
      ),
    )

  report = hold(suite, below="")
  _write(
    report,
    rows=_rows(report, others, hold=hold),
    suite=suite,
    output=output,
    start=start,
    title=f"{config.name}, step {agent.step}, {how}, {_SUITE.value}",
    source={"config": config.name, "step": agent.step, "agent": how},
  )


def _conditions(config: Config, *, data_dir: str) -> dict[str, Any]:
  """A suite for each of --conditions, by name; checked."""
  from tml_jax.data import splits
  from tml_jax.evals import suites

  chosen = conditions.chosen(_CONDITIONS.value)
  if chosen and _SUITE.value == "fdb":
    raise errors.UserError(
      "--conditions change scenarios, which --suite=fdb has none of: leave one"
      " out"
    )
  if _NOISE_FOLDER.value and "noise" not in {c.kind for c in chosen}:
    raise errors.UserError(
      f"--noise_folder={_NOISE_FOLDER.value} is for --conditions=noise: add"
      " that, or leave this out"
    )
  return {
    condition.name: suites.Interactivity(
      config,
      data_dir=data_dir,
      split=splits.Split(_SPLIT.value),
      count=_COUNT.value,
      families=tuple(_FAMILIES.value),
      users=Users(_USERS.value),
      condition=conditions.opened(
        condition,
        config=config,
        data_dir=data_dir,
        noise_folder=_NOISE_FOLDER.value,
      ),
    )
    for condition in chosen
  }


def _rows(
  plain: Report, others: dict[str, Any], *, hold: Callable[..., Report]
) -> dict[str, Any]:
  """The row of each condition, see `conditions.row`; `hold` evaluates one.

  Where there are some, that of the plain suite comes first.
  """
  if not others:
    return {}
  return {conditions.PLAIN: conditions.row(plain, plain=plain)} | {
    name: conditions.row(
      hold(suite, below=f"{workdir_lib.CONDITIONS}/{name}"), plain=plain
    )
    for name, suite in others.items()
  }


def _write(
  report,
  *,
  rows: dict[str, Any],
  suite,
  output: pathlib.Path | None,
  start: float,
  title: str,
  source: dict[str, Any],
) -> None:
  """Prints the tables of a `report.Report`; writes `output` and its page.

  `rows` are those of conditions.
  """
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
    **({"conditions": rows} if rows else {}),
  }
  wrote = ""
  if output is not None:
    text = json.dumps(as_json.without_nan(numbers), indent=1, allow_nan=False)
    files.write_atomically(output, content=text + "\n")
    page = output.with_suffix(".html")
    files.write_atomically(
      page, content=show.html(report, title=title, conditions=rows)
    )
    wrote = (
      f"wrote {output}, {page} and {output.with_suffix('')}/{workdir_lib.TICKS}"
    )
  # What can fail, as where nobody reads it, comes after what took the time.
  for family in (*report.families, panel.ALL):
    if family != panel.ALL or len(report.families) > 1:
      print(show.table(report, family) + "\n")
  if rows:
    print(conditions.text(rows) + "\n")
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

  name = _model_agent(config)
  if name == "duplex":
    return name, lambda config: user.Recorded
  turn_based.connect(config)  # refuses what cannot be, before anything starts
  return turn_based.describe(config.turns), turn_based.connect


def _with_settings(config: Config) -> Config:
  """The config with what --tuned and the flags of the harness give."""
  changes = {}
  if _TUNED.value:
    from tml_jax.evals import sweep

    changes = sweep.tuned(_TUNED.value)
  changes |= {
    f"turns.{field}": flag.value
    for field, flag in _HARNESS.items()
    if flag.value is not None
  }
  _refuse_harness(changes, config=config)
  return config_text.with_fields(config, changes)


def _refuse_harness(changes: Iterable[str], *, config: Config) -> None:
  """Settings of a harness have no meaning without one."""
  name = _model_agent(config)
  for path in changes:
    if path.startswith("turns.") and name != "turns":
      raise errors.UserError(
        f"{path} with --agent={name}: it is a setting of the harness; give"
        " --agent=turns, or leave it out"
      )


def _sweep(
  config: Config,
  *,
  suite,
  output: pathlib.Path,
  load: Callable[[Config], trained.Trained],
  tokenizer,
  provenance: dict[str, Any],
) -> None:
  """Meets the users with each setting; writes the table and the choice."""
  from tml_jax.evals import as_json, sweep, sweep_picture
  from tml_jax.evals.metrics import statistics

  start = time.monotonic()
  sweep.check_by(_BY.value)
  beside = [
    sweep.read(files.path(path), flag="beside") for path in _BESIDE.value
  ]
  points = sweep.points(config, grid=_SWEEP.value)
  _refuse_harness(points[0].changes, config=config)
  agent, found = load(config), []
  for point in points:
    how, connect = _agent(point.config)
    of = {"config": _digest(point.config), "step": agent.step, "agent": how}
    series = sweep.hold(
      suite,
      config=point.config,
      program=sweep.program_of(point, run_config=config),
      connect=connect(point.config),
      model=agent.model,
      variables=agent.variables,
      tokenizer=tokenizer,
      kept=sweep.kept_at(
        output.with_suffix(""), point, provenance=provenance | of
      ),
    )
    found.append(statistics.summarise(series, metrics=suite.metrics))
  best = sweep.choose(found, by=_BY.value)
  numbers = {
    **{
      "config": config.name,
      "step": agent.step,
      "agent": _model_agent(config),
    },
    "git": workdir_lib.git_hash(),
    "suite": _SUITE.value,
    **({"split": "", "count": 0} | _asked()),
    "by": _BY.value,
    "points": [
      {"changes": dict(point.changes), "rows": as_json.rows(values)}
      for point, values in zip(points, found, strict=True)
    ],
    "choice": dict(points[best].changes),
  }
  numbers = as_json.without_nan(numbers)
  text = json.dumps(numbers, indent=1, allow_nan=False)
  files.write_atomically(output, content=text + "\n")
  picture = output.with_suffix(".png")
  sweep_picture.draw(
    [sweep_picture.Arm.of(each) for each in (numbers, *beside)], path=picture
  )
  print(sweep.table(found, names=[p.name for p in points], best=best))
  print(f"* best {_BY.value}; all took {time.monotonic() - start:.0f} s")
  print(f"wrote {output} and {picture}")


def _model_agent(config: Config) -> str:
  """--agent, where that is `trained` what it stands for."""
  name = _AGENT.value
  return str(config.data.layout) if name == "trained" else name


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
  output = files.path(path)
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
