"""A trained run opened for use: the model and its newest weights.

For: `sample` and `evaluate`. Not for: going on with training. One device
holds everything, whatever mesh the run was trained on.
"""

import dataclasses
from typing import Any

from tml_jax import errors, files, workdir
from tml_jax.config import Config
from tml_jax.config import mesh as mesh_config


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model that can talk.

  Attributes:
    model: the module, with its layers one by one.
    variables: what `model.apply` takes; averaged weights where the run keeps
      an average.
    step: optimizer steps behind them.
  """

  model: Any
  variables: dict[str, Any]
  step: int


def check(path: str, *, flag: str = "workdir", command: str = "train") -> None:
  """Finds what can be seen without starting jax.

  Raises:
    errors.UserError: no run at `path`, the value of `flag`, or no checkpoint
      in it; `command` makes one.
  """
  if not path:
    raise errors.UserError(f"--{flag} is missing: give the directory of a run")
  if not files.path(path).is_dir():
    raise errors.UserError(f"--{flag}={path}: there is no such directory")
  if not workdir.has_checkpoints(path):
    raise errors.UserError(
      f"no checkpoint in {path}; run `python -m tml_jax.{command} "
      f"--workdir={path}` first"
    )


def load(
  config: Config, *, path: str, data_dir: str, tokenizer_file: str = ""
) -> Trained:
  """Restores the newest finished checkpoint of the run at `path`.

  Args:
    config: of the run.
    path: its workdir.
    data_dir: prepared data.
    tokenizer_file: that the text is read with; if not given that of the run,
      or of `data_dir` where it has none (`run_tokenizer.of_run`).

  Raises:
    errors.UserError: no finished checkpoint, of another model, or trained
      with another tokenizer.
  """
  import jax

  from tml_jax.parallel import hosts
  from tml_jax.parallel import mesh as mesh_lib
  from tml_jax.training import checkpoint, optim, run_tokenizer
  from tml_jax.training import state as state_lib

  model = state_lib.create_model(config)
  abstract = state_lib.abstract(
    config,
    model=model,
    optimizer=optim.create(config.train.optim, steps=config.train.steps),
    mesh=mesh_lib.create(mesh_config.ONE_DEVICE, devices=jax.devices()[:1]),
  )
  hosts.check_fits(
    abstract.variables,
    what=f"--workdir={path}",
    fix="use a host with more, as one device holds all of the model",
  )
  weights = checkpoint.Weights(path)
  weights.check(abstract.variables, config=config)
  weights.check_tokenizer(
    run_tokenizer.of_run(path, given=tokenizer_file, data_dir=data_dir)
  )
  variables = jax.device_get(weights.restore(abstract.variables))
  weights.close()
  return Trained(
    model=state_lib.create_sampler(config),
    variables=state_lib.unrolled(variables, config=config),
    step=weights.step,
  )
