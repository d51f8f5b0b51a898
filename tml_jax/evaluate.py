"""Evaluation: `python -m tml_jax.evaluate --workdir=RUN --data_dir=DIR`.

For: the interactivity panel of a trained run on conversations it never saw,
beside agents without a model. Not for: listening to it (`sample`).
Definitions are in `evals/metrics`; the config is the run's own. Prints a
table, writes FILE.json and FILE.html; FILE.xz, from which all these numbers
follow without data or weights (`evals.archive`); and a tick log of every
conversation, FILE/ticks/FAMILY/NAME.jsonl (`kept.file_name` of its id): that of
a run, where it was cut, goes on from these when it is started again. FILE is
WORKDIR/evaluation.
--agent=NAME with one of `evals.agents.AGENTS` needs no run: its conversations
are held at once, and written where --json says.
--conditions=voices,pauses,rates,noise holds the held-out conversations again
with users unlike those of training, a row each; their tick logs are in
FILE/conditions/NAME.
--sweep=FIELD=VALUE,VALUE meets the users with each setting and names the best;
--tuned=FILE uses it (docs/panel.md).
--suite=fdb --fdb_root=DIR is Full-Duplex-Bench (docs/full_duplex_bench.md),
--suite=game_time --game_time_root=DIR is Game-Time (docs/game_time.md).
--words_from_sound=pocketsphinx --speech_quality=dnsmos listen to the sound of
the model, too (docs/panel.md).
"""

import functools
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from tml_jax import errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.config import text as config_text
from tml_jax.evals import agents, conditions, harness_flags, sweep_flags
from tml_jax.evals.full_duplex_bench import flags as fdb_flags
from tml_jax.evals.quality import Measure
from tml_jax.evals.report import Report
from tml_jax.live.reacting import Users
from tml_jax.training import run_tokenizer, trained

