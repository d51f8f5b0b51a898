"""Compiled programs as XLA prints them: computations, instructions.

For: reading `compiled.as_text()`. Not for: how often an instruction runs
(`executed.py`) or what it costs (`costs.py`). Start reading at `parse`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

# Bits of one element; a type that is not here holds no data.
_BITS = {
  **dict.fromkeys(("s64", "u64", "f64", "c64"), 64),
  **dict.fromkeys(("s32", "u32", "f32"), 32),
  **dict.fromkeys(("s16", "u16", "f16", "bf16"), 16),
  **dict.fromkeys(("s8", "u8", "pred"), 8),
  **dict.fromkeys(("s4", "u4", "f4e2m1fn"), 4),
  **dict.fromkeys(("s2", "u2"), 2),
  **dict.fromkeys(("s1", "u1"), 1),
  "c128": 128,
}
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^  (ROOT )?%?([\w.\-]+) = (.*)$")
_SPACE = re.compile(r"S\((\d+)\)")
# Attributes that name computations which run when the instruction runs.
_CALLED = re.compile(
  r"\b(calls|to_apply|body|condition|true_computation|false_computation)="
  r"%?([\w.\-]+)"
)
_CALLED_LISTS = re.compile(
  r"\b(branch_computations|called_computations)=\{([^}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of an instruction's result.

  Attributes:
    dtype: of an element, in XLA's words.
    dims: sizes.
    space: memory space of the layout; 0 is HBM, 1 on-chip memory, 5 the host.
  """

  dtype: str
  dims: tuple[int, ...]
  space: int

  @property
  def elements(self) -> int:
    return math.prod(self.dims)

  @property
  def bytes(self) -> int:
    """Of the elements, without padding; 0 for tokens and opaque values."""
    bits = 8 if self.dtype.startswith("f8") else _BITS.get(self.dtype, 0)
    return math.ceil(self.elements * bits / 8)

  def __str__(self) -> str:
    return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: unique in its computation.
    opcode: "dot", "fusion", ...
    arrays: leaves of the result.
    operands: names of instructions in the same computation.
    literal: what stands between the operands' parentheses.
    attributes: the rest of the line.
    is_root: whether it is the computation's result.
  """

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  literal: str
  attributes: str
  is_root: bool

  def attribute(self, name: str) -> str | None:
    """Value of `name={...}` or `name=...`, without the braces."""
    match = re.search(
      rf"(?<![\w]){name}=(?:\{{([^{{}}]*)\}}|([^,\s]+))", self.attributes
    )
    if match is None:
      return None
    return match[1] if match[1] is not None else match[2]

  @functools.cached_property
  def called(self) -> dict[str, tuple[str, ...]]:
    """Names of computations by the attribute that calls them."""
    result: dict[str, tuple[str, ...]] = {}
    # Strings of backends and metadata lie behind the structural attributes.
    head = self.attributes.split(", metadata={", 1)[0]
    head = head.split(", backend_config=", 1)[0]
    for key, name in _CALLED.findall(head):
      result[key] = (name,)
    for key, names in _CALLED_LISTS.findall(head):
      result[key] = tuple(
        item.strip().removeprefix("%") for item in names.split(",")
      )
    return result

  @property
  def op_name(self) -> str:
    """Where in the traced program it comes from; empty if unknown."""
    match = re.search(r'op_name="([^"]*)"', self.attributes)
    return match[1] if match else ""


@dataclasses.dataclass(frozen=True)
class Computation:
  name: str
  instructions: tuple[Instruction, ...]

  @functools.cached_property
  def by_name(self) -> dict[str, Instruction]:
    return {item.name: item for item in self.instructions}

  @functools.cached_property
  def root(self) -> Instruction:
    for item in self.instructions:
      if item.is_root:
        return item
    return self.instructions[-1]

  def operands_of(self, instruction: Instruction) -> list[Instruction]:
    return [self.by_name[name] for name in instruction.operands]

  @functools.cached_property
  def parameters(self) -> dict[int, Instruction]:
    return {
      int(item.literal): item
      for item in self.instructions
      if item.opcode == "parameter"
    }

  @functools.cached_property
  def users(self) -> dict[str, list[Instruction]]:
    result: dict[str, list[Instruction]] = {}
    for item in self.instructions:
      for name in dict.fromkeys(item.operands):
        result.setdefault(name, []).append(item)
    return result


@dataclasses.dataclass(frozen=True)
class Module:
  computations: dict[str, Computation]
  entry: str


def parse(text: str) -> Module:
  """Reads the text of one compiled module."""
  computations: dict[str, Computation] = {}
  entry, name, body = "", "", None
  for line in _lines(text):
    if body is None:
      header = _HEADER.match(line)
      if header:
        name, body = header[2], []
        entry = name if header[1] else entry
    elif line.startswith("}"):  # a thread may be named behind it
      computations[name] = Computation(name, tuple(body))
      body = None
    else:
      match = _INSTRUCTION.match(line)
      if match:
        body.append(_instruction(match))
  if entry not in computations:
    raise ValueError("no ENTRY computation in the text of the program")
  return Module(computations, entry)


def _lines(text: str) -> Iterator[str]:
  """Lines of a program, each with all that its instruction says.

  What a kernel says of itself (`kernel_metadata={`) stands on lines of its own,
  of which the last begins with the braces that close it.
  """
  parts: list[str] = []
  for line in text.splitlines():
    parts.append(line)
    if parts[0].endswith("={") and not line.startswith("}}"):
      continue
    yield "".join(parts)
    parts.clear()


def _instruction(match: re.Match) -> Instruction:
  rest = match[3]
  # The type: a tuple in parentheses, or one array without spaces.
  end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
  type_text, rest = rest[:end], rest[end:].lstrip()
  opcode, _, _ = rest.partition("(")
  close = _closing(rest, len(opcode))
  literal = rest[len(opcode) + 1 : close]
  names = () if opcode in ("constant", "parameter") else _NAME.findall(literal)
  return Instruction(
    name=match[2],
    opcode=opcode,
    arrays=arrays(type_text),
    operands=tuple(names),
    literal=literal,
    attributes=rest[close + 1 :],
    is_root=match[1] is not None,
  )


def arrays(type_text: str) -> tuple[Array, ...]:
  """Leaves of a type, in order."""
  result = []
  for dtype, dims, layout in _ARRAY.findall(type_text):
    space = _SPACE.search(layout or "")
    result.append(
      Array(
        dtype=dtype,
        # "<=8" is the bound of a dynamic dim.
        dims=tuple(int(d.removeprefix("<=")) for d in dims.split(",") if d),
        space=int(space[1]) if space else 0,
      )
    )
  return tuple(result)


def _closing(text: str, start: int) -> int:
  """Index of the parenthesis that closes the one at `start`."""
  depth, quoted = 0, False
  for i in range(start, len(text)):
    character = text[i]
    if character == '"' and text[i - 1] != "\\":
      quoted = not quoted
    elif quoted:
      continue
    elif character == "(":
      depth += 1
    elif character == ")":
      depth -= 1
      if depth == 0:
        return i
  raise ValueError(f"parenthesis not closed: {text[:200]}")
