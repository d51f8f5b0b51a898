"""Ablations: `python -m tml_jax.ablate --rows=A,B --out=DIR --data_dir=DATA`.

For: all rows of an experiment file, trained and evaluated one after the other
for every seed, and the table of them. Not for: one row (`train`, `evaluate`).
Start reading at `main`. A row is trained by `train` into DIR/ROW/seed_S and
evaluated by `evaluate --json` there. The same command goes on where it was
stopped: an evaluation that is there, by the same flags and with its archive, is
kept; a cut run continues from its last checkpoint. Rows are compared to choose:
on the dev split, where the base has one; --evaluate_flag=--split=heldout is for
a table that nothing is chosen by. --config=FILE.py names other rows
(experiments/scaling.py); --config.SECTION.FIELD=VALUE changes a field of all of
them.
"""

import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import tqdm
from absl import flags

from tml_jax import errors, files, plugins
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.config import text as config_text
from tml_jax.evals import ablation, archive, curve

_ROWS = flags.DEFINE_list("rows", [], "Names of rows, A,B,C; `all` = all.")
_SEEDS = flags.DEFINE_integer(
  "seeds", 3, "Runs of each row, with train.seed = 0, 1, ...", lower_bound=1
)
_STEPS = flags.DEFINE_integer(
  "steps", 0, "Steps of every run; 0 = train.steps of the row.", lower_bound=0
)
_METRICS = flags.DEFINE_list(
  "metrics",
  [
    "responded",
    "latency_p50",
    "yielded",
    "selectivity_backchannel",
    "false_fires",
    "timed_hit_0.4",
    "text_accuracy",
    "mel_db",
  ],
  "Metrics of `evaluate --json` to tabulate.",
)
_FAMILY = flags.DEFINE_string(
  "family", "all", "Scenario family to tabulate; all = together."
)
_EVALUATE_FLAG = flags.DEFINE_multi_string(
  "evaluate_flag", [], "A flag for `evaluate`, for instance --count=16; repeat."
)
_PRINT_COMMANDS = flags.DEFINE_bool(
  "print_commands", False, "Print one command a run and seed, and stop."
)
_RUN = flags.DEFINE_bool(
  "run", True, "Run what is missing; --norun makes the table of what is there."
)
_FIGURE = flags.DEFINE_enum(
  "figure",
  "rows",
  ["rows", "scaling"],
  "table.png: metrics by row, or by active parameters and by tokens seen.",
)


@dataclasses.dataclass(frozen=True)
class Job:
  """One run to train, and the rows that are evaluated with it."""

  run: str
  seed: int
  config: Config
  train: list[str]
  evaluate: dict[str, list[str]]  # command by row
  workdir: pathlib.Path

  @property
  def title(self) -> str:
    return f"{self.run} seed {self.seed}"

  @property
  def is_trained(self) -> bool:
    steps = self.config.train.steps
    return (self.workdir / workdir_lib.CHECKPOINTS / str(steps)).is_dir()


def result_file(out: pathlib.Path, *, row: str, seed: int) -> pathlib.Path:
  return out / row / f"seed_{seed}" / workdir_lib.EVALUATION


def main(base: Config) -> None:
  del base  # --config names the file of the rows
  file = config_flags.experiment_file()
  rows, get_config = rows_of(file)
  names = chosen(rows)
  out = pathlib.Path(config_flags.OUT.value)
  if not config_flags.OUT.value:
    raise errors.UserError("--out is missing: name a directory to write")
  data_dir = config_flags.data_dir()
  jobs = plan(
    rows, names, file=file, get_config=get_config, out=out, data_dir=data_dir
  )
  if _PRINT_COMMANDS.value:
    for job in jobs:
      commands = [job.train, *job.evaluate.values()]
      print(" && ".join(map(shlex.join, commands)))
    return
  files.make(out, what=f"--out={out}")
  for job in jobs:
    if (job.workdir / workdir_lib.CONFIG).exists():
      old = workdir_lib.load_config(str(job.workdir))
      workdir_lib.check_resume(old, new=job.config, source=str(job.workdir))
  with Runner(out) as runner:
    tabulate = _Tabulate(rows, names, jobs, file=file, out=out)
    wanted = jobs if _RUN.value else []
    failures = run_all(wanted, runner=runner, after_each=tabulate.text)
    tabulate.picture()
  print((out / "table.md").read_text(encoding="utf-8"))
  if failures:
    print("\n".join(["failed:", *failures]), file=sys.stderr)
    sys.exit(errors.Status.FAILED)


def rows_of(file: str):
  """`ROWS` and `get_config` of an experiment file."""
  module = config_flags.load_module(file)
  if not hasattr(module, "ROWS"):
    raise errors.UserError(
      f"--config={file} has no ROWS: name experiments/ablations.py, or a file"
      " like it"
    )
  return module.ROWS, module.get_config


