"""Compiled programs as XLA prints them: computations, instructions, loops.

For: reading `compiled.as_text()`. Not for: what an instruction costs
(`costs.py`). Start reading at `parse`, then `executed`, which walks a program
with the number of times that each instruction runs: XLA's own
`cost_analysis` counts the body of a loop once.
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
# Scope of loops that run only for what did not fit (models/grouped.py).
RARE = "overflow"
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


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


@dataclasses.dataclass(frozen=True)
class Executed:
  """An instruction and how often it runs in one call of the program.

  Attributes:
    instruction: what runs.
    computation: the computation it is in.
    count: times, product of the trip counts around it.
    is_async: inside a computation that runs beside the caller.
  """

  instruction: Instruction
  computation: Computation
  count: int
  is_async: bool


def parse(text: str) -> Module:
  """Reads the text of one compiled module."""
  computations: dict[str, Computation] = {}
  entry, name, body = "", "", None
  for line in text.splitlines():
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


def trip_count(
  module: Module, loop: Instruction, *, caller: Computation
) -> int | None:
  """Times that the body of a `while` runs; None if it depends on data.

  XLA writes `known_trip_count` on some backends. Elsewhere it is read from a
  condition like `i < constant` and constants that i starts at and moves by.
  """
  if known := _TRIPS.search(loop.attributes):
    return int(known[1])
  condition = module.computations[loop.called["condition"][0]]
  body = module.computations[loop.called["body"][0]]
  compare = _resolve(module, condition, condition.root)
  if compare.item.opcode != "compare":
    return None
  index, limit = _operands(module, compare)
  position = _carried(index)
  if position is None or index.item.arrays[0].dtype[0] not in "su":
    return None
  initial = caller.by_name[loop.operands[0]]

  def constant(value: _Value) -> int | None:
    where = _carried(value)
    if where is not None:  # unchanged, it is what it started as
      if _carried(_resolve(module, body, body.root, where)) == where:
        value = _resolve(module, caller, initial, where)
    return int(value.item.literal) if value.item.opcode == "constant" else None

  start = _resolve(module, caller, initial, position)
  change = _resolve(module, body, body.root, position)
  if change.item.opcode not in ("add", "subtract"):
    return None
  left, right = _operands(module, change)
  if change.item.opcode == "add" and _carried(left) != position:
    left, right = right, left
  first, last, step = constant(start), constant(limit), constant(right)
  if _carried(left) != position or None in (first, last, step):
    return None
  step = step if change.item.opcode == "add" else -step
  direction = compare.item.attribute("direction")
  last += {"LE": 1, "GE": -1}.get(direction, 0)
  towards = {"LT": 1, "LE": 1, "GT": -1, "GE": -1}.get(direction, 0)
  if towards * step <= 0:
    return None
  return max(0, -(-(last - first) // step))


@dataclasses.dataclass(frozen=True)
class _Value:
  """An instruction that is no copy, and the fusions that it stands in."""

  item: Instruction
  scope: Computation
  fusions: tuple = ()  # (fusion, computation), outermost first


def _resolve(module, scope, item, element=None, fusions=()) -> _Value:
  """What a value, or an element of a tuple, is a copy of."""
  while True:
    if item.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
      item = scope.by_name[item.operands[0]]
    elif item.opcode == "tuple" and element is not None:
      item, element = scope.by_name[item.operands[element]], None
    elif item.opcode == "fusion":
      fusions = (*fusions, (item, scope))
      scope = module.computations[item.called["calls"][0]]
      item = scope.root
    elif item.opcode == "parameter" and fusions:
      number = int(item.literal)
      *rest, (fusion, scope) = fusions
      item, fusions = scope.by_name[fusion.operands[number]], tuple(rest)
    elif item.opcode == "get-tuple-element" and element is None:
      source = scope.by_name[item.operands[0]]
      if source.opcode not in ("fusion", "tuple"):
        return _Value(item, scope, fusions)
      element, item = int(item.attribute("index")), source
    else:
      return _Value(item, scope, fusions)


def _operands(module: Module, value: _Value) -> list[_Value]:
  return [
    _resolve(module, value.scope, item, fusions=value.fusions)
    for item in value.scope.operands_of(value.item)
  ]


def _carried(value: _Value) -> int | None:
  """Position of a value in the tuple that a loop carries."""
  if value.item.opcode != "get-tuple-element" or value.fusions:
    return None
  source = value.scope.by_name[value.item.operands[0]]
  if source.opcode != "parameter":
    return None
  return int(value.item.attribute("index"))


@dataclasses.dataclass
class Walk:
  """`executed` and the loops whose length the text does not tell.

  A loop of unknown length is counted once and named in `unknown_loops`; one
  in a scope called RARE is not counted and named in `rare_loops`.
  """

  module: Module
  unknown_loops: list[str] = dataclasses.field(default_factory=list)
  rare_loops: list[str] = dataclasses.field(default_factory=list)

  def executed(self) -> Iterator[Executed]:
    """Every instruction that runs, except those inside fusions."""
    yield from self._of(self.module.entry, count=1, is_async=False)

  def _of(self, name: str, *, count: int, is_async: bool):
    computation = self.module.computations[name]
    for item in computation.instructions:
      yield Executed(item, computation, count, is_async)
      called = item.called
      if item.opcode == "while":
        trips = trip_count(self.module, item, caller=computation)
        if trips is None and RARE in item.op_name:
          self.rare_loops.append(item.op_name)
          continue
        if trips is None:
          self.unknown_loops.append(item.op_name or item.name)
          trips = 1
        yield from self._of(
          called["body"][0], count=count * trips, is_async=is_async
        )
      elif item.opcode == "conditional":
        # One branch runs; the longest stands for it.
        branches = called.get("branch_computations") or (
          *called["true_computation"],
          *called["false_computation"],
        )
        longest = max(
          branches, key=lambda b: len(self.module.computations[b].instructions)
        )
        yield from self._of(longest, count=count, is_async=is_async)
      elif item.opcode in ("call", "async-start", "call-start"):
        for key in ("to_apply", "calls", "called_computations"):
          for inner in called.get(key, ()):
            yield from self._of(
              inner,
              count=count,
              is_async=is_async or item.opcode != "call",
            )
