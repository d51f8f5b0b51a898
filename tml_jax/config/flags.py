"""Command line to frozen `Config`: what every entry point starts with.

For: `--config=experiments/interaction.py:tiny --config.model.num_layers=2`,
the flags that several commands share, and errors that take one line. Not for:
values (experiments/), their checks (beside their fields), nor flags of one
command, which are defined there. Start reading at `run`. Imports neither jax
nor anything that does: a misspelt flag must not cost the start of an
accelerator.

  def main(config: Config): ...           # import jax in here
  if __name__ == "__main__":
    config_flags.run(main)
"""

import dataclasses
import difflib
import enum
import functools
import importlib.util
import math
import os
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from absl import app, flags
from ml_collections import config_dict
from ml_collections import config_flags as ml_config_flags

from tml_jax import buckets, errors, fetched, files, plugins
from tml_jax.config import Config, command
from tml_jax.config import text as config_text

_FLAG = "config"
_HELP = re.compile(r"--?(?:help|helpshort|helpfull|helpxml)$|-\?$")
_FIELD = re.compile(rf"--?(?:no)?{_FLAG}\.([^=]*)")

# It would read --flagfile now, where no error can be told.
_ARGV, sys.argv = sys.argv, sys.argv[:1]
ml_config_flags.DEFINE_config_file(
  _FLAG,
  help_string="The experiment, FILE.py:NAME (for instance"
  " experiments/interaction.py:tiny), or config.txt of a run, which is what"
  " commands that read a run take from --workdir;"
  " --config.SECTION.FIELD=VALUE changes one field (tuples: A,B,C).",
)
sys.argv = _ARGV
# What several commands share; absl refuses two definitions of a flag when one
# process imports several entry points.
WORKDIR = flags.DEFINE_string(
  "workdir", "", "Directory of the run: config, checkpoints, metrics."
)
JSON = flags.DEFINE_string(
  "json", "", "File for the numbers; `evaluate` writes one in WORKDIR anyway."
)
OUT = flags.DEFINE_string("out", "", "Directory for what comes out.")
_DATA_DIR = flags.DEFINE_string(
  "data_dir",
  "",
  "Directory of the prepared data: one folder for each voice of"
  " --config.data.voices, and tokenizer.model.",
)
_DATA_CACHE = flags.DEFINE_string(
  "data_cache",
  "",
  "Directory on a disk of each host that a --data_dir in a bucket is copied to;"
  " what is there already is not copied again.",
)
_DATA_CACHE_GIB = flags.DEFINE_float(
  "data_cache_gib",
  math.inf,
  "The most GiB that --data_cache may hold; if not given, what the disk has.",
  lower_bound=0.0,
)
TOKENIZER = flags.DEFINE_string(
  "tokenizer",
  "",
  "File of the tokenizer: a sentencepiece model or a tokenizer.json of Hugging"
  " Face. If not given, that of the run, else tokenizer.model in --data_dir.",
)
flags.DEFINE_list(
  "plugins", [], "Files of yours that add families, sources, tools, metrics."
)
_SHARED = (
  *(_FLAG, "workdir", "json", "out", "data_dir", "tokenizer", "plugins"),
  *("data_cache", "data_cache_gib"),
)
# Flags of all commands that name files; --src of the Inkling import reads URLs.
_PATHS = (
  *("workdir", "data_dir", "init_from", "out", "json", "tokenizer"),
  *("fdb_root", "game_time_root", "noise_folder", "data_cache"),
  *("local_checkpoint_dir", "record", "rest_dir"),
)
# Of these, directories of runs; they may be URLs. In their names Orbax takes
# *, ? and brackets for patterns, and TensorStore reads \ as /.
_RUNS = ("workdir", "init_from")
_PATTERN = re.compile(r"[*?\[\]\\]")


class ConfigFrom(enum.Enum):
  """Where a command finds its config."""

  FLAG = "flag"  # --config, which is required
  WORKDIR = "workdir"  # --config, else config.txt in --workdir
  TOPOLOGY = "topology"  # --config=FILE.py:NAME, placed on --topology


def run(
  main: Callable[[Config], Any],
  *,
  config_from: ConfigFrom = ConfigFrom.FLAG,
  default: str = "",
  config_type: type = Config,
) -> None:
  """Parses the flags, calls `main(config)` and exits.

  `default` is the --config of a command that works without one, `config_type`
  what the experiments of the command return.

  Bad input, here or in `main`, is an `errors.UserError`: one line on stderr
  and its exit status. So is a full disk. Ctrl-C is one line too.
  """

  def parse(argv: list[str]) -> Config:
    if default and not has_config(argv):
      argv = [argv[0], f"--{_FLAG}={default}", *argv[1:]]
    return parse_config(argv, config_from=config_from, config_type=config_type)

  for name in _SHARED:  # `--help` shows those of the command
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
  with command.ending():
    command.prepare()
    app.run(main, flags_parser=parse)