def chosen(rows: Mapping[str, ablation.Row]) -> list[str]:
  """The rows of --rows, each once, in the order of the file."""
  metrics = list(ablation.known_metrics())
  for name in _METRICS.value:
    if name not in metrics:
      nearest = config_flags.nearest(name, names=metrics)
      raise errors.UserError(
        f"--metrics: there is no {name!r}; the nearest is {nearest}"
      )
  if not _ROWS.value:
    raise errors.UserError(f"--rows is missing: all, or some of {_list(rows)}")
  if _ROWS.value == ["all"]:
    return list(rows)
  for name in _ROWS.value:
    if name not in rows:
      nearest = config_flags.nearest(name, names=list(rows))
      raise errors.UserError(
        f"--rows: there is no row {name!r}; the nearest is {nearest}; all are"
        f" {_list(rows)}"
      )
  return [name for name in rows if name in _ROWS.value]


def _list(rows) -> str:
  return ", ".join(rows)


def plan(rows, names, *, file, get_config, out, data_dir) -> list[Job]:
  """All runs, the first seed of every one first.

  Raises:
    errors.UserError: an override that a row cannot have.
  """
  overrides = config_flags.overrides()
  if "train.seed" in overrides:
    raise errors.UserError(
      "--config.train.seed is set by --seeds: leave it out"
    )
  if _STEPS.value:
    overrides["train.steps"] = _STEPS.value
  for name in names:
    for path in rows[name].changes.keys() & overrides.keys():
      raise errors.UserError(
        f"--config.{path} is what the row {name} changes: leave out one"
      )
  runs: dict[str, list[str]] = {}
  for name in names:
    runs.setdefault(rows[name].run or name, []).append(name)
  python, result = [sys.executable, "-m"], []
  for seed in range(_SEEDS.value):
    for run, evaluated in runs.items():
      changes = overrides | {"train.seed": seed}
      config = config_text.with_fields(get_config(run), changes)
      workdir = out / run / f"seed_{seed}"
      places = [f"--workdir={workdir}", f"--data_dir={data_dir}"]
      if config_flags.TOKENIZER.value:
        places.append(f"--tokenizer={config_flags.TOKENIZER.value}")
      places += plugins.as_flags()
      evaluate = {}
      for row in evaluated:
        own = rows[row].changes if rows[row].run else {}
        evaluate[row] = [
          *[*python, "tml_jax.evaluate", *places],
          f"--json={result_file(out, row=row, seed=seed)}",
          f"--split={split_of(config)}",
          *(config_text.as_flag(path, value) for path, value in own.items()),
          *rows[row].evaluate,
          *_EVALUATE_FLAG.value,
        ]
      result.append(
        Job(
          run=run,
          seed=seed,
          config=config,
          train=[
            *[*python, "tml_jax.train", f"--config={file}:{run}", *places],
            *(config_text.as_flag(p, value) for p, value in changes.items()),
          ],
          evaluate=evaluate,
          workdir=workdir,
        )
      )
  return result


def split_of(config: Config) -> str:
  """The split that a row is evaluated on."""
  for flag in reversed(_EVALUATE_FLAG.value):
    if flag.startswith("--split="):
      return flag.partition("=")[2]
  return "dev" if config.data.dev_share else "heldout"


