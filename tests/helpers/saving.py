"""One of two processes that save a state; for test_processes.

`python -m tests.helpers.saving --workdir=DIR` with the flags of
`parallel/processes.py`. Process 0 also writes what was saved, gathered, to
DIR/saved.npz.
"""

import os

from absl import app

from tml_jax.config import flags as config_flags
from tml_jax.parallel import processes as processes_lib

STEP = 3
LOADER = {"identity": {}, "shards": {}}


def main(argv: list[str]) -> None:
  del argv
  processes = processes_lib.start()
  import jax
  import numpy as np
  from flax import traverse_util

  from tests.helpers import small_run
  from tml_jax.parallel import hosts
  from tml_jax.parallel import mesh as mesh_lib
  from tml_jax.training import checkpoint, optim
  from tml_jax.training import state as state_lib

  config = small_run.config(fsdp=4, expert=2)
  abstract = state_lib.abstract(
    config,
    model=state_lib.create_model(config),
    optimizer=optim.create(config.train.optim, steps=10),
    mesh=mesh_lib.create(config.mesh),
  )
  state = state_lib.create(abstract, seed=5)
  split = [
    leaf
    for leaf in jax.tree.leaves(state.params)
    if not leaf.is_fully_replicated
  ]
  assert split and not split[0].is_fully_addressable
  checkpointer = checkpoint.Checkpointer(config_flags.WORKDIR.value, keep=1)
  checkpointer.save(STEP, state=state, loader_state=LOADER)
  checkpointer.close()
  flat = traverse_util.flatten_dict(hosts.gather(state.params), sep="/")
  if processes.is_first:
    np.savez(os.path.join(config_flags.WORKDIR.value, "saved.npz"), **flat)
  with processes.waiting():
    pass


if __name__ == "__main__":
  app.run(main)
