"""Devices of a TPU topology on a machine that has none.

For: compiling for a slice that is not there, with libtpu. Not for: running
anything. Start at `devices`.
"""

import importlib.util
import os

from tml_jax import errors
from tml_jax.parallel import chips


def prepare_environment() -> None:
  """Settings that must stand before jax is imported."""
  os.environ["JAX_PLATFORMS"] = "cpu"
  # Do not ask the cloud's metadata server what machine this is.
  os.environ["TPU_SKIP_MDS_QUERY"] = "1"
  # libtpu takes a lock for a chip that this process does not use.
  os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
  # libtpu looks for the host it is on and complains that there is none.
  os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
  os.environ["TPU_ACCELERATOR_TYPE"] = "v5p-8"


def devices(topology: str, *, num_slices: int) -> list:
  """Devices of `num_slices` slices, to compile for.

  Raises:
    errors.UserError: libtpu is not installed, or has no such topology.
  """
  chips.of(topology)
  if importlib.util.find_spec("libtpu") is None:
    raise errors.UserError(
      "libtpu is not installed, it compiles for TPUs that are not there: "
      "pip install '.[aot]'"
    )
  import jax
  from jax.experimental import topologies

  slices = {} if num_slices == 1 else {"num_slices": num_slices}
  try:
    description = topologies.get_topology_desc(
      platform="tpu", topology_name=topology, **slices
    )
  except (jax.errors.JaxRuntimeError, ValueError) as error:
    line = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
    raise errors.UserError(
      f"--topology={topology}: {line}; write a slice shape that exists, for "
      "instance v5p:8x8x8, v6e:16x16 or tpu7x:4x8x8"
    ) from error
  return list(description.devices)
