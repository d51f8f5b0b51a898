"""Where in the model the instructions of a compiled program come from.

For: `by_module`, costs of a program by module scope and pass. Not for: the
costs themselves (`costs.py`, `roofline.py`). Start reading at `by_module`.

XLA keeps the path of an instruction in `op_name`: linen modules,
`jax.named_scope`s and what jax did to the function: `jvp` around the forward
pass, `transpose(jvp)` around the backward pass, `rematted_computation` inside
it around what is computed again.
"""

import collections
import dataclasses
import enum
import re
from collections.abc import Iterator
from typing import Any

from tml_jax.compiled import collectives as collectives_lib
from tml_jax.compiled import costs, executed, hlo, roofline
from tml_jax.parallel import chips

UNNAMED = "(unnamed)"
_NUMBER = re.compile(r"_\d+$")
_WRAPPED = re.compile(r"^([\w.\-]+)\((.*)\)$")
_ROOT = re.compile(r"^[A-Z]\w*(?:\.(\w+))?$")  # of a linen model: Class.method
# What jax and XLA add between names.
_NOISE = re.compile(
  r"^(?:while|body|cond|scan|closed_call|checkpoint|rematted_computation|remat"
  r"|shard_map|custom_[jv][jv]p_call|core_call|run_state|branch_\d+_fun"
  r"|pjit|[\w.,]*->[\w.]*)?$"
)


class Pass(enum.StrEnum):
  """What an instruction is for; OUTSIDE is not part of the gradient."""

  FORWARD = "forward"
  BACKWARD = "backward"
  RECOMPUTED = "recomputed"
  OUTSIDE = "outside"


@dataclasses.dataclass(frozen=True)
class Scope:
  """Path of modules, and the pass. Equal modules have one path."""

  path: str
  kind: Pass

  @classmethod
  def of(cls, op_name: str) -> "Scope":
    """The scope of an `op_name`; of the first where XLA joined several."""
    op_name = op_name.split(";", 1)[0]
    if "rematted_computation" in op_name:
      kind = Pass.RECOMPUTED
    elif "transpose(" in op_name:
      kind = Pass.BACKWARD
    elif "jvp(" in op_name:
      kind = Pass.FORWARD
    else:
      kind = Pass.OUTSIDE
    *parents, primitive = _split(op_name)
    is_kernel = primitive == "pallas_call"
    names = list(_names(parents, with_functions=is_kernel))
    path: list[str] = []
    for i, name in enumerate(names):
      root = _ROOT.match(name)
      if root:  # says something only where no module follows
        name = (root[1] or "") if i == len(names) - 1 else ""
      # "attention.project" behind "attention": a method.
      name = _NUMBER.sub("_*", name.rpartition(".")[2].strip("_"))
      if name and name != (path[-1] if path else ""):
        path.append(name)
    return cls("/".join(path) or UNNAMED, kind)


def _split(text: str) -> list[str]:
  """Parts between the slashes outside of parentheses."""
  parts, depth = [""], 0
  for character in text:
    depth += (character == "(") - (character == ")")
    if character == "/" and depth <= 0:
      parts.append("")
    else:
      parts[-1] += character
  return parts


def _names(parts: list[str], *, with_functions: bool) -> Iterator[str]:
  """Names of modules and scopes among the parts of a path."""
  for i, part in enumerate(parts):
    wrapped = _WRAPPED.match(part)
    if wrapped is None:
      if not _NOISE.match(part):
        yield part
    elif wrapped[1] not in ("jit", "pjit"):
      yield from _names(_split(wrapped[2]), with_functions=False)
    elif with_functions and i == len(parts) - 1:
      yield wrapped[2]  # the function that calls a kernel names it


@dataclasses.dataclass
class Row:
  """Costs of a scope in one call of a program, per device.

  Attributes:
    scope: where.
    count: instructions that ran and cost something.
    flops: of matrix products.
    hbm_bytes: read and written.
    seconds: least time of its instructions; they do not overlap.
    compute_s: part of `seconds` in instructions bound by FLOPs.
    exchanged_bytes: received from other devices.
    exchange_s: least time of its collectives.
    exposed_s: of these, those that nothing can overlap with.
  """

  scope: Scope
  count: int = 0
  flops: float = 0.0
  hbm_bytes: float = 0.0
  seconds: float = 0.0
  compute_s: float = 0.0
  exchanged_bytes: float = 0.0
  exchange_s: float = 0.0
  exposed_s: float = 0.0


