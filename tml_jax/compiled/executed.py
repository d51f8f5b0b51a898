"""How often each instruction of a compiled program runs.

For: programs that `hlo.parse` read: XLA's own `cost_analysis` counts the body
of a loop once. Not for: what an instruction costs (`costs.py`). Start reading
at `Walk`.
"""

import dataclasses
import re
from collections.abc import Iterator

from tml_jax.compiled import hlo

# Scope of loops that run only for what did not fit (experts/grouped.py).
RARE = "overflow"
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Executed:
  """An instruction and how often it runs in one call of the program.

  Attributes:
    instruction: what runs.
    computation: the computation it is in.
    count: times, product of the trip counts around it.
    is_async: inside a computation that runs beside the caller.
  """

  instruction: hlo.Instruction
  computation: hlo.Computation
  count: int
  is_async: bool


@dataclasses.dataclass
class Walk:
  """`executed` and the loops whose length the text does not tell.

  A loop of unknown length is counted once and named in `unknown_loops`; one
  in a scope called RARE is not counted and named in `rare_loops`.
  """

  module: hlo.Module
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


def trip_count(
  module: hlo.Module, loop: hlo.Instruction, *, caller: hlo.Computation
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

  item: hlo.Instruction
  scope: hlo.Computation
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


def _operands(module: hlo.Module, value: _Value) -> list[_Value]:
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
