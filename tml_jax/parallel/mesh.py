"""The device mesh and the rules from logical names to its axes.

For: every sharding in the project; models only name their dims. Not for:
collectives written by hand. Start reading at `RULES`.

axis = of the mesh, dim = of an array.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from tml_jax import errors
from tml_jax.config import MeshConfig

AXES = ("data", "fsdp", "expert", "tensor", "seq")
# Logical name -> mesh axes. A name that is not here is not sharded.
RULES: dict[str, tuple[str, ...]] = {
  "batch": ("data", "fsdp", "expert"),
  "time": ("seq",),
  "embed": ("fsdp",),
  "vocab": ("tensor",),
  "heads": ("tensor",),
  "kv_heads": ("tensor",),
  "mlp": ("tensor",),
  "flow": ("tensor",),
  "experts": ("expert",),
}


def create(
  config: MeshConfig, *, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """The mesh over all devices.

  Raises:
    errors.UserError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  shape = tuple(getattr(config, axis) for axis in AXES)
  if math.prod(shape) != len(devices):
    sizes = ", ".join(
      f"mesh.{axis}={size}" for axis, size in zip(AXES, shape, strict=True)
    )
    raise errors.UserError(
      f"{sizes} need {math.prod(shape)} devices and there are {len(devices)}; "
      "choose sizes whose product is the number of devices"
    )
  return jax.sharding.Mesh(np.asarray(devices).reshape(shape), AXES)


@contextlib.contextmanager
def use(mesh: jax.sharding.Mesh) -> Iterator[None]:
  """Makes the model's logical constraints mean `mesh` while tracing."""
  rules = [(name, axes) for name, axes in RULES.items()]
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
    yield


def sharding(
  names: Sequence[str | None],
  *,
  shape: Sequence[int],
  mesh: jax.sharding.Mesh,
  what: str,
) -> jax.sharding.NamedSharding:
  """Sharding of one array from the logical names of its dims.

  Args:
    names: one per dim; None is not sharded.
    shape: of the array.
    mesh: the mesh.
    what: name of the array, for errors.

  Raises:
    errors.UserError: two dims on one axis, or a dim that its axes do not
      divide.
  """
  spec, taken = [], {}
  for dim, (name, size) in enumerate(zip(names, shape, strict=True)):
    axes = tuple(a for a in RULES.get(name, ()) if mesh.shape[a] > 1)
    for axis in axes:
      if axis in taken:
        raise errors.UserError(
          f"{what}: dims {taken[axis]} and {dim} both lie on mesh axis "
          f"{axis!r} (logical names {tuple(names)}); change parallel.mesh.RULES"
        )
      taken[axis] = dim
    parts = math.prod(mesh.shape[a] for a in axes)
    if size % parts:
      raise errors.UserError(
        f"{what}: dim {dim} ({name}) of size {size} cannot be split over "
        f"{parts} devices of mesh axes {axes}; make it a multiple or the axes "
        "smaller"
      )
    spec.append(axes or None)
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))


def variable_shardings(boxed: Any, *, mesh: jax.sharding.Mesh) -> Any:
  """Shardings of abstract variables that carry logical names.

  Args:
    boxed: what `jax.eval_shape(model.init, ...)` gives.
    mesh: the mesh.

  Returns:
    The same tree without boxes, a NamedSharding for each array.
  """

  def one(path, leaf):
    what = jax.tree_util.keystr(path, simple=True, separator="/")
    return sharding(leaf.names, shape=leaf.value.shape, mesh=mesh, what=what)

  return jax.tree_util.tree_map_with_path(
    one, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned)
  )


def batch_sharding(
  mesh: jax.sharding.Mesh, *, batch_size: int
) -> jax.sharding.NamedSharding:
  """Batches are cut along their first dim.

  Raises:
    errors.UserError: the batch does not divide.
  """
  return sharding(
    ("batch",), shape=(batch_size,), mesh=mesh, what="train.global_batch_size"
  )
