"""Inkling checkpoints in and out: `python -m tml_jax.interop.inkling`.

  --import --src=DIR|gs://BUCKET/PATH --workdir=NEW [--config=...]
  --export --workdir=RUN --out=NEW

For: starting runs from released weights (`train --init_from=NEW`) and giving
trained ones to transformers and the servers that read its format. Not for:
running Inkling here (`inkling_model`). docs/inkling_weights.md tells more.
"""

import re
import sys

from absl import flags

from tml_jax import errors
from tml_jax.config import Config, Dtype
from tml_jax.config import flags as config_flags
from tml_jax.parallel import processes as processes_lib
from tml_jax.training import trained

# Streams, training, mesh and flow head where no --config is given; the model
# is then the source's.
DEFAULT_CONFIG = "experiments/interaction.py:inkling_small_as_shipped"

_IMPORT = flags.DEFINE_bool("import", False, "Read --src into --workdir.")
_EXPORT = flags.DEFINE_bool("export", False, "Write --workdir to --out.")
_SRC = flags.DEFINE_string(
  "src", "", "Safetensors and config.json: a directory or a URL (gs://, s3://)."
)
_DTYPE = flags.DEFINE_enum_class(
  "dtype", Dtype.BFLOAT16, Dtype, "Of the exported matrices."
)
_MAX_SHARD_GB = flags.DEFINE_float(
  "max_shard_gb", 5.0, "Size of an exported file, 10^9 bytes."
)

flags.adopt_module_key_flags(processes_lib)  # `--help` shows them, too


def main(config: Config) -> None:
  if _IMPORT.value == _EXPORT.value:
    raise errors.UserError("give either --import or --export")
  if _EXPORT.value:
    print(export(config))
    return
  processes = processes_lib.start()
  with processes.ending_all():
    text = import_(config, processes=processes)
  if processes.is_first:
    print(text)


def import_(config: Config, *, processes: processes_lib.Processes) -> str:
  """Checks everything, then reads --src into --workdir.

  On several hosts every one runs it: each reads what its devices hold.
  """
  from tml_jax.interop.inkling import destination

  with processes.together():
    given = config_flags.has_config(_ARGV)
    if not given:
      _refuse_model_flags()
    directory = destination.check(config_flags.WORKDIR.value, flag="--workdir")

    from tml_jax.interop.inkling import importing

    planned = importing.plan(
      config,
      src=_SRC.value,
      model_from_src=not given,
      tokenizer_file=config_flags.TOKENIZER.value,
    )
  return importing.run(planned, directory=directory)


def export(config: Config) -> str:
  """Checks everything, then writes the weights of --workdir to --out."""
  from tml_jax.interop.inkling import destination

  workdir = config_flags.WORKDIR.value
  trained.check(workdir)
  if _MAX_SHARD_GB.value <= 0:
    raise errors.UserError(
      f"--max_shard_gb={_MAX_SHARD_GB.value}: must be above 0"
    )
  directory = destination.check(config_flags.OUT.value, flag="--out")

  import jax

  # One tensor at a time: no accelerator is needed, and none is taken.
  jax.config.update("jax_platforms", "cpu")
  from tml_jax.interop.inkling import exporting as exporting_lib

  return exporting_lib.run(
    config,
    workdir=workdir,
    directory=directory,
    dtype=_DTYPE.value,
    shard_bytes=int(_MAX_SHARD_GB.value * 1e9),
  )


def _refuse_model_flags() -> None:
  """Without --config the source decides about the model."""
  from tml_jax.interop.inkling import config as config_lib

  fixed = {f"model.{name}" for name in config_lib.FIELDS}
  given = sorted(fixed & set(config_flags.overrides()))
  if given:
    raise errors.UserError(
      f"--config.{given[0]} is read from --src; leave it out, or give --config"
      " to have the two compared"
    )


_ARGV = list(sys.argv)  # before `run` adds the default

if __name__ == "__main__":
  exporting = any(re.match("--?export(=|$)", item) for item in _ARGV)
  config_flags.run(
    main,
    config_from=config_flags.ConfigFrom.WORKDIR
    if exporting
    else config_flags.ConfigFrom.FLAG,
    default="" if exporting else DEFAULT_CONFIG,
  )