def parse_config(
  argv: list[str], *, config_from: ConfigFrom, config_type: type = Config
) -> Any:
  """Parses all flags of `argv` (program name first); returns the config."""
  _PARSER.config_type = config_type
  # The library reads the overrides from sys.argv when it parses --config.
  try:
    argv = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
  except (flags.Error, UnicodeDecodeError) as error:
    text = str(error).removeprefix("ERROR:: ")
    raise errors.UserError(f"--flagfile: {text}") from error
  _check_paths(argv)
  _check_data_cache(argv)
  # Before the flags are parsed: a tool may have some of its own.
  files = value_of("plugins", argv=argv).split(",")
  plugins.load(file.strip() for file in files if file.strip())
  if helps := [argument for argument in argv[1:] if _HELP.match(argument)]:
    flags.FLAGS([argv[0], *helps])  # prints and exits
  if config_from == ConfigFrom.WORKDIR:
    argv = _add_config_of_workdir(argv)
  if config_from == ConfigFrom.TOPOLOGY:
    argv = _add_topology(argv)
  sys.argv = argv
  for argument in argv[1:]:
    _check_field_name(argument, config_type=config_type)
  missing = errors.UserError(
    "--config is missing: give an experiment, for instance"
    " --config=experiments/interaction.py:tiny"
  )
  if not has_config(argv) and any(_FIELD.match(item) for item in argv):
    raise missing
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    raise errors.UserError(_one_line(error, config_type=config_type)) from error
  if len(rest) > 1:
    raise errors.UserError(
      f"unexpected argument {rest[1]!r}: every argument is a flag, --name=value"
    )
  values = flags.FLAGS[_FLAG].value
  if values is None:
    raise missing
  return config_text.from_dict(config_type, values.to_dict())


def data_dir(*, default: str = "", is_needed: bool = True) -> str:
  """The value of --data_dir, or `default` where it is not given.

  Where nothing of it `is_needed` it may be missing, which gives "".

  Of a bucket: where --data_cache holds it, which the first call of a process
  waits for, perhaps for hours. It copies once: what others write into the
  bucket meanwhile does not change data that is read.

  Raises:
    errors.UserError: neither is given, or it cannot be copied.
  """
  if not _DATA_DIR.value and (default or not is_needed):
    return default
  if not _DATA_DIR.value:
    raise errors.UserError(
      "--data_dir is missing: give the directory of the prepared data, which"
      " `python -m tml_jax.prepare` writes"
    )
  if not buckets.is_url(_DATA_DIR.value):
    return _DATA_DIR.value
  return _fetched(
    _DATA_DIR.value, _DATA_CACHE.value, _DATA_CACHE_GIB.value * 2**30
  )


@functools.cache
def _fetched(url: str, directory: str, most_bytes: float) -> str:
  return str(fetched.fetch(url, directory=directory, most_bytes=most_bytes))


def data_dir_to_write() -> str:
  """The value of --data_dir, for a command that writes there.

  Raises:
    errors.UserError: it is not given, or a bucket, whose copy in --data_cache
      would lose what is written.
  """
  if buckets.is_url(_DATA_DIR.value):
    raise errors.UserError(
      f"--data_dir={_DATA_DIR.value}: this command writes there, and to a disk"
      " alone: give a directory, then copy that to the bucket"
      " (docs/run_on_tpu.md)"
    )
  return data_dir()


def overrides() -> dict[str, Any]:
  """The fields given as `--config.a.b=value`; none outside of `run`."""
  if flags.FLAGS[_FLAG].value is None:  # in a notebook, in a test
    return {}
  return dict(ml_config_flags.get_override_values(flags.FLAGS[_FLAG]))


class _Parser(flags.ArgumentParser[config_dict.ConfigDict]):
  """Loads a frozen Config and opens it as a locked ConfigDict.

  ml_collections assigns every override to the loaded object, which a frozen
  dataclass forbids; `parse_config` freezes the result again.
  """

  config_type: type = Config  # of the command; `parse_config` sets it

  def parse(self, path: str) -> config_dict.ConfigDict:
    config = _load(path, config_type=self.config_type)
    return config_dict.ConfigDict(config_text.to_dict(config)).lock()


