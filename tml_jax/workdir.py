"""The directory of a run: what was run, from which code, with which config.

For: the name of every file in it, `create` at the start of training,
`load_config` in the commands that read a run. Not for: writing checkpoints and
metrics, which other modules do below the same directory. Here are written
`CONFIG` (now in force) and `STARTS` (one line per start of the run: id, argv,
overrides, plugins, git, versions); of several processes the first one writes.
"""

import datetime
import importlib.metadata
import json
import pathlib
import platform
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping
from typing import Any

from absl import logging

from tml_jax import buckets, errors, files, lock, plugins
from tml_jax.config import Config, LoopConfig, OnChange, Schedule
from tml_jax.config import text as config_text

CONFIG = config_text.FILE_NAME
STARTS = "starts.jsonl"
CHECKPOINTS = "checkpoints"  # the subdirectory that makes a run resumable
IMPORTED_STEP = "0"  # a run's own checkpoints begin at step 1
LOADER_STATE = "loader/metadata"  # of a checkpoint: where the data stands
CHECKSUMS = "checksums.json"  # of a checkpoint: of all that it holds
COMMITTED = "commit_success.txt"  # of Orbax, written last of a checkpoint
DAMAGED = "damaged"  # checkpoints that were set aside
LOCK = lock.FILE  # who trains here
FAILURES = "failures.jsonl"  # what ended starts in a step
METRICS = "metrics.jsonl"  # one line per logged step
TENSORBOARD = "tb"
GOODPUT = "goodput.json"
PROFILE = "profile"  # traces and memory
PROGRAM = "train_step.txt"  # in PROFILE; names the instructions of a trace
PLOTS = "plots"  # router_STEP.png
TRAIN_LOG = "train.log"  # of `ablate`
SWEEP = "sweep.json"  # of `evaluate --sweep`
EVALUATION = "evaluation.json"  # of `evaluate`; in the folder beside it are:
TICKS = "ticks"  # FAMILY/ID.jsonl, what was held live
CONTENT = "content"  # FAMILY/ID.json, what was predicted by teacher forcing
CONDITIONS = (
  "conditions"  # NAME/ticks and NAME/content of users unlike training
)
# Of a checkpoint on the disk of a host (`training/local_checkpoint.py`).
LOCAL_INDEX = "index.json"
LOCAL_STATE = "state.bin"

# Fields that a resumed run may change: they say how long, how often, on which
# devices or how to sample, not what is learned from what.
FREE_SECTIONS = ("mesh.", "sample.", "train.execution.")
LAYOUT_FIELDS = ("train.execution.scan_layers",)  # of parameters: not free
FREE_FIELDS = (
  "train.accumulation_steps",
  "train.remat_policy",
  "train.steps",
  "train.log_every",
  "train.checkpoint_every",
  "train.local_checkpoint_every",
  "train.keep_checkpoints",
  "train.evaluate_every",
  "train.skip_batches",
  "data.workers",
  # What to do where the data is not what it was; the loader sees to it.
  "data.damaged",
  "data.on_change",
  # Of sessions alone.
  "turns.resume_after_false_s",
  "turns.start",
)
# With `data.on_change=go_on`, these too: the loader begins what has changed
# where the old mixture stands.
GO_ON_FIELDS = (
  "data.mixture",
  "data.schedule",
  "data.max_epochs",
  "data.augment",
  "data.inverse_temperature",
)
_PACKAGES = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "numpy",
  "sentencepiece",
)


def check_given(path: str) -> None:
  """Refuses a command line without --workdir."""
  if not path:
    raise errors.UserError("--workdir is missing: name a directory to write")


