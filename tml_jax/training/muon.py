"""Muon: momentum of a matrix, made orthogonal, on one device or many.

For: the trunk's matrices in `optim.py`. Not for: tables, gains and biases, nor
what counts as a matrix (`optim.MATRICES`). Start at `scale_by_muon`. Sources:
K. Jordan et al., Muon (2024); scale of updates, arXiv 2502.16982.

On a mesh a matrix lies in pieces, and Newton-Schulz multiplies it by itself
five times: left to the compiler, every device would compute nearly every
product. Here whole matrices are dealt out instead: an all-to-all turns "a piece
of each matrix" into "all of some matrices", each device works on its own, and
a second one brings the pieces back. Two passes of the parameters over the
links, no product done twice. Where there are few of a shape, they are dealt
together.

Legend: X matrices (any batch dims, flattened), R rows, C columns.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

# Quintic iteration with the steepest slope at zero (K. Jordan, Muon).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
EPSILON = 1e-8
RMS = 0.2  # of updates: that of AdamW (arXiv 2502.16982)

PartitionSpec = jax.sharding.PartitionSpec


@dataclasses.dataclass(frozen=True)
class Matrix:
  """How an array is a matrix, or many: dims counted from the last.

  Attributes:
    names: logical names of the last dims; dims before them are not sharded.
    rows: dims summed over by the layer.
    columns: dims it gives. All other dims are batch dims.
  """

  names: tuple[str | None, ...]
  rows: tuple[int, ...]
  columns: tuple[int, ...]

  def axes(self, dim: int) -> tuple[str, ...]:
    """Mesh axes of a dim, under the logical rules in force."""
    if -dim > len(self.names):
      return ()
    rules = dict(nn.get_logical_axis_rules())
    mesh = jax.sharding.get_abstract_mesh()
    axes = rules.get(self.names[dim]) or ()
    axes = (axes,) if isinstance(axes, str) else axes
    return tuple(axis for axis in axes if mesh.shape[axis] > 1)

  def flatten(self, array: jax.Array) -> jax.Array:
    """[X, R, C]."""
    order = self._order(array.ndim)
    rows = math.prod(array.shape[dim] for dim in self.rows)
    columns = math.prod(array.shape[dim] for dim in self.columns)
    return array.transpose(order).reshape(-1, rows, columns)

  def unflatten(self, flat_XRC: jax.Array, *, like: jax.Array) -> jax.Array:
    order = self._order(like.ndim)
    inverse = sorted(range(like.ndim), key=lambda dim: order[dim])
    shape = [like.shape[dim] for dim in order]
    return flat_XRC.reshape(shape).transpose(inverse)

  def _order(self, ndim: int) -> tuple[int, ...]:
    last = tuple(dim % ndim for dim in (*self.rows, *self.columns))
    return (*(dim for dim in range(ndim) if dim not in last), *last)


class State(NamedTuple):
  count: jax.Array
  momentum: Any


def scale_by_muon(
  matrices: Callable[[Any], Any], *, beta: float, dtype: str
) -> optax.GradientTransformation:
  """Orthogonal Nesterov momentum, scaled to AdamW's RMS.

  Args:
    matrices: tree of `Matrix` for a tree of arrays.
    beta: of the momentum.
    dtype: that momentum is kept in.
  """

  def init(params):
    momentum = optax.tree.zeros_like(params, dtype=dtype)
    return State(count=jnp.zeros([], jnp.int32), momentum=momentum)

  def update(updates, state, params=None):
    del params
    with jax.named_scope("momentum"):
      momentum = optax.tree.update_moment(updates, state.momentum, beta, 1)
      count = optax.safe_increment(state.count)
      ahead = jax.tree.map(
        lambda m, g: beta * m + (1 - beta) * g,
        optax.tree.bias_correction(momentum, beta, optax.safe_increment(count)),
        optax.tree.bias_correction(updates, beta, count),
      )
    updates = orthogonal(ahead, matrices(updates))
    return updates, State(
      count=count, momentum=optax.tree.cast(momentum, dtype)
    )

  return optax.GradientTransformation(init, update)


@jax.named_scope("newton_schulz")
def newton_schulz(x_RC: jax.Array) -> jax.Array:
  """Nearly U V^T of x = U S V^T; singular values come out in 0.5 .. 1.5."""
  a, b, c = jnp.asarray(COEFFICIENTS, x_RC.dtype)
  transposed = x_RC.shape[0] > x_RC.shape[1]
  x = x_RC.T if transposed else x_RC
  x /= jnp.linalg.norm(x, ord="fro") + EPSILON
  for _ in range(STEPS):
    square = x @ x.T
    x = a * x + (b * square + c * square @ square) @ x
  return x.T if transposed else x


@jax.named_scope("orthogonal")
def orthogonal(tree: Any, matrices: Any) -> Any:
  """Every matrix of `tree` made orthogonal and scaled."""
  leaves, treedef = jax.tree.flatten(tree)
  kinds = treedef.flatten_up_to(matrices)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    results = [
      kind.unflatten(jax.vmap(newton_schulz)(kind.flatten(leaf)), like=leaf)
      for leaf, kind in zip(leaves, kinds, strict=True)
    ]
  else:
    results = _dealt(leaves, kinds, mesh=mesh)
  scaled = [
    _scale(leaf, kind) * leaf for leaf, kind in zip(results, kinds, strict=True)
  ]
  return treedef.unflatten(scaled)


def _scale(leaf: jax.Array, kind: Matrix) -> jax.Array:
  fans = [
    math.prod(leaf.shape[dim] for dim in dims)
    for dims in (kind.rows, kind.columns)
  ]
  return jnp.sqrt(jnp.maximum(*fans)) * RMS


def _dealt(leaves, kinds, *, mesh) -> list[jax.Array]:
  """`newton_schulz` of matrices that lie in pieces on `mesh`."""
  specs = [
    PartitionSpec(
      *(kind.axes(dim - leaf.ndim) or None for dim in range(leaf.ndim))
    )
    for leaf, kind in zip(leaves, kinds, strict=True)
  ]

  def device(leaves):
    groups: dict[tuple, list[int]] = {}
    flat = []
    for index, (leaf, kind) in enumerate(zip(leaves, kinds, strict=True)):
      flat.append(kind.flatten(leaf))
      # Only the first of the dims of a side may be cut, or flattened pieces
      # would not lie side by side.
      sides = tuple(kind.axes(dims[0]) for dims in (kind.rows, kind.columns))
      # Alone where there are enough of them: joining is a copy.
      many = index if flat[-1].shape[0] >= mesh.size else None
      groups.setdefault((sides, flat[-1].shape[1:], many), []).append(index)
    results = [None] * len(leaves)
    for (sides, *_), members in groups.items():
      joined = jnp.concatenate([flat[index] for index in members])
      done = _deal(joined, rows=sides[0], columns=sides[1], mesh=mesh)
      cuts = [flat[index].shape[0] for index in members]
      starts = [sum(cuts[:i]) for i in range(len(cuts))]
      for index, start, size in zip(members, starts, cuts, strict=True):
        results[index] = kinds[index].unflatten(
          done[start : start + size], like=leaves[index]
        )
    return results

  return jax.shard_map(
    device,
    mesh=mesh,
    in_specs=(specs,),
    out_specs=specs,
    check_vma=False,  # axes that a matrix is not cut over repeat the work
  )(leaves)


def _deal(x_XRC: jax.Array, *, rows, columns, mesh) -> jax.Array:
  """Whole matrices to the devices that hold their pieces, and back."""
  count = x_XRC.shape[0]
  exchanges = [(axis, 1) for axis in reversed(rows)]
  exchanges += [(axis, 2) for axis in reversed(columns)]
  devices = math.prod(mesh.shape[axis] for axis, _ in exchanges)
  x = jnp.pad(x_XRC, ((0, -count % devices), (0, 0), (0, 0)))
  with jax.named_scope("deal"):
    for axis, dim in exchanges:
      x = jax.lax.all_to_all(x, axis, split_axis=0, concat_axis=dim, tiled=True)
  # One by one: temporaries of all a device's experts at once would be most of
  # what the step needs.
  x = jax.lax.map(newton_schulz, x)
  with jax.named_scope("collect"):
    for axis, dim in reversed(exchanges):
      x = jax.lax.all_to_all(x, axis, split_axis=dim, concat_axis=0, tiled=True)
  return x[:count]
