"""Where the local checkpoints of a run lie, before jax is there.

For: `train`, which refuses a bad --local_checkpoint_dir before anything else
is written. Not for: what is saved (`local_checkpoint`). Start at `check`.
"""

import os
import pathlib
import tempfile

from tml_jax import errors
from tml_jax import workdir as workdir_lib
from tml_jax.config import LoopConfig


def check(train: LoopConfig, *, directory: str) -> None:
  """Proves that local checkpoints can be written, if any are wanted.

  Raises:
    errors.UserError: half of what they need is missing, or the directory
      cannot be written.
  """
  every = train.local_checkpoint_every
  if every and not directory:
    raise errors.UserError(
      f"train.local_checkpoint_every = {every} needs --local_checkpoint_dir, a"
      " directory on a disk of each host"
    )
  if directory and not every:
    raise errors.UserError(
      f"--local_checkpoint_dir={directory}: train.local_checkpoint_every = 0,"
      " say how often; or leave the directory out"
    )
  if not directory:
    return
  try:
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
      pass
  except OSError as error:
    raise errors.of_system(
      error,
      f"--local_checkpoint_dir={directory} cannot be written"
      f" ({error.strerror}): name a directory on a disk of this host",
    ) from error


def of_run(directory: str, *, workdir: str) -> pathlib.Path:
  """Where everything of the run in `workdir` lies on this host.

  A run is named by its first start, which the workdir must have recorded.
  """
  ids = filter(None, workdir_lib.start_ids(workdir))
  return pathlib.Path(directory, next(ids))


def holds(directory: str, *, workdir: str) -> bool:
  """Whether this host has saved a step of the run in `workdir`."""
  if not directory or not any(workdir_lib.start_ids(workdir)):
    return False
  root = of_run(directory, workdir=workdir)
  return any(root.glob(f"*/*/{workdir_lib.LOCAL_INDEX}"))
