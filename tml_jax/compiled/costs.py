"""What one instruction of a compiled program costs: FLOPs and HBM bytes.

For: `flops`, `products`, `hbm_bytes` and `host_bytes` of an instruction of
`executed.Walk`, run once. Not for: collectives (`collectives.py`), time
(`roofline.py`). Start reading at `products`. FLOPs are those of matrix products
(dots, convolutions, kernels that state them), two for a multiplication and
addition, as in `training/flops.py`; elementwise work shows in the bytes.
"""

import dataclasses
import json
import math
import re

import numpy as np

from tml_jax.compiled import hlo

_WINDOW_FIELD = re.compile(r"(\w+)=(\S+)")
_DIM_LABELS = re.compile(r"([\w?]+)_([\w?]+)->([\w?]+)")
_ESTIMATE = re.compile(r'"cost_estimate":\{([^{}]*)\}')
# Custom calls that move or allocate data and multiply nothing.
_NO_FLOPS = (
  "AllocateBuffer",
  "AssumeGatherIndicesInBound",
  "AsyncCollective",
  "ConcatBitcast",
  "ConvertTile",
  "GatherScatterIndices",
  "MoveToHost",
  "MoveToDevice",
  "PlaceHolder",
  "PrepareAsyncCall",
  "ResizeNearest",
  "Sharding",
  "SPMDFullToShardShape",
  "SPMDShardToFullShape",
  "TopK",
  "ZeroCrop",
  "X64",
  "annotate_device_placement",
  "xla.sdy",
)
# Instructions that touch no memory themselves: names, control, or work that
# is counted inside of them.
_FREE = frozenset(
  """parameter constant tuple get-tuple-element bitcast while conditional call
  after-all partition-id replica-id iota opt-barrier domain token slice-done
  dynamic-slice-done dynamic-update-slice-done
  async-start async-update async-done call-start call-done copy-done
  all-gather-done all-reduce-done collective-permute-done send recv send-done
  recv-done add-dependency rng-get-and-update-state""".split()
)