class Runner:
  """Runs commands one at a time; ends the one that runs when it is ended.

  Programs that have been compiled are kept in OUT/compiled for the next seed.
  """

  def __init__(self, out: pathlib.Path):
    self._process: subprocess.Popen | None = None
    self.stopped = False
    cache = str((out / "compiled").absolute())
    self._environment = {
      "JAX_COMPILATION_CACHE_DIR": cache,
      # Large buffers on huge pages, where glibc can: a sixth of a CPU's step.
      "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    } | os.environ

  def __enter__(self) -> "Runner":
    self._before = signal.signal(signal.SIGTERM, self._stop)
    return self

  def __exit__(self, *_) -> None:
    signal.signal(signal.SIGTERM, self._before)
    if self._process is not None and self._process.poll() is None:
      self._process.terminate()  # training saves its state
      self._process.wait()

  def _stop(self, *_) -> None:
    self.stopped = True
    if self._process is not None:
      self._process.terminate()

  def run(self, command: list[str], *, log: pathlib.Path, progress) -> str:
    """Runs to the end; returns what went wrong, or "".

    `progress` is called about twice a second.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
      self._process = subprocess.Popen(
        command, stdout=file, stderr=file, env=self._environment
      )
    while self._process.poll() is None:
      try:
        self._process.wait(timeout=0.5)
      except subprocess.TimeoutExpired:
        progress()
    status = self._process.returncode
    if not status:
      return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"exit status {status}: {lines[-1] if lines else ''} ({log})"


def run_all(jobs: list[Job], *, runner: Runner, after_each) -> list[str]:
  """Trains and evaluates what is not there yet; returns what failed."""
  failures, start, done = [], time.monotonic(), 0
  for number, job in enumerate(jobs, start=1):
    missing = {
      row: command
      for row, command in job.evaluate.items()
      if not _is_evaluated(job, command)
    }
    if not missing:
      continue
    where = f"[{number}/{len(jobs)}] {job.title}"
    of_training = "" if job.is_trained else _train(job, runner, title=where)
    for row, command in missing.items():
      problem = of_training
      if not problem and not runner.stopped:
        print(f"{where}: evaluates {row}", file=sys.stderr, flush=True)
        log = pathlib.Path(_json_of(command)).with_suffix(".log")
        problem = runner.run(command, log=log, progress=lambda: None)
      if problem and not runner.stopped:
        failures.append(f"{row} seed {job.seed}: {problem}")
        print(failures[-1], file=sys.stderr, flush=True)
    if runner.stopped:
      print("stopped; the same command goes on", file=sys.stderr)
      sys.exit(errors.Status.STOPPED)
    done += 1
    after_each()
    left = (time.monotonic() - start) / done * (len(jobs) - number) / 3600
    print(f"{where}: over; at most {left:.1f} h left", file=sys.stderr)
  return failures


def _json_of(command: list[str]) -> str:
  return next(x for x in command if x.startswith("--json=")).split("=", 1)[1]


def _is_evaluated(job: Job, command: list[str]) -> bool:
  """Whether the numbers are there, of weights that have all their steps.

  With their archive, and as the command would make them: other users, another
  --count or other flags of the row are other numbers.
  """
  path = pathlib.Path(_json_of(command))
  if not path.exists():
    return False
  found, settings = ablation.read(path), _settings(command)
  head = archive.beside(path)
  return (
    (found.step, found.split) == (job.config.train.steps, settings["split"])
    and head is not None
    and _settings(shlex.split(head.command)) == settings
  )


# Flags of `evaluate` that say where something is; not what is evaluated.
_PLACES = ("config", "workdir", "data_dir", "tokenizer", "plugins", "json")


def _settings(command: list[str]) -> dict[str, str]:
  """Flags of a command by name, the last of each, but for places."""
  found = {}
  for argument in command:
    if argument.startswith("--"):
      name, _, value = argument.removeprefix("--").partition("=")
      found[name] = value
  return {n: value for n, value in found.items() if n not in _PLACES}


def _train(job: Job, runner: Runner, *, title: str) -> str:
  """Trains with a bar of the steps; returns what went wrong, or ""."""
  steps = job.config.train.steps
  with tqdm.tqdm(total=steps, desc=f"{title}: trains", unit="step") as bar:

    def progress():
      done = curve.last_step(job.workdir)
      if done != bar.n:  # a line in a log for each update
        bar.update(done - bar.n)

    problem = runner.run(
      job.train, log=job.workdir / workdir_lib.TRAIN_LOG, progress=progress
    )
    progress()
  if not problem and not job.is_trained:
    return f"stopped after step {curve.last_step(job.workdir)} of {steps}"
  return problem


def _all(values: Iterable[Any]) -> str:
  """Each value once; `unknown` for what old files do not say."""
  names = {"unknown" if v in (None, "") else str(v) for v in values}
  return ", ".join(sorted(names))


class _Tabulate:
  """Writes table.md, table.csv and table.png of what is there."""

  def __init__(self, rows, names, jobs, *, file: str, out: pathlib.Path):
    self._rows = {name: rows[name] for name in names}
    self._jobs, self._file, self._out = jobs, file, out

  def _table(self) -> ablation.Table:
    seeds = range(_SEEDS.value)
    return ablation.collect(
      {
        row: {s: result_file(self._out, row=row, seed=s) for s in seeds}
        for row in self._rows
      },
      family=_FAMILY.value,
      metrics=_METRICS.value,
    )

  def text(self) -> ablation.Table:
    table = self._table()
    gits = sorted(
      {workdir_lib.short_hash(result.git) for result in table.results}
    )
    steps = sorted({result.step for result in table.results})
    about = [
      f"Rows of `{self._file}`; mean ± standard deviation over seeds, family"
      f" `{_FAMILY.value}`.",
      f"Split: {', '.join(sorted({r.split for r in table.results}))}."
      f" Conversations of a family: {_all(r.count for r in table.results)}."
      f" Users: {_all(r.users for r in table.results)}. Code:"
      f" {', '.join(gits)}. Steps: {', '.join(map(str, steps))}. Configs:"
      f" {', '.join(sorted({r.config for r in table.results}))}.",
    ]
    for name, text in (
      ("table.md", ablation.markdown(table, rows=self._rows, about=about)),
      ("table.csv", ablation.comma_separated(table, rows=self._rows)),
    ):
      files.write_atomically(self._out / name, content=text)
    return table

  def picture(self) -> None:
    from tml_jax.evals import ablation_picture

    table, path = self.text(), self._out / "table.png"
    if _FIGURE.value == "rows":
      ablation_picture.rows(table, path=path)
      return
    # jax starts here, to count.
    from tml_jax import inspect

    runs = {}
    for job in self._jobs:
      if (job.workdir / workdir_lib.METRICS).exists():
        counted = inspect.parameter_rows(job.config)[-1]
        run = runs.setdefault(
          job.run, ablation_picture.Scale(counted.active, [])
        )
        run.curves.append(curve.read(job.workdir, metrics=_METRICS.value))
    ablation_picture.scaling(table, scales=runs, path=path)


if __name__ == "__main__":
  config_flags.run(main, default="experiments/ablations.py")
