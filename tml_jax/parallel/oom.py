"""A program that does not fit: by how much, and what is large in it.

For: reading the compiler's refusal and the program that it refused. Not for:
programs that fit (`report.py`). Start at `parse`.
"""

import dataclasses
import re

from tml_jax.parallel import chips, hlo

# Compiles what does not fit, to look at it; it could not run.
LOOK_ANYWAY = {"xla_tpu_no_crash_on_oom": "true"}
_REFUSAL = re.compile(
  r"RESOURCE_EXHAUSTED.*?\(([\d.]+)([KMGT])\) exceeds available HBM"
  r" \(([\d.]+)([KMGT])\)",
  re.DOTALL,
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# Names for what another instruction made.
_NO_BUFFER = frozenset(
  """parameter tuple get-tuple-element bitcast while conditional call
  opt-barrier async-done call-done copy-done all-gather-done all-reduce-done
  collective-permute-done dynamic-update-slice constant""".split()
)


@dataclasses.dataclass(frozen=True)
class Refusal:
  """Bytes of HBM of one device."""

  needed: float
  limit: float


@dataclasses.dataclass(frozen=True)
class Tensor:
  """An array that the program makes in HBM.

  Attributes:
    array: type and sizes.
    op_name: where in the traced program it comes from.
    count: instructions that make one like it.
  """

  array: hlo.Array
  op_name: str
  count: int


def parse(message: str) -> Refusal | None:
  """The refusal in a compiler's message; None if it is about another thing."""
  match = _REFUSAL.search(message)
  if match is None:
    return None
  return Refusal(
    needed=float(match[1]) * _UNITS[match[2]],
    limit=float(match[3]) * _UNITS[match[4]],
  )


def largest(module: hlo.Module, *, count: int) -> list[Tensor]:
  """The largest arrays in HBM that instructions make, largest first.

  Each may be live at another time; the compiler does not say which are live
  at the peak.
  """
  found: dict[tuple[hlo.Array, str], int] = {}
  for step in hlo.Walk(module).executed():
    item = step.instruction
    if item.opcode in _NO_BUFFER or _in_place(item, module=module):
      continue
    for array in item.arrays:
      if array.space == 0:
        key = (array, item.op_name)
        found[key] = found.get(key, 0) + 1
  ranked = sorted(found, key=lambda key: -key[0].bytes)[:count]
  return [
    Tensor(array=array, op_name=name, count=found[array, name])
    for array, name in ranked
  ]


def _in_place(item: hlo.Instruction, *, module: hlo.Module) -> bool:
  """Whether a fusion writes into one of its operands."""
  if item.opcode != "fusion":
    return False
  inner = module.computations[item.called["calls"][0]]
  root = inner.root
  while root.opcode in ("bitcast", "copy"):
    root = inner.by_name[root.operands[0]]
  return root.opcode == "dynamic-update-slice"


def describe(refusal: Refusal, *, where: str, tensors: list[Tensor]) -> str:
  """For people: the sentence and the largest tensors."""
  lines = [
    f"does not fit: a device of {where} needs"
    f" {refusal.needed / chips.GIB:.2f} GiB of HBM and has"
    f" {refusal.limit / chips.GIB:.2f},"
    f" {(refusal.needed - refusal.limit) / chips.GIB:.2f} GiB too much",
    "largest tensors that the program makes (not all live at once):",
  ]
  for tensor in tensors:
    lines.append(
      f"  {tensor.array.bytes / chips.GIB:>7.2f} GiB {tensor.array!s:<32}"
      f" x{tensor.count:<3} {tensor.op_name}"
    )
  return "\n".join(lines)