_HOST = 5  # memory space
# A part of an array to another memory, or into an array in another one.
_MOVES_A_PART = ("dynamic-slice-start", "dynamic-update-slice-start")


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What a kernel says about itself."""

  flops: float
  bytes: float


def custom_call_target(item: hlo.Instruction) -> str:
  return (item.attribute("custom_call_target") or "").strip('"')


def estimate(item: hlo.Instruction) -> Estimate | None:
  """The cost estimate of a Pallas kernel; None when it gives none."""
  match = _ESTIMATE.search(item.attributes)
  if match is None:
    return None
  fields = json.loads("{" + match[1] + "}")
  return Estimate(
    flops=float(fields.get("flops", 0)),
    bytes=float(fields.get("bytes_accessed", 0)),
  )


@dataclasses.dataclass(frozen=True)
class Product:
  """Matrix products of one shape, [rows, depth] @ [depth, columns].

  Attributes:
    flops: of all of them.
    sizes: what is known of rows, columns and depth.
    dtype: of the wider operand, in XLA's words.
  """

  flops: float
  sizes: tuple[int, ...]
  dtype: str

  def filled(self, mxu: int) -> float:
    """FLOPs with every size filled up to whole matrix units of `mxu`.

    Rows, too: while fewer of them pass than a unit has, it waits for its next
    weights.
    """
    ratio = 1.0
    for size in self.sizes:
      ratio *= -(-size // mxu) * mxu / size
    return self.flops * ratio


def flops(
  item: hlo.Instruction, *, scope: hlo.Computation, module: hlo.Module
) -> float | None:
  """FLOPs of matrix products; None for a kernel that does not state them."""
  found = products(item, scope=scope, module=module)
  return None if found is None else sum(p.flops for p in found)


def products(
  item: hlo.Instruction, *, scope: hlo.Computation, module: hlo.Module
) -> list[Product] | None:
  """Matrix products of an instruction; None for a kernel that states none.

  A kernel tells how many FLOPs, not of which shapes: it is taken to be as wide
  as the last dim of its largest operand (of attention, `head_dim`).
  """
  if item.opcode == "dot":
    return _dot(item, scope)
  if item.opcode == "convolution":
    return _convolution(item, scope)
  if item.opcode == "ragged-dot":
    # Without a kernel: every row against one expert is what it needs.
    return _last_by_last(item, scope)
  if item.opcode == "custom-call":
    target = custom_call_target(item)
    if target.startswith(_NO_FLOPS):
      return []
    if "matmul" in target.lower():  # CPU libraries: [.., M, K] @ [.., K, N]
      return _last_by_last(item, scope)
    known = estimate(item)
    arrays = [a for o in scope.operands_of(item) for a in o.arrays if a.dims]
    if known is None:
      # Of indices alone: the plan of a ragged product.
      is_plan = {a.dtype for a in (*arrays, *item.arrays)} == {"s32"}
      return [] if is_plan else None
    if not known.flops or not arrays:
      return []
    by_size = sorted(arrays, key=lambda a: -a.elements)
    width = (max(1, by_size[0].dims[-1]),)
    return [Product(known.flops, width, _wider(*by_size[:2]))]
  if item.opcode == "fusion":
    inner = module.computations[item.called["calls"][0]]
    total: list[Product] = []
    for part in inner.instructions:
      found = products(part, scope=inner, module=module)
      if found is None:
        return None
      total += found
    return total
  return []


def _wider(*operands: hlo.Array) -> str:
  """Dtype of the operand whose elements have more bits."""
  return max(operands, key=lambda a: a.bytes / max(1, a.elements)).dtype


def _last_by_last(
  item: hlo.Instruction, scope: hlo.Computation
) -> list[Product]:
  """[.., rows, depth] @ [.., depth, columns]."""
  left, right = (scope.by_name[name].arrays[0] for name in item.operands[:2])
  depth = left.dims[-1]
  out = item.arrays[0]
  if not out.elements * depth:
    return []
  sizes = (*out.dims[-2:], depth)
  return [Product(2.0 * out.elements * depth, sizes, _wider(left, right))]


def _numbers(text: str | None) -> list[int]:
  return [int(x) for x in (text or "").split(",") if x]


def _dot(item: hlo.Instruction, scope: hlo.Computation) -> list[Product]:
  left, right = (scope.by_name[name].arrays[0] for name in item.operands[:2])
  contracting = _numbers(item.attribute("lhs_contracting_dims"))
  batch = _numbers(item.attribute("lhs_batch_dims"))
  depth = math.prod(left.dims[dim] for dim in contracting)
  rows = math.prod(
    size
    for dim, size in enumerate(left.dims)
    if dim not in contracting and dim not in batch
  )
  elements = item.arrays[0].elements
  if not elements * depth:
    return []
  columns = elements // rows // math.prod(left.dims[dim] for dim in batch)
  sizes = (rows, columns, depth)
  return [Product(2.0 * elements * depth, sizes, _wider(left, right))]


def _convolution(
  item: hlo.Instruction, scope: hlo.Computation
) -> list[Product]:
  """Counts products with padding and holes left out.

  A TPU writes every dot as a convolution; batch dims become spatial dims
  whose window slides over holes, so that output times window overcounts.
  """
  left, right = (scope.by_name[name].arrays[0] for name in item.operands[:2])
  out = item.arrays[0]
  labels = _DIM_LABELS.search(item.attribute("dim_labels"))
  left_labels, right_labels, out_labels = labels[1], labels[2], labels[3]
  window = _window(item.attribute("window"))
  positions = 1.0
  for letter in (c for c in out_labels if c.isdigit()):
    positions *= _valid_positions(
      out=out.dims[out_labels.index(letter)],
      size=left.dims[left_labels.index(letter)],
      kernel=right.dims[right_labels.index(letter)],
      **window.get(int(letter), {}),
    )
  batch = out.dims[out_labels.index("b")]
  features = out.dims[out_labels.index("f")]
  # Of one group; so is `batch` of the output.
  depth = right.dims[right_labels.index("i")]
  if not positions * depth * batch * features:
    return []
  return [
    Product(
      2.0 * batch * features * depth * positions,
      (batch, features, depth),
      _wider(left, right),
    )
  ]


def _window(text: str | None) -> dict[int, dict[str, int]]:
  """Arguments of `_valid_positions` by spatial dim."""
  result: dict[int, dict[str, int]] = {}
  names = {
    "stride": "stride",
    "lhs_dilate": "holes",
    "rhs_dilate": "dilation",
    "pad": "pad",
  }
  for key, values in _WINDOW_FIELD.findall(text or ""):
    if key not in names:  # the size is the kernel's; reversal moves nothing
      continue
    for dim, value in enumerate(values.split("x")):
      number = int(value.split("_")[0])
      result.setdefault(dim, {})[names[key]] = number
  return result


def _valid_positions(
  *,
  out: int,
  size: int,
  kernel: int,
  stride: int = 1,
  holes: int = 1,
  dilation: int = 1,
  pad: int = 0,
) -> int:
  """Pairs (output, kernel element) that meet an element of the input.

  Output o and element k meet o * stride + k * dilation - pad, which must be
  one of 0, holes, 2 * holes, ...: every `step`-th k between two ends.
  """
  behind = pad - np.arange(out) * stride  # k * dilation must be this or more
  common = math.gcd(dilation, holes)
  step = holes // common
  first = behind // common * pow(dilation // common, -1, step) % step
  lowest = np.maximum(-(-behind // dilation), 0)
  highest = np.minimum((behind + (size - 1) * holes) // dilation, kernel - 1)
  start = lowest + (first - lowest) % step
  count = np.maximum((highest - start) // step + 1, 0)
  return int(count[behind % common == 0].sum())


def hbm_bytes(
  item: hlo.Instruction, *, scope: hlo.Computation, module: hlo.Module
) -> float:
  """Bytes read from and written to HBM; on-chip memory does not count.

  A slice of a large array reads the slice, an update in place writes the
  update: scans over stacked layers do both in every iteration.
  """
  if item.opcode in _FREE:
    return 0.0
  operands = scope.operands_of(item)
  if item.opcode == "custom-call":
    known = estimate(item)
    if known is not None and known.bytes:
      return known.bytes
    if custom_call_target(item).startswith("AllocateBuffer"):
      return 0.0
  if item.opcode == "fusion":
    return _fusion_bytes(item, scope=scope, module=module)
  if item.opcode == "slice-start":  # ((source), destination, context)
    source, part = item.arrays[:2]
    return float(part.bytes * ((source.space == 0) + (part.space == 0)))
  if item.opcode in _MOVES_A_PART:
    whole, part = _whole_and_part(item)
    return float(part.bytes * ((whole.space == 0) + (part.space == 0)))
  if item.opcode.endswith("-start"):  # (destination, source, context)
    return _sum(item.arrays[:1]) + sum(_sum(o.arrays) for o in operands)
  if item.opcode in ("dynamic-slice", "slice", "gather"):
    part, ends = item.arrays, (operands[0].arrays, item.arrays)
  elif item.opcode == "dynamic-update-slice":
    part, ends = operands[1].arrays, (operands[1].arrays, item.arrays)
  elif item.opcode == "scatter":
    part, ends = operands[-1].arrays, (operands[-1].arrays, item.arrays)
  else:
    part, ends = (), ()
  if ends:
    in_hbm = sum(end[0].space == 0 for end in ends)
    return float(in_hbm * sum(a.bytes for a in part))
  return _sum(item.arrays) + sum(_sum(o.arrays) for o in operands)


def host_bytes(item: hlo.Instruction, *, scope: hlo.Computation) -> float:
  """Bytes that a copy moves between the host's memory and the chip's."""
  if item.opcode in _FREE or item.opcode == "fusion":
    return 0.0
  operands = [a for o in scope.operands_of(item) for a in o.arrays]
  results = list(item.arrays)
  if item.opcode in _MOVES_A_PART:
    operands, results = [[each] for each in _whole_and_part(item)]
  elif item.opcode in ("copy-start", "slice-start"):
    operands, results = operands[:1], results[:2]
  elif item.opcode == "dynamic-update-slice":
    operands, results = operands[1:2], results[:1]  # what is written, where
  spaces = {a.space == _HOST for a in (*operands[:1], *results)}
  if spaces != {True, False}:
    return 0.0
  return float(min(a.bytes for a in (*operands[:1], *results)))


def _whole_and_part(item: hlo.Instruction) -> tuple[hlo.Array, hlo.Array]:
  """Of a `_MOVES_A_PART`, beside whose arrays are scalars and a context."""
  whole, *others = item.arrays
  rank = len(whole.dims)
  return whole, min(
    (a for a in others if a.dtype == whole.dtype and len(a.dims) == rank),
    key=lambda a: a.bytes,
  )


def _sum(arrays: tuple[hlo.Array, ...]) -> float:
  return float(sum(a.bytes for a in arrays if a.space == 0))


def _fusion_bytes(
  item: hlo.Instruction, *, scope: hlo.Computation, module: hlo.Module
) -> float:
  inner = module.computations[item.called["calls"][0]]
  total = 0.0
  for index, operand in enumerate(scope.operands_of(item)):
    if index in inner.parameters:
      whole = _sum(operand.arrays)
      read = _read_of(inner.parameters[index], scope=inner, module=module)
      total += whole if read is None else min(whole, read)
  return total + min(
    _sum(item.arrays), _written_by(inner.root, scope=inner, space=item.arrays)
  )


def _read_of(
  value: hlo.Instruction, *, scope: hlo.Computation, module: hlo.Module
) -> float | None:
  """Bytes read of a fusion's parameter; None means all of it."""
  total = 0.0
  for user in scope.users.get(value.name, []):
    if user.opcode in ("dynamic-slice", "slice", "gather"):
      if user.operands[0] != value.name:
        return None
      total += sum(a.bytes for a in user.arrays)
    elif user.opcode == "dynamic-update-slice":
      if user.operands[0] != value.name:
        return None  # it is the update: read whole; else written in place
    elif user.opcode in ("bitcast", "copy", "fusion"):
      if user.opcode == "fusion":
        inner = module.computations[user.called["calls"][0]]
        index = user.operands.index(value.name)
        part = _read_of(inner.parameters[index], scope=inner, module=module)
      else:
        part = _read_of(user, scope=scope, module=module)
        if not scope.users.get(user.name):  # it is the result
          part = None
      if part is None:
        return None
      total += part
    elif user.opcode == "tuple" or _is_handover(user):
      continue
    else:
      return None
  return total


def _is_handover(item: hlo.Instruction) -> bool:
  """A collective that goes on beside a fusion's own work."""
  return item.opcode == "all-gather" or (
    item.opcode == "custom-call"
    and custom_call_target(item).startswith("AsyncCollective")
  )


def _written_by(
  root: hlo.Instruction,
  *,
  scope: hlo.Computation,
  space: tuple[hlo.Array, ...],
) -> float:
  """Bytes that a fusion writes; `space` gives the memory of its results."""
  if root.opcode == "tuple":
    parts = scope.operands_of(root)
    if len(parts) != len(space):
      return _sum(space)
    return sum(
      _written_by(part, scope=scope, space=(array,))
      for part, array in zip(parts, space, strict=True)
    )
  if all(a.space for a in space) or root.opcode == "parameter":
    return 0.0
  if _is_handover(root):
    return 0.0
  while root.opcode in ("bitcast", "copy"):
    root = scope.by_name[root.operands[0]]
  if root.opcode == "dynamic-update-slice":
    update = scope.by_name[root.operands[1]]
    return float(sum(a.bytes for a in update.arrays))
  return _sum(space)
