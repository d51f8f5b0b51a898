"""Collectives of a compiled program: kind, mesh axes, bytes, overlap.

For: `find`, every exchange between devices that a program makes, with how
often. Not for: how long it takes (`roofline.py`). Start reading at `find`.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from tml_jax.compiled import executed, hlo

KINDS = (
  "all-gather",
  "reduce-scatter",
  "all-reduce",
  "all-to-all",
  "ragged-all-to-all",
  "collective-permute",
  "collective-broadcast",
)
_GROUP = re.compile(r"\{([\d,]*)\}")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
  r"mesh\[([^\]]*)\](?:, device_ids=\(([^)]*(?:\([^)]*\))?)\))? \{([^}]*)\}"
)
_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")
_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_EMITTER = re.compile(r'"emitter":"([^"]*)"')
# Of its strategy, in words for people: the rings that it runs at once.
_RINGS = re.compile(r"Strategy\w*\{[^}]*?\bcores:\{([\d ]+)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
  """One exchange, in the words of the device that takes part in it.

  Attributes:
    kind: one of KINDS.
    group: partition ids of the first group that exchanges.
    bytes: of the whole buffer: what an all-gather gives, what the others
      take.
    count: times in one call of the program.
    is_async: other work can run meanwhile.
    emitter: the compiler's algorithm; empty if it names none.
    rings: sizes of the rings that it runs over at once; empty if it names none.
    op_name: where it comes from.
    between_slices: over the network; `group` numbers slices, and `bytes` is
      what a device hands to its host.
  """

  kind: str
  group: tuple[int, ...]
  bytes: float
  count: int
  is_async: bool
  emitter: str
  op_name: str
  rings: tuple[int, ...] = ()
  between_slices: bool = False

  @property
  def wire_bytes(self) -> float:
    """Bytes that a device receives, once."""
    n = len(self.group)
    if self.kind == "collective-permute":
      return self.bytes
    if self.between_slices and self.kind == "all-gather":
      return self.bytes * (n - 1)
    share = self.bytes * (n - 1) / n
    return 2 * share if self.kind == "all-reduce" else share


def find(module: hlo.Module, *, num_devices: int) -> list[Collective]:
  """All collectives of a program; groups of one device are none."""
  result = []
  for step in executed.Walk(module).executed():
    item = step.instruction
    found = _direct(item, step.computation)
    is_async = step.is_async or item.opcode.endswith("-start")
    parts = [] if found is None else [(found, is_async)]
    if item.opcode == "fusion":
      parts = _inside(item, module=module)
    elif item.opcode == "send" and _TRANSFER.search(item.attributes):
      result.append(_between_slices(item, step))
    for (kind, source, size), overlaps in parts:
      group = first_group(source) or tuple(range(num_devices))
      if len(group) != 1:
        emitter = _stated(_EMITTER, source, item)
        rings = _stated(_RINGS, source, item)
        result.append(
          Collective(
            kind=kind,
            group=group,
            bytes=size,
            count=step.count,
            is_async=overlaps or step.is_async,
            emitter=emitter[1] if emitter else "",
            rings=tuple(map(int, rings[1].split())) if rings else (),
            op_name=source.op_name or item.op_name,
          )
        )
  return result


def _stated(pattern, *items: hlo.Instruction) -> re.Match | None:
  """The first match in what the compiler says of these."""
  found = (pattern.search(item.attributes) for item in items)
  return next((match for match in found if match), None)


def _between_slices(
  item: hlo.Instruction, step: executed.Executed
) -> Collective:
  """What a slice sends to the others through its hosts."""
  kind = _TRANSFER.search(item.attributes)[1].lower().replace("_", "-")
  slices = re.search(r'_xla_megascale_target="\{([\d,]+)\}', item.attributes)
  sent = step.computation.by_name[item.operands[0]]
  return Collective(
    kind=kind,
    group=tuple(range(len(_ints(slices[1])))) if slices else (0, 1),
    bytes=float(sum(a.bytes for a in sent.arrays)),
    count=step.count,
    is_async=True,
    emitter="",
    op_name=item.op_name or sent.op_name,
    between_slices=True,
  )


def _direct(item: hlo.Instruction, scope: hlo.Computation):
  """(kind, instruction, bytes) of a collective; None of anything else."""
  kind = item.opcode.removesuffix("-start")
  if kind not in KINDS:
    return None
  operands = [a for o in scope.operands_of(item) for a in o.arrays]
  if kind == "all-gather":
    arrays = item.arrays
    if item.opcode.endswith("-start"):  # (operands, results, context)
      count = len(operands)
      arrays = item.arrays[count : 2 * count]
  elif kind == "ragged-all-to-all":
    arrays = operands[:1]
  else:
    arrays = operands
  return kind, item, float(sum(a.bytes for a in arrays))


def _inside(fusion: hlo.Instruction, *, module: hlo.Module):
  """Collectives of a fusion, and whether they overlap with its work.

  A TPU writes reduce-scatter as a fusion called all-reduce-scatter. A gather
  that runs beside several fusions is written in each of them; it counts where
  it starts.
  """
  name = fusion.called["calls"][0]
  inner = module.computations[name]
  starts = any(
    "AsyncCollectiveStart" in i.attributes for i in inner.instructions
  )
  found = []
  for item in inner.instructions:
    if item.opcode == "fusion":
      found += _inside(item, module=module)
      continue
    part = _direct(item, inner)
    if part is None:
      continue
    kind, source, size = part
    chained = "chain_id=" in source.attributes
    if chained and not starts:
      continue
    if kind == "all-reduce" and "all-reduce-scatter" in name:
      kind = "reduce-scatter"
    found.append(((kind, source, size), chained or "async" in name))
  return found


def first_group(item: hlo.Instruction) -> tuple[int, ...]:
  """Ids of one group of partitions that exchange; empty means all.

  Raises:
    ValueError: groups in a notation that is not known here.
  """
  text = item.attributes
  pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", text)
  if pairs:
    for pair in _GROUP.findall(pairs[1] + "}"):
      source, target = _ints(pair)
      if source != target:
        return source, target
    return (0,)
  match = re.search(r"replica_groups=(.*)", text)
  if match is None:
    return ()
  rest = match[1]
  if rest.startswith("mesh["):
    return _mesh_group(_MESH.match(rest))
  iota = _IOTA.match(rest)
  if iota:
    shape = _ints(iota[1])
    ids = _reordered(_ints(iota[2]), _ints(iota[3]))
    return tuple(int(x) for x in ids.reshape(shape)[0])
  first = _GROUP.match(rest.removeprefix("{"))
  if first:
    return tuple(_ints(first[1]))
  if rest.startswith("{}"):
    return ()  # all of them
  raise ValueError(f"unknown notation of groups: {rest[:200]}")


def _ints(text: str | None) -> list[int]:
  return [int(x) for x in (text or "").split(",") if x]


def _reordered(dims: Sequence[int], order: Sequence[int]) -> np.ndarray:
  ids = np.arange(math.prod(dims)).reshape(dims)
  return ids.transpose(order) if order else ids


def _mesh_group(match: re.Match) -> tuple[int, ...]:
  """mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}: the group along 'a'."""
  sizes = {
    name.strip("'"): int(size)
    for name, size in (part.split("=") for part in match[1].split(","))
  }
  order = match[2] or ""
  iota = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", order)
  if iota:
    ids = _reordered(_ints(iota[1]), _ints(iota[2]))
  elif order:
    ids = np.array(_ints(order))
  else:
    ids = np.arange(math.prod(sizes.values()))
  ids = ids.reshape(tuple(sizes.values()))
  # A part of an axis, 'a':(before)size, is made an axis of its own.
  wanted = _AXIS.findall(match[3])
  names = list(sizes)
  shape, labels = [], []
  for name in names:
    cuts = [(int(b), int(s)) for n, b, s in wanted if n == name and s]
    left = sizes[name]
    before = 1
    for start, size in sorted(cuts):
      if start > before:
        shape.append(start // before)
        labels.append((name, None))
      shape.append(size)
      labels.append((name, start))
      before = start * size
    shape.append(left // before)
    labels.append((name, None if cuts else 0))
  ids = ids.reshape(shape)
  keys = [(n, int(b) if s else 0) for n, b, s in wanted]
  dims = [labels.index(key) for key in keys]
  ids = np.moveaxis(ids, dims, range(ids.ndim - len(dims), ids.ndim))
  size = math.prod(ids.shape[ids.ndim - len(dims) :])
  return tuple(int(x) for x in ids.reshape(-1, size)[0])


def axes(
  group: Sequence[int], *, mesh_shape: Sequence[int], names: Sequence[str]
) -> tuple[str, ...]:
  """Mesh axes along which the partitions of a group differ."""
  places = np.array(np.unravel_index(list(group), mesh_shape))
  return tuple(
    name
    for name, row in zip(names, places, strict=True)
    if len(set(row.tolist())) > 1
  )