def create(
  path: str,
  config: Any,
  *,
  is_begun: bool = False,
  overrides: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Makes or re-opens the workdir and records this start in it.

  `is_begun` says that the run can be resumed from elsewhere than the workdir;
  `overrides` are the fields of the config that the command line changed.

  Raises `errors.UserError` when the directory cannot be written, or when it
  holds checkpoints of a config that differs in more than `FREE_FIELDS`, or
  that was started with a plugin that is not there, or imported weights.
  """
  check_given(path)
  directory = files.path(path)
  files.make(directory, what=f"--workdir={directory}")
  if IMPORTED_STEP in map(str, checkpoint_steps(directory)):
    raise errors.UserError(
      f"--workdir={path} holds imported weights and not a run: start one with"
      f" --init_from={path} and another --workdir"
    )
  config_file = directory / CONFIG
  if is_begun or has_checkpoints(directory):
    if not config_file.exists():
      raise errors.UserError(
        f"{path} has checkpoints and no {CONFIG} that says of what:"
        " put it back, or give another --workdir"
      )
    old = load_config(path, config_type=type(config))
    check_resume(old, new=config, source=path)
    _say_stretched(old.train, new=config.train)
    for start in _starts(path)[-1:]:
      _check_plugins(start, run=path)
  files.write_atomically(config_file, content=config_text.to_text(config))
  start = {
    "id": uuid.uuid4().hex,
    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "argv": sys.argv,
    "overrides": {
      name: str(value) for name, value in (overrides or {}).items()
    },
    "plugins": plugins.record(),
    "git": git_hash(),
    "versions": versions(),
  }
  files.append_line(directory / STARTS, line=json.dumps(start))
  return directory


def _check_plugins(start: dict[str, Any], *, run: str) -> None:
  try:
    plugins.check(start.get("plugins", []), run=run)
  except TypeError as error:
    logging.warning("%s in %s is damaged (%s)", STARTS, run, error)


def _say_stretched(old: LoopConfig, *, new: LoopConfig) -> None:
  """`train.steps` may change when a run is resumed; what follows is said."""
  if old.steps != new.steps and new.optim.schedule is not Schedule.CONSTANT:
    logging.warning(
      "train.steps: %d -> %d on resume: the %s schedule of the learning rate is"
      " that of %d steps from here on (learning_rate in the metrics)",
      old.steps,
      new.steps,
      new.optim.schedule,
      new.steps,
    )


def load_config(path: str, *, config_type: type = Config) -> Any:
  """The config of the run at `path`."""
  file = files.path(path) / CONFIG
  return config_text.load(str(file), config_type=config_type)


def start_ids(path: str) -> list[str]:
  """One for each start of the run at `path`, the newest last."""
  ids = [start.get("id") for start in _starts(path)]
  return [x if isinstance(x, str) and x.isalnum() else "" for x in ids]


def _starts(path: str) -> list[dict[str, Any]]:
  return files.read_json_lines(files.path(path) / STARTS)


def check_shared(path: str, config: Any) -> None:
  """What another process has just created must be here as well.

  Raises:
    errors.UserError: the directory is this host's own.
  """
  is_there = (files.path(path) / CONFIG).exists()
  if not is_there or load_config(path, config_type=type(config)) != config:
    raise errors.UserError(
      f"--workdir={path} is not the directory that process 0 has written: name"
      " one on a file system that all hosts share"
    )


def has_checkpoints(path: str | pathlib.Path) -> bool:
  """Whether the run at `path` has anything to resume from."""
  return bool(checkpoint_steps(path))


def checkpoint_steps(path: str | pathlib.Path) -> list[int]:
  """Steps of the finished checkpoints of a run, ascending, whole or damaged."""
  directory = files.path(path) / CHECKPOINTS
  if buckets.is_url(directory):
    # A save that was killed has a folder of that name, and no COMMITTED.
    with buckets.reached(f"{directory} cannot be read"):
      return sorted(
        int(name)
        for name in buckets.names(directory)
        if _is_step(name) and (directory / name / COMMITTED).exists()
      )
  if not directory.is_dir():
    return []
  # A save that was killed leaves a directory with a longer name.
  names = [item.name for item in directory.iterdir()]
  return sorted({int(n) for n in names if _is_step(n)})


def _is_step(name: str) -> bool:
  return name.isdecimal() and name.isascii()


def check_resume(old: Any, *, new: Any, source: str) -> None:
  """Raises `errors.UserError` with a diff when `new` cannot resume `old`."""
  free = FREE_FIELDS
  if getattr(new.data, "on_change", None) == OnChange.GO_ON:
    free += GO_ON_FIELDS
  changes = {
    name: change
    for name, change in config_text.diff(old, new=new).items()
    if name in LAYOUT_FIELDS
    or not (name in free or name.startswith(FREE_SECTIONS))
  }
  if changes:
    lines = "; ".join(f"{name}: {text}" for name, text in changes.items())
    other = ", or go on with --config.data.on_change=go_on"
    raise errors.UserError(
      f"{source} holds a run of another config ({lines}): undo"
      " the change, or give another --workdir"
      + (other if {*changes} <= {*GO_ON_FIELDS} else "")
    )


def git_hash() -> str:
  """Commit of this code, "-dirty" when tracked files differ from it."""
  root = pathlib.Path(__file__).resolve().parent.parent
  if not (root / ".git").exists():  # a file in a linked work tree
    return "not a checkout"
  try:
    return subprocess.run(
      ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
      cwd=root,
      check=True,
      capture_output=True,
      text=True,
    ).stdout.strip()
  except (OSError, subprocess.CalledProcessError) as error:
    return f"unknown: {error}"


def short_hash(commit: str) -> str:
  """A commit of `git_hash` as documents name it, by seven digits."""
  return re.sub(r"^([0-9a-f]{7})[0-9a-f]{33}", r"\1", commit)


def versions() -> dict[str, str]:
  """Versions of python and of the packages that decide the numbers."""
  result = {"python": platform.python_version()}
  for package in _PACKAGES:
    result[package] = importlib.metadata.version(package)
  return result
