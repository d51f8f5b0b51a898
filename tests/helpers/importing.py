"""Imports as a test wants them: a source in, all weights of the workdir out."""

import jax
import numpy as np
from flax import traverse_util

from tests.helpers import small_run
from tml_jax.interop.inkling import destination, importing
from tml_jax.training import checkpoint


def import_(src, workdir, **mesh):
  """Imports on the first devices; returns the plan."""
  planned = importing.plan(
    small_run.config(**mesh), src=str(src), model_from_src=True
  )
  directory = destination.check(str(workdir), flag="--workdir")
  importing.run(planned, directory=directory)
  return planned


def variables_of(workdir):
  """All weights, by path, as numpy arrays."""
  weights = checkpoint.Weights(str(workdir))
  wanted = {
    path: jax.ShapeDtypeStruct(shape, np.float32)
    for path, shape in weights.shapes.items()
  }
  tree = weights.restore(traverse_util.unflatten_dict(wanted))
  weights.close()
  return {"router": {}} | tree


def one_device(monkeypatch):
  """Meshes of one device in a process that has eight."""
  device = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: device)


def assert_equal(found, expected):
  """Bit by bit, every weight."""
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