_SUITE = flags.DEFINE_string("suite", "interactivity", "What to evaluate.")
_FAMILIES = flags.DEFINE_list(
  "families",
  [],
  "Scenario families, those of data.mixture if not given; of fdb and game_time"
  " their tasks, all that are there if not given.",
)
_COUNT = flags.DEFINE_integer(
  "count",
  64,
  "Conversations of each family; of fdb and game_time all if not given.",
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
flags.adopt_module_key_flags(fdb_flags)
_GAME_TIME_ROOT = flags.DEFINE_string(
  "game_time_root",
  "",
  "Game-Time for --suite=game_time; outputs are written with --out alone.",
)
_OUTSIDE = ("fdb", "game_time")  # of --suite: clips of others
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
_AGENT = flags.DEFINE_enum(
  "agent",
  harness_flags.TRAINED,
  [*harness_flags.MODELS, *agents.AGENTS],
  "How the model meets its user. duplex: it hears and answers every window;"
  " turns: behind voice-activity detection, turn by turn; trained: as it was"
  " trained, config.data.layout. All others are agents without a model, which"
  " need no --workdir.",
)
_NO_RUN = "experiments/interaction.py:interactive"  # --config without a run
_WORDS_FROM_SOUND = flags.DEFINE_string(
  "words_from_sound",
  "",
  "Recogniser of --annotate, NAME or NAME:ARGUMENT, that writes down what the"
  " sound of the model says; not given, nobody does.",
)
_SPEECH_QUALITY = flags.DEFINE_enum(
  "speech_quality",
  "",
  ["", *Measure],
  "Marks for the sound of the model; needs pip install 'tml_jax[eval]'.",
)
# So `--help` shows theirs too.
flags.adopt_module_key_flags(harness_flags)
flags.adopt_module_key_flags(sweep_flags)


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
  if sweep_flags.SWEEP.value or harness_flags.TUNED.value:
    raise errors.UserError(
      f"--agent={name} has no settings: --sweep and --tuned are for models"
    )
  if _WORDS_FROM_SOUND.value or _SPEECH_QUALITY.value:
    raise errors.UserError(
      f"--agent={name} makes no sound: --words_from_sound and --speech_quality"
      " are for models"
    )
  data_dir = config_flags.data_dir() if _SUITE.value not in _OUTSIDE else ""
  path = config_flags.JSON.value
  output = _check_output(path) if path else None
  from tml_jax.evals import kept, suites, without_model
  from tml_jax.logs import ticks

  suites.check_name(_SUITE.value)
  if _SUITE.value in _OUTSIDE:
    raise errors.UserError(
      f"--suite={_SUITE.value} --agent={name}: agents without a model stand"
      " beside every model there; give a run, or leave --suite out"
    )
  suite = _suite(config, data_dir=data_dir)
  others = _conditions(config, data_dir=data_dir)

  def hold(suite: suites.Suite, *, below: str) -> Report:
    def keep(family: str, log: ticks.Log) -> None:
      if output is not None:
        folder = output.with_suffix("") / below
        path = kept.log_file(folder, family=family, identifier=log.id)
        ticks.write(log, path)

    return without_model.evaluate(suite, name=name, keep=keep)

  _finish(
    config,
    suite=suite,
    others=others,
    hold=hold,
    output=output,
    start=start,
    title=f"{name}, an agent without a model, {_SUITE.value}",
    source={"config": config.name, "step": None, "agent": name},
  )


def _of_run(config: Config) -> None:
  """Holds the conversations of a run's model."""
  start = time.monotonic()
  workdir = config_flags.WORKDIR.value
  if sweep_flags.SWEEP.value and _SUITE.value in _OUTSIDE:
    raise errors.UserError(
      f"--sweep={sweep_flags.SWEEP.value[0]} --suite={_SUITE.value}: settings"
      " are chosen on our own users; leave --suite out"
    )
  trained.check(workdir)
  data_dir = config_flags.data_dir()
  name = (
    workdir_lib.SWEEP if sweep_flags.SWEEP.value else workdir_lib.EVALUATION
  )
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
  suite = _heard(suite, config=config, output=output)
  if sweep_flags.SWEEP.value and others:
    raise errors.UserError(
      f"--sweep={sweep_flags.SWEEP.value[0]} chooses on plain users: leave"
      " --conditions for the evaluation that follows"
    )
  # jax starts here: bad input has been refused by now.
  from tml_jax.evals import kept, run

  name = harness_flags.agent_of(config, name=_AGENT.value)
  config = harness_flags.with_settings(config, agent=name)
  how, connect = harness_flags.connect(config, agent=name)
  load = functools.partial(
    trained.load, path=workdir, data_dir=data_dir, tokenizer_file=tokenizer_file
  )
  tuned = harness_flags.record()
  provenance = {
    "run": workdir_lib.start_ids(workdir)[:1],
    "tokenizer": tokenizer_lib.digest(tokenizer_file),
    "users": str(suite.users),
  }
  if sweep_flags.SWEEP.value:
    sweep_flags.run(
      config,
      suite=suite,
      output=output,
      load=load,
      tokenizer=tokenizer,
      agent=name,
      provenance=provenance,
      source=_asked() | tuned,
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
        | {
          "config": config_text.digest(config),
          "step": agent.step,
          "agent": how,
        },
      ),
    )

  _finish(
    config,
    suite=suite,
    others=others,
    hold=hold,
    output=output,
    start=start,
    title=f"{config.name}, step {agent.step}, {how}, {_SUITE.value}",
    source={"config": config.name, "step": agent.step, "agent": how} | tuned,
  )