class _TupleParser(flags.ArgumentParser[tuple[Any, ...]]):
  """`a,b,c`: integers where all are, else strings."""

  def parse(self, argument: str | tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(argument, tuple):  # the default
      return argument
    items = tuple(item for item in argument.split(",") if item)
    try:
      return tuple(int(item) for item in items)
    except ValueError:
      return items


# DEFINE_config_file, the documented way in, takes no parser.
_PARSER = _Parser()
flags.FLAGS[_FLAG].parser = _PARSER
ml_config_flags.register_flag_parser_for_type(tuple, _TupleParser())


def _load(path: str, *, config_type: type) -> Any:
  """The config at FILE.py:NAME, or in a run's config.txt."""
  name, file = _parts(path)[1], _file_of(path)
  if file.endswith(".txt"):
    return config_text.load(file, config_type=config_type)
  module = load_module(path)
  if not hasattr(module, "get_config"):
    raise errors.UserError(
      f"--config={path}: {file} has no function get_config"
    )
  config = module.get_config(*([] if name is None else [name]))
  if not isinstance(config, config_type):
    raise errors.UserError(
      f"--config={path}: get_config must return a {config_type.__name__}, not"
      f" {type(config).__name__}"
    )
  return config


def _parts(path: str) -> tuple[str, str | None]:
  """FILE and NAME of FILE.py:NAME; a colon may stand in folders, too."""
  if path.endswith((".py", ".txt")):
    return path, None
  match = re.fullmatch(r"(.*\.py):(.*)", path, re.DOTALL)
  if match is not None:
    return match[1], match[2]
  file, colon, name = path.partition(":")
  return file, name if colon else None


def _file_of(path: str) -> str:
  """The file that FILE.py:NAME names: in the current directory, or installed.

  `experiments/` is installed beside this package, so that a command that works
  in a checkout works in every directory.
  """
  file = _parts(path)[0]
  root = os.path.dirname(os.path.dirname(errors.__file__))
  installed = os.path.join(root, os.path.normpath(file))
  if buckets.is_url(file) or os.path.isfile(file):
    return file
  if os.path.dirname(installed) == os.path.join(root, "experiments"):
    if os.path.isfile(installed):
      return installed
  raise errors.UserError(
    f"--config={path}: there is no file {file!r}, neither in the current"
    f" directory, {os.getcwd()}, nor among the installed experiments"
    " (experiments/interaction.py is one)"
  )


def experiment_file() -> str:
  """FILE.py of the command's --config."""
  path = ml_config_flags.get_config_filename(flags.FLAGS[_FLAG])
  return _parts(path)[0]


def load_module(path: str) -> types.ModuleType:
  """The module of an experiment file, FILE.py or FILE.py:NAME."""
  file = _file_of(path)
  if not file.endswith(".py"):
    raise errors.UserError(
      f"--config={path}: expected FILE.py:NAME or a run's config.txt"
    )
  directory = os.path.dirname(os.path.abspath(file))
  if os.path.exists(os.path.join(directory, "__init__.py")):
    sys.path.append(os.path.dirname(directory))  # its neighbours' imports
  # `experiments` beside this package, whose numbers it may begin with.
  sys.path.append(os.path.dirname(os.path.dirname(errors.__file__)))
  spec = importlib.util.spec_from_file_location("experiment", file)
  assert spec is not None and spec.loader is not None, file  # it is a .py
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except (SyntaxError, ImportError) as error:
    raise errors.UserError(f"--config={path}: {error}; mend {file}") from error
  return module


def has_config(argv: list[str]) -> bool:
  """Whether --config itself is among the arguments."""
  return any(re.match(rf"--?{_FLAG}(=|$)", argument) for argument in argv)


def _check_paths(argv: list[str]) -> None:
  """Refuses what would be written and could not be read.

  gs://bucket would become a directory named `gs:`, but for runs.
  """
  for name in _PATHS:
    value = value_of(name, argv=argv)
    is_bucket = buckets.is_url(value) and (
      name in _RUNS
      or name == "data_dir"
      and bool(value_of("data_cache", argv=argv))
    )
    if "://" in value and not is_bucket:
      raise errors.UserError(
        f"--{name}={value} is a URL and this takes a path: mount the bucket"
        " with gcsfuse (docs/run_on_tpu.md) and give the directory"
        + (", or give --data_cache=DIR, too" if name == "data_dir" else "")
      )
    if not value or name not in _RUNS:
      continue
    place = value if is_bucket else os.path.abspath(value)
    if _PATTERN.search(place) or not place.isprintable():
      raise errors.UserError(
        f"--{name}={value}: checkpoints cannot be read back from a directory"
        r" with any of * ? [ ] \ or an unprintable letter in its name; give"
        " another"
      )


def _check_data_cache(argv: list[str]) -> None:
  """Refuses flags of a copy where nothing is copied."""
  of_data, cache, most = (
    value_of(name, argv=argv)
    for name in ("data_dir", "data_cache", "data_cache_gib")
  )
  if cache and not buckets.is_url(of_data):
    raise errors.UserError(
      f"--data_cache={cache} is for a --data_dir in a bucket (gs://, s3://),"
      f" and {of_data or 'none'} is {'none' if of_data else 'given'}: leave it"
      " out"
    )
  if most and not cache:
    raise errors.UserError(
      f"--data_cache_gib={most} bounds --data_cache, which is not given: leave"
      " it out, or give both"
    )


def _add_config_of_workdir(argv: list[str]) -> list[str]:
  """Puts `--config=WORKDIR/config.txt` first unless --config is there."""
  if has_config(argv):
    return argv
  path = value_of("workdir", argv=argv)
  if path:
    file = files.path(path) / config_text.FILE_NAME
    with buckets.reached(f"--workdir={path} cannot be read"):
      is_there = file.exists()
    if not is_there:
      raise errors.UserError(
        f"--workdir={path} has no {config_text.FILE_NAME}: give the directory"
        " of a run"
      )
    return [argv[0], f"--{_FLAG}={file}", *argv[1:]]
  raise errors.UserError("--workdir is missing: give the directory of a run")


def _add_topology(argv: list[str]) -> list[str]:
  """`--config=FILE.py:NAME --topology=T --num_slices=N` with NAME@T:N."""
  topology = value_of("topology", argv=argv)
  if not topology:
    raise errors.UserError(
      "--topology is missing: name a slice, for instance --topology=v5p:8x8x8"
    )
  slices = value_of("num_slices", argv=argv)
  place = topology if slices in ("", "1") else f"{topology}:{slices}"
  path = value_of(_FLAG, argv=argv)
  if ".py:" not in path or path.endswith(f"@{place}"):
    return argv
  if "@" in path:
    raise errors.UserError(
      f"--config={path} and --topology={place} name two places: leave out @"
      " and what follows it"
    )
  return [
    item.replace(path, f"{path}@{place}") if item.endswith(path) else item
    for item in argv
  ]


def value_of(name: str, *, argv: list[str]) -> str:
  """Value of --name in `argv`, the last one; empty if it is not there."""
  value = ""
  for i, argument in enumerate(argv):
    match = re.match(rf"--?{name}(?:=(.*))?$", argument, re.DOTALL)
    if match is not None:
      following = argv[i + 1] if i + 1 < len(argv) else ""
      value = following if match[1] is None else match[1]
  return value


def _check_field_name(argument: str, *, config_type: type) -> None:
  """Refuses `--config.PATH` when the config has no such field."""
  match = _FIELD.match(argument)
  if match is None:
    return
  fields = config_text.field_types(config_type)
  path = match[1]
  if path in fields:
    return
  if any(name.startswith(path + ".") for name in fields):
    raise errors.UserError(
      f"--{_FLAG}.{path} is a section; set one of its fields, for instance"
      f" --{_FLAG}."
      + next(name for name in fields if name.startswith(path + "."))
    )
  raise errors.UserError(
    f"unknown field --{_FLAG}.{path}; the nearest is"
    f" --{_FLAG}.{nearest(path, names=list(fields))}"
  )


def config_of_row(
  name: str,
  *,
  changes: Mapping[str, Mapping[str, Any]],
  base: Config,
  file: str,
) -> Config:
  """The config of a row of the experiment `file`, by its changes of `base`.

  Raises:
    errors.UserError: no such row.
  """
  if name not in changes:
    raise errors.UserError(
      f"{file} has no row {name!r}; the nearest is"
      f" {nearest(name, names=list(changes))}"
    )
  config = config_text.with_fields(base, dict(changes[name]))
  return dataclasses.replace(config, name=f"{base.name}_{name}")


def nearest(path: str, *, names: list[str]) -> str:
  """The name most like `path`; a slip in the last part counts least."""
  last = path.rsplit(".", 1)[-1]

  def likeness(name: str) -> float:
    whole = difflib.SequenceMatcher(None, path, name).ratio()
    part = difflib.SequenceMatcher(None, last, name.rsplit(".", 1)[-1]).ratio()
    return whole + part

  return max(names, key=likeness)


def _one_line(error: Exception, *, config_type: type) -> str:
  """The message of absl; for a field, the type it takes instead."""
  text = " ".join(str(error).split())
  match = re.match(rf"flag (--{_FLAG}\.([\w.]+)=.*?): ", text)
  if match is None:
    return text
  field_type = config_text.field_types(config_type)[match[2]]
  return f"{match[1]}: it takes {config_text.describe_type(field_type)}"