def by_module(
  module: hlo.Module,
  *,
  chip: chips.Chip,
  place: roofline.Place | None = None,
) -> list[Row]:
  """Costs by scope, the most seconds first.

  Args:
    module: a compiled program.
    chip: what it is compiled for.
    place: of its devices; without it collectives are left out.

  Returns:
    Rows whose FLOPs, bytes and seconds add up to those of
    `roofline.analyse`.
  """
  rows: dict[Scope, Row] = {}

  def row(scope: Scope) -> Row:
    return rows.setdefault(scope, Row(scope))

  for work in roofline.works(executed.Walk(module), chip=chip):
    if not (work.flops or work.at_peak.seconds):
      continue
    step, count = work.step, work.step.count
    into = row(
      of_instruction(step.instruction, scope=step.computation, module=module)
    )
    into.count += count
    into.flops += count * (work.flops or 0.0)
    into.hbm_bytes += count * work.hbm_bytes
    seconds = work.at_peak.seconds
    into.seconds += count * seconds
    into.compute_s += count * seconds * work.at_peak.is_compute_bound
  if place is not None:
    for one in collectives_lib.find(module, num_devices=len(place.coords)):
      took = roofline.time_of(one, chip=chip, place=place)
      into = row(Scope.of(one.op_name))
      into.exchanged_bytes += one.count * (took.ici_bytes + took.dcn_bytes)
      into.exchange_s += one.count * took.seconds
      into.exposed_s += one.count * took.seconds * (not one.is_async)
  return sorted(rows.values(), key=lambda r: -(r.seconds + r.exposed_s))


def of_instruction(
  item: hlo.Instruction, *, scope: hlo.Computation, module: hlo.Module
) -> Scope:
  """Of an instruction of the computation `scope`.

  A fusion belongs to its largest matrix product, else to what it is called
  after, else to most of its parts. What XLA adds without a name belongs to
  what it copies, or to what uses it.
  """
  if item.opcode == "fusion":
    inner = module.computations[item.called["calls"][0]]
    products = [
      (costs.flops(part, scope=inner, module=module) or 0.0, part.op_name)
      for part in inner.instructions
      if _is_path(part)
    ]
    most, name = max(products, default=(0.0, ""))
    if most:
      return Scope.of(name)
    if not _is_path(item) and products:
      names = collections.Counter(name for _, name in products)
      return Scope.of(names.most_common(1)[0][0])
  return Scope.of(_name(item, scope=scope))


def _name(item: hlo.Instruction, *, scope: hlo.Computation) -> str:
  """Its `op_name`, or that of what it copies, or of what uses it."""
  source = item
  while not _is_path(source) and source.operands:
    source = scope.by_name[source.operands[0]]
  if _is_path(source):
    return source.op_name
  while not _is_path(item):
    users = scope.users.get(item.name, [])
    if not users:
      return ""
    item = users[0]
  return item.op_name


def _is_path(item: hlo.Instruction) -> bool:
  """Not without a name, nor called after an argument of the program."""
  return "/" in item.op_name


def report(rows: list[Row], *, chip: chips.Chip) -> list[dict[str, Any]]:
  """The rows as JSON, per chip."""
  return [
    {
      "scope": row.scope.path,
      "pass": str(row.scope.kind),
      "count": row.count,
      "flops": row.flops * chip.devices,
      "hbm_gb": row.hbm_bytes * chip.devices / 1e9,
      "seconds": row.seconds,
      "compute_bound_s": row.compute_s,
      "exchanged_gb": row.exchanged_bytes * chip.devices / 1e9,
      "exchange_s": row.exchange_s,
      "exposed_exchange_s": row.exposed_s,
    }
    for row in rows
  ]


def table(rows: list[dict[str, Any]], *, count: int) -> list[str]:
  """Lines for people: the first `count` rows of `report`, and sums."""
  line = "  {:<58}{:<11}{:>10}{:>9}{:>9}{:>6}{:>9}{:>9}"
  lines = [
    line.format(
      *("scope", "pass", "FLOPs", "HBM GB", "seconds", "bound"),
      *("exch. GB", "exch. s"),
    )
  ]

  def add(path, kind, several):
    def total(name):
      return sum(row[name] for row in several)

    is_compute_bound = total("compute_bound_s") > total("seconds") / 2
    lines.append(
      line.format(
        path if len(path) <= 57 else "..." + path[-54:],
        kind,
        f"{total('flops'):.2e}",
        f"{total('hbm_gb'):.2f}",
        f"{total('seconds'):.4f}",
        "FLOPs" if is_compute_bound else "HBM",
        f"{total('exchanged_gb'):.2f}",
        f"{total('exchange_s'):.4f}",
      )
    )

  for row in rows[:count]:
    add(row["scope"], row["pass"], [row])
  if len(rows) > count:
    add(f"{len(rows) - count} more", "", rows[count:])
  for kind in Pass:
    several = [row for row in rows if row["pass"] == kind]
    if several:
      add("= all", kind, several)
  return lines