def _heard(suite, *, config: Config, output: pathlib.Path):
  """The suite, with its sessions heard where flags ask for it."""
  from tml_jax.evals import from_sound
  from tml_jax.vocoder import griffin_lim

  measure = _SPEECH_QUALITY.value
  by = from_sound.By(
    _WORDS_FROM_SOUND.value, Measure(measure) if measure else None
  )
  if by == from_sound.By():
    return suite
  if sweep_flags.SWEEP.value:
    raise errors.UserError(
      "--sweep tries settings, whose sound nobody hears: leave"
      " --words_from_sound and --speech_quality to the evaluation that follows"
    )
  return from_sound.FromSound(
    suite,
    by=by,
    folder=output.with_suffix("") / from_sound.FOLDER,
    render=griffin_lim.of(config),
  )


def _conditions(config: Config, *, data_dir: str) -> dict[str, Any]:
  """A suite for each of --conditions, by name; checked."""
  from tml_jax.data import splits
  from tml_jax.evals import suites

  chosen = conditions.chosen(_CONDITIONS.value)
  if chosen and _SUITE.value in _OUTSIDE:
    raise errors.UserError(
      f"--conditions change scenarios, which --suite={_SUITE.value} has none"
      " of: leave one out"
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


def _finish(
  config: Config,
  *,
  suite,
  others: Mapping[str, Any],
  hold: Callable[..., Report],
  output: pathlib.Path | None,
  start: float,
  title: str,
  source: Mapping[str, Any],
) -> None:
  """Holds the plain suite and those of conditions; writes what came of it.

  `hold` evaluates one; `start` is when the command began.
  """
  from tml_jax.evals import archive, from_sound, written

  asked = _asked()
  if "users" in asked:
    title += f": {asked['split']}, {asked['users']} users"
  report = hold(suite, below="")
  parts = {conditions.PLAIN: archive.Part(report, left_out=suite.left_out)}
  for name, other in others.items():
    below = f"{workdir_lib.CONDITIONS}/{name}"
    parts[name] = archive.Part(hold(other, below=below))
  written.write(
    parts,
    config=config,
    source={**source, **asked, **_files_of(others)},
    output=output,
    packs=_SUITE.value not in _OUTSIDE,  # whose folders have all of it
    seconds=time.monotonic() - start,
    title=title,
    sound=from_sound.rows(report, suite=suite)
    if isinstance(suite, from_sound.FromSound)
    else {},
  )


def _files_of(others: Mapping[str, Any]) -> dict[str, str]:
  """The digest of --noise_folder, where conditions have it."""
  found = {other.condition.files for other in others.values()} - {""}
  return {"noise_folder": found.pop()} if found else {}


def _suite(config: Config, *, data_dir: str, tokenizer_file: str = ""):
  """What --suite names, checked."""
  from tml_jax.data import mixture, splits
  from tml_jax.evals import suites

  families = tuple(_FAMILIES.value)
  if _SUITE.value in _OUTSIDE:
    from tml_jax.evals.full_duplex_bench import suite as fdb
    from tml_jax.evals.game_time import suite as game_time
    from tml_jax.vocoder import griffin_lim

    suite, root = {
      "fdb": (fdb.FullDuplexBench, fdb_flags.ROOT.value),
      "game_time": (game_time.GameTime, _GAME_TIME_ROOT.value),
    }[_SUITE.value]
    return suite(
      root,
      out=config_flags.OUT.value,
      tasks=families,
      count=_COUNT.value if flags.FLAGS["count"].present else None,
      render=griffin_lim.of(config),
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
  """Which code, and which conversations of a suite."""
  result = {"git": workdir_lib.git_hash(), "suite": _SUITE.value}
  if _SUITE.value in _OUTSIDE:
    return result
  return result | {
    "split": _SPLIT.value,
    "count": _COUNT.value,
    "users": _USERS.value,
  }


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
  return name in ("", *harness_flags.MODELS)  # another is refused by its flag


if __name__ == "__main__":
  if _needs_run(sys.argv):
    config_flags.run(main, config_from=config_flags.ConfigFrom.WORKDIR)
  else:
    config_flags.run(main, default=_NO_RUN)
