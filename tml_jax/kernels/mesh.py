"""How routed experts and tokens lie on a mesh, by the logical rules in force.

For: `dispatch.py` and `exchange.py`, whose collectives are written by hand. Not
for: the collectives of tokens. Start at `frame`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

PartitionSpec = jax.sharding.PartitionSpec


def axes_of(name: str | None) -> tuple[str, ...]:
  """Mesh axes of a logical name."""
  axes = dict(nn.get_logical_axis_rules()).get(name) or ()
  return (axes,) if isinstance(axes, str) else tuple(axes)


def gather(array: jax.Array, axes: tuple[str, ...], *, dim: int) -> jax.Array:
  """All of `dim`; the transpose is a reduce-scatter."""
  # Axis by axis, inner first: XLA turns a gather over all axes of a mesh into
  # an all-reduce of twice the bytes.
  for axis in reversed(axes):
    array = jax.lax.all_gather(array, axis, axis=dim, tiled=True)
  return array


@dataclasses.dataclass(frozen=True)
class Frame:
  """A map over the devices of the mesh in force.

  Attributes:
    experts: mesh axes of "experts".
    mesh: the mesh.
    names: logical names of the dims of the weights.
  """

  experts: tuple[str, ...]
  mesh: jax.sharding.AbstractMesh
  names: Any

  def map(self, device: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`device(x_BTD, weights, experts_BTk, shares_BTk)` on every device."""
    tokens = PartitionSpec(axes_of("batch"), axes_of("time"))
    weights = jax.tree.map(
      lambda dims: PartitionSpec(*(axes_of(name) or None for name in dims)),
      self.names,
      is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    return jax.shard_map(
      device,
      mesh=self.mesh,
      in_specs=(tokens, weights, tokens, tokens),
      out_specs=tokens,
      check_vma=False,  # the Pallas kernels do not say how they vary
    )

  @jax.named_scope("gather_weights")
  def whole(self, weights: Any) -> Any:
    """Weights with all their dims, but for a part of experts and of F."""
    return jax.tree.map(self.whole_of, weights, self.names)

  def whole_of(
    self, weight: jax.Array, dims: tuple[str | None, ...]
  ) -> jax.Array:
    """One of them."""
    for dim, name in enumerate(dims):
      weight = gather(weight, self.gathered(name), dim=dim)
    return weight

  def gathered(self, name: str | None) -> tuple[str, ...]:
    """Mesh axes over which `whole` brings a dim together."""
    stay = (*self.experts, *axes_of("mlp"))
    return tuple(axis for axis in axes_of(name) if axis not in stay)

  def sum_of_mlp(self, y_ND: jax.Array) -> jax.Array:
    """Sum over the devices that have other parts of expert_d_ff."""
    for axis in axes_of("mlp"):
      y_ND = jax.lax.psum(y_ND, axis)
    return y_ND


def frame(names: Any) -> Frame:
  """The map for weights whose dims have these names.

  Raises:
    ValueError: there is no mesh, or tokens are not cut over the expert axes.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    raise ValueError(
      "this moe_dispatch needs a mesh: trace inside parallel.mesh.use"
    )
  batch, experts = axes_of("batch"), axes_of("experts")
  if not set(experts) <= set(batch):
    raise ValueError(
      f"axes {experts} of 'experts' must be among {batch} of 'batch'"
    )
  return Frame(experts=experts, mesh=mesh, names=names)
