"""A program that does not fit: by how much, and what is live at its peak.

For: reading the compiler's refusal and what it wrote down beside it. Not for:
programs that fit (`report.py`). Start at `parse`, then `at_peak`.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

from tml_jax import errors
from tml_jax.compiled import hlo
from tml_jax.parallel import chips

_REFUSAL = re.compile(
  r"RESOURCE_EXHAUSTED.*?\(([\d.]+)([KMGT])\) exceeds available HBM"
  r" \(([\d.]+)([KMGT])\)",
  re.DOTALL,
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# The compiler's files: the program at the refusal, and who lives how long.
_PROGRAM = "oom_intermediate_module.txt"
_LIVE = "after_optimizations-live-range.txt"
_PEAK = re.compile(r"^  Live ranges at \d+ \(peak\):$")
_BUFFER = re.compile(r"^    (\S+)\{([\d,]*)\}: (\d+) bytes")


@dataclasses.dataclass(frozen=True)
class Refusal:
  """Bytes of HBM of one device."""

  needed: float
  limit: float


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Arrays that are live at the peak and alike.

  Attributes:
    shape: type and sizes of one.
    op_name: where in the traced program it comes from; an argument's name.
    bytes: of one, as the compiler lays it out.
    count: how many.
  """

  shape: str
  op_name: str
  bytes: int
  count: int


def dump_options(directory: pathlib.Path) -> dict[str, str | bool]:
  """Compiler options that write what `at_peak` reads into `directory`."""
  return {"xla_dump_to": str(directory), "xla_dump_hlo_as_text": True}


def parse(message: str) -> Refusal | None:
  """The refusal in a compiler's message; None if it is about another thing."""
  match = _REFUSAL.search(message)
  if match is None:
    return None
  return Refusal(
    needed=float(match[1]) * _UNITS[match[2]],
    limit=float(match[3]) * _UNITS[match[4]],
  )


def at_peak(directory: pathlib.Path, *, count: int) -> list[Tensor]:
  """What takes most of HBM where the refused program needs most of it.

  Args:
    directory: what `dump_options` named.
    count: how many to return, largest sum first.

  Raises:
    errors.UserError: the compiler wrote no such files.
  """
  try:
    (program,) = directory.glob(f"*.{_PROGRAM}")
    (live,) = directory.glob(f"*.{_LIVE}")
  except ValueError:
    raise errors.UserError(
      f"the compiler refused the program and wrote no *.{_PROGRAM} and"
      f" *.{_LIVE} into {directory}: take the versions that setup.py's"
      " `aot` extra names"
    ) from None
  instructions = {
    item.name: item
    for computation in hlo.parse(program.read_text()).computations.values()
    for item in computation.instructions
  }
  counts: dict[tuple[str, str, int], int] = {}
  for name, index, size in _live(live.read_text()):
    item = instructions.get(name)
    shape, op_name = "", name
    if item is not None:
      op_name = item.op_name or name
      place = index[0] if len(index) == 1 else 0
      if len(index) <= 1 and place < len(item.arrays):
        shape = str(item.arrays[place])
    key = (shape, op_name, size)
    counts[key] = counts.get(key, 0) + 1
  tensors = [
    Tensor(shape=shape, op_name=op_name, bytes=size, count=n)
    for (shape, op_name, size), n in counts.items()
  ]
  return sorted(tensors, key=lambda t: -t.bytes * t.count)[:count]


def _live(text: str) -> Iterator[tuple[str, tuple[int, ...], int]]:
  """Instruction, index in its result and bytes of all that the peak holds."""
  lines = iter(text.splitlines())
  for line in lines:
    if _PEAK.match(line):
      break
  for line in lines:
    match = _BUFFER.match(line)
    if match is None:
      return
    index = tuple(int(part) for part in match[2].split(",") if part)
    yield match[1], index, int(match[3])


def describe(refusal: Refusal, *, where: str, tensors: list[Tensor]) -> str:
  """For people: the sentence and the largest tensors."""
  lines = [
    f"does not fit: a device of {where} needs"
    f" {refusal.needed / chips.GIB:.2f} GiB of HBM and has"
    f" {refusal.limit / chips.GIB:.2f},"
    f" {(refusal.needed - refusal.limit) / chips.GIB:.2f} GiB too much",
    "largest tensors at the peak:",
  ]
  for tensor in tensors:
    lines.append(
      f"  {tensor.bytes * tensor.count / chips.GIB:>7.2f} GiB"
      f" {tensor.shape:<32} x{tensor.count:<3} {tensor.op_name}"
    )
  return "\n".join(lines)
