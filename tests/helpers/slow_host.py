"""Training of which one host is slow before anything is written.

`python -m tests.helpers.slow_host --slow=task|program` with the flags of
`parallel/processes.py`: process 1 takes longer than --connect_timeout, to make
its task (which copies data) or to compare weights. The run ends by a
`UserError` that all agree on, once it has come to its data.
"""

import time
import types

import jax
import numpy as np
from absl import app, flags

from tests.helpers import small_run
from tml_jax import errors, train
from tml_jax.config import command

WEIGHTS = {"x": np.zeros(2, np.float32)}
_SLOW = flags.DEFINE_string("slow", "", "Where process 1 is slow.")


class Task:
  """Goes as far as the data, of which there is none."""

  evaluation = None

  def __init__(self, config):
    self.config = config
    _sleep("task")

  def check(self) -> None:
    pass

  def check_rows(self, rows) -> None:
    pass

  def program(self, *, mesh):
    del mesh
    _sleep("program")
    variables = {"params": jax.eval_shape(lambda: dict(WEIGHTS))}
    return types.SimpleNamespace(
      abstract=types.SimpleNamespace(variables=variables)
    )

  def data(self, *, rows):
    raise errors.UserError("all have come to the data")


def _sleep(where: str) -> None:
  if _SLOW.value == where and flags.FLAGS.process_id == 1:
    time.sleep(flags.FLAGS.connect_timeout + 3)


def main(argv: list[str]) -> None:
  del argv
  train.run(small_run.config(data=2), task=Task)


if __name__ == "__main__":
  with command.ending():
    app.run(main)
