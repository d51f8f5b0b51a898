"""The device mesh and what logical names mean on it.

For: every sharding in the project; models only name their dims. Not for:
choosing rules and sizes (`experiments/topologies.py`), collectives written by
hand. Start reading at `create` and `sharding`.

axis = of the mesh, dim = of an array.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils

from tml_jax import errors
from tml_jax.config import MeshConfig
from tml_jax.config import mesh as mesh_config

AXES = mesh_config.AXES
AnyMesh = jax.sharding.Mesh | jax.sharding.AbstractMesh
Rules = Mapping[str, tuple[str, ...]]


def shape(config: MeshConfig) -> tuple[int, ...]:
  """Sizes in the order of AXES."""
  return tuple(getattr(config, axis) for axis in AXES)


def check(config: MeshConfig, *, num_devices: int) -> None:
  """Whether the sizes and rules use exactly `num_devices`.

  Raises:
    errors.UserError: the product of the sizes is another number, slices do
      not divide `data`, or no rule uses an axis, whose devices would repeat
      one another's work.
  """
  sizes = ", ".join(f"mesh.{axis}={getattr(config, axis)}" for axis in AXES)
  if math.prod(shape(config)) != num_devices:
    raise errors.UserError(
      f"{sizes} need {math.prod(shape(config))} devices and there are "
      f"{num_devices}; choose sizes whose product is the number of devices"
    )
  if config.data % config.slices:
    raise errors.UserError(
      f"mesh.data = {config.data} cannot be split over mesh.slices = "
      f"{config.slices}: only `data` crosses slices, make it a multiple"
    )
  used = {axis for axes in config.axis_rules.values() for axis in axes}
  for axis, size in zip(AXES, shape(config), strict=True):
    if size > 1 and axis not in used:
      raise errors.UserError(
        f"mesh.{axis} = {size}: no rule of mesh.rules uses axis {axis!r}, its "
        "devices would repeat one another's work; set it to 1 or add a rule"
      )


def create(
  config: MeshConfig, *, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """The mesh over all devices, its axes along the rings of a TPU slice.

  With several slices `data` goes over the network between them and within
  each slice as far as it is larger than their number; every other axis stays
  inside a slice.

  Raises:
    errors.UserError: as `check`; or the axes do not lie on the torus.
  """
  devices = list(jax.devices() if devices is None else devices)
  check(config, num_devices=len(devices))
  within = (config.data // config.slices, *shape(config)[1:])
  found = {getattr(device, "slice_index", None) or 0 for device in devices}
  if devices[0].platform == "tpu" and len(found) != config.slices:
    raise errors.UserError(
      f"mesh.slices = {config.slices} and the devices are in {len(found)} "
      "slices; set it to the number of slices"
    )
  try:
    if config.slices == 1:
      grid = mesh_utils.create_device_mesh(within, devices)
    elif devices[0].platform == "tpu":
      across = (config.slices, *(1 for _ in within[1:]))
      grid = mesh_utils.create_hybrid_device_mesh(within, across, devices)
    else:  # devices without slices stand for them in their order
      grid = np.asarray(devices).reshape(shape(config))
  except (NotImplementedError, ValueError) as error:
    sizes = dict(zip(AXES, within, strict=True))
    raise errors.UserError(
      f"mesh axes {sizes} do not lie on the torus of the {len(devices)} "
      "devices: every axis needs whole torus dims, or products of them"
    ) from error
  return jax.sharding.Mesh(grid, AXES)


def abstract(config: MeshConfig) -> jax.sharding.AbstractMesh:
  """The mesh without devices, for shapes and shardings."""
  check(config, num_devices=math.prod(shape(config)))
  return jax.sharding.AbstractMesh(shape(config), AXES)


@contextlib.contextmanager
def use(mesh: jax.sharding.Mesh, *, rules: Rules) -> Iterator[None]:
  """Makes the model's logical constraints mean `mesh` while tracing."""
  with jax.set_mesh(mesh), nn.logical_axis_rules(list(rules.items())):
    yield


def sharding(
  names: Sequence[str | None],
  *,
  shape: Sequence[int],
  mesh: AnyMesh,
  rules: Rules,
  what: str,
) -> jax.sharding.NamedSharding:
  """Sharding of one array from the logical names of its dims.

  Args:
    names: one per dim; None is not sharded.
    shape: of the array.
    mesh: the mesh.
    rules: mesh axes by logical name; a name without a rule is not sharded.
    what: name of the array, for errors.

  Raises:
    errors.UserError: two dims on one axis, or a dim that its axes do not
      divide.
  """
  spec, taken = [], {}
  for dim, (name, size) in enumerate(zip(names, shape, strict=True)):
    axes = tuple(a for a in rules.get(name, ()) if mesh.shape[a] > 1)
    for axis in axes:
      if axis in taken:
        raise errors.UserError(
          f"{what}: dims {taken[axis]} and {dim} both lie on mesh axis "
          f"{axis!r} (logical names {tuple(names)}); change mesh.rules"
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


def variable_shardings(boxed: Any, *, mesh: AnyMesh, rules: Rules) -> Any:
  """Shardings of abstract variables that carry logical names.

  Args:
    boxed: what `jax.eval_shape(model.init, ...)` gives.
    mesh: the mesh.
    rules: mesh axes by logical name.

  Returns:
    The same tree without boxes, a NamedSharding for each array.
  """

  def one(path, leaf):
    what = jax.tree_util.keystr(path, simple=True, separator="/")
    return sharding(
      leaf.names, shape=leaf.value.shape, mesh=mesh, rules=rules, what=what
    )

  return jax.tree_util.tree_map_with_path(
    one, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned)
  )


def batch_sharding(
  mesh: AnyMesh, *, rules: Rules, batch_size: int
) -> jax.sharding.NamedSharding:
  """Batches are cut along their first dim.

  Raises:
    errors.UserError: the batch does not divide.
  """
  return sharding(
    ("batch",),
    shape=(batch_size,),
    mesh=mesh,
    rules=rules,
    what="train.global_batch_size / train.accumulation_steps",
  )
