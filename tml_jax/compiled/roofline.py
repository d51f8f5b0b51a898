"""How fast a compiled program can be: a bound from its own instructions.

For: `analyse`, which sums FLOPs, HBM bytes and exchanged bytes of a program
and the least time they take on a chip. Not for: a prediction; nothing here
was timed, and latencies are not counted. Start reading at `analyse`.

The bound lets every instruction run at the peak of matrix units or of HBM,
whichever takes longer, and every collective at the full rate of the links that
its group spans.
"""

import collections
import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from tml_jax.compiled import collectives as collectives_lib
from tml_jax.compiled import costs, executed, hlo
from tml_jax.parallel import chips

# Between the two halves of one package, against one ICI link (TPU7x docs).
_DIE_TO_DIE = 6


@dataclasses.dataclass(frozen=True)
class Exchange:
  """Collectives of one kind over the same axes."""

  kind: str
  axes: tuple[str, ...]
  is_async: bool
  count: int
  ici_bytes: float  # received by a device
  dcn_bytes: float
  seconds: float


@dataclasses.dataclass(frozen=True)
class Analysis:
  """Sums over one call of a program, per device.

  Attributes:
    flops: of matrix products, executed.
    hbm_bytes: read and written.
    compute_s: `flops` at peak.
    hbm_s: `hbm_bytes` at peak.
    instructions_s: sum over instructions of the longer of the two.
    ici_s: all collectives inside slices.
    dcn_s: all collectives between slices.
    exposed_s: of these, those that nothing can overlap with.
    exchanges: the collectives.
    uncounted: kernels that state no FLOPs, with how often they run.
    unknown_loops: loops counted once because their length is not known.
    rare_loops: loops not counted: they run for what did not fit in a buffer.
  """

  flops: float
  hbm_bytes: float
  compute_s: float
  hbm_s: float
  instructions_s: float
  ici_s: float
  dcn_s: float
  exposed_s: float
  exchanges: tuple[Exchange, ...]
  uncounted: dict[str, int]
  unknown_loops: tuple[str, ...]
  rare_loops: tuple[str, ...]

  @property
  def overlapped_s(self) -> float:
    """Every collective hidden behind other work."""
    return max(self.instructions_s, self.ici_s, self.dcn_s)

  @property
  def exposed_total_s(self) -> float:
    """Synchronous collectives after other work, the others hidden."""
    hidden = self.ici_s + self.dcn_s - self.exposed_s
    return max(self.instructions_s, hidden) + self.exposed_s


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the partitions of a program lie.

  Attributes:
    mesh_shape: sizes of the mesh axes.
    names: of the mesh axes.
    coords: [partitions, 3] on the torus.
  """

  mesh_shape: tuple[int, ...]
  names: tuple[str, ...]
  coords: np.ndarray


def place_of(mesh) -> Place:
  """The place of a program compiled for `mesh`, of TPU devices."""
  devices = mesh.devices.flatten()
  return Place(
    mesh_shape=tuple(mesh.devices.shape),
    names=tuple(mesh.axis_names),
    coords=np.array([device.coords for device in devices]),
  )


def analyse(module: hlo.Module, *, chip: chips.Chip, place: Place) -> Analysis:
  """Sums a program that is compiled for the devices of `place`."""
  peak = chip.peak_flops / chip.devices
  bandwidth = chip.hbm_bytes_per_second / chip.devices
  flops = hbm = seconds = 0.0
  uncounted: collections.Counter[str] = collections.Counter()
  walk = executed.Walk(module)
  for work in works(walk, chip=chip):
    count = work.step.count
    if work.flops is None:
      uncounted[_kernel_name(work.step.instruction)] += count
    flops += count * (work.flops or 0.0)
    hbm += count * work.hbm_bytes
    seconds += count * work.seconds
  exchanges = _exchanges(module, chip=chip, place=place)
  return Analysis(
    flops=flops,
    hbm_bytes=hbm,
    compute_s=flops / peak,
    hbm_s=hbm / bandwidth,
    instructions_s=seconds,
    ici_s=sum(e.seconds for e in exchanges if not e.dcn_bytes),
    dcn_s=sum(e.seconds for e in exchanges if e.dcn_bytes),
    exposed_s=sum(e.seconds for e in exchanges if not e.is_async),
    exchanges=exchanges,
    uncounted=dict(uncounted),
    unknown_loops=tuple(dict.fromkeys(walk.unknown_loops)),
    rare_loops=tuple(dict.fromkeys(walk.rare_loops)),
  )


@dataclasses.dataclass(frozen=True)
class Work:
  """One run of an instruction that is no collective.

  Attributes:
    step: the instruction and how often it runs.
    flops: of its matrix products; None for a kernel that does not state them.
    hbm_bytes: read and written.
    seconds: the longer of the two at peak.
    is_compute_bound: whether that is the FLOPs.
  """

  step: executed.Executed
  flops: float | None
  hbm_bytes: float
  seconds: float
  is_compute_bound: bool


def works(walk: executed.Walk, *, chip: chips.Chip) -> Iterator[Work]:
  """Costs of everything that runs; those of collectives are not bytes."""
  peak = chip.peak_flops / chip.devices
  bandwidth = chip.hbm_bytes_per_second / chip.devices
  module = walk.module
  for step in walk.executed():
    item, scope = step.instruction, step.computation
    flops = costs.flops(item, scope=scope, module=module)
    moved = seconds = compute_s = 0.0
    if not (_is_exchange(item, module=module) or step.is_async):
      moved = costs.hbm_bytes(item, scope=scope, module=module)
      compute_s = (flops or 0.0) / peak
      seconds = max(compute_s, moved / bandwidth)
    yield Work(step, flops, moved, seconds, seconds == compute_s > 0)


def _kernel_name(item: hlo.Instruction) -> str:
  """The last names of where a kernel comes from."""
  parts = [p for p in item.op_name.split("/") if p]
  return "/".join(parts[-2:]) or costs.custom_call_target(item) or item.name


def _is_exchange(item: hlo.Instruction, *, module: hlo.Module) -> bool:
  opcode = item.opcode.removesuffix("-start").removesuffix("-done")
  if opcode in collectives_lib.KINDS:
    return True
  if item.opcode != "fusion":
    return False
  # reduce-scatter as a fusion; with other work inside it counts as work.
  return "all-reduce-scatter" in item.called["calls"][0]


def _exchanges(
  module: hlo.Module, *, chip: chips.Chip, place: Place
) -> tuple[Exchange, ...]:
  rows: dict[tuple, list[float]] = {}
  found = collectives_lib.find(module, num_devices=len(place.coords))
  for one in found:
    axes = ("data",)  # the only axis between slices
    if not one.between_slices:
      axes = collectives_lib.axes(
        one.group, mesh_shape=place.mesh_shape, names=place.names
      )
    ici, dcn, seconds = time_of(one, chip=chip, place=place)
    crosses = dcn > 0
    row = rows.setdefault((one.kind, axes, one.is_async, crosses), [0.0] * 4)
    for i, value in enumerate((1, ici, dcn, seconds)):
      row[i] += one.count * value
  result = [
    Exchange(
      kind=kind,
      axes=axes,
      is_async=is_async,
      count=int(count),
      ici_bytes=ici,
      dcn_bytes=dcn,
      seconds=seconds,
    )
    for (kind, axes, is_async, _), (count, ici, dcn, seconds) in rows.items()
  ]
  return tuple(sorted(result, key=lambda e: -e.seconds))


def time_of(
  one: collectives_lib.Collective, *, chip: chips.Chip, place: Place
) -> tuple[float, float, float]:
  """Bytes received over ICI and over DCN, and seconds, of one collective."""
  wire = one.wire_bytes
  if one.between_slices:
    rate = chip.dcn_bytes_per_second / chip.devices
    return 0.0, wire, wire / rate
  coords = place.coords[list(one.group)]
  sizes = [len(set(coords[:, dim].tolist())) for dim in range(3)]
  spanned = [size for size in sizes if size > 1]
  link = chip.link_bytes_per_second / chip.devices
  if not spanned:  # the cores of one chip
    return wire, 0.0, wire / (_DIE_TO_DIE * chip.link_bytes_per_second)
  if one.emitter.startswith("1D"):  # the compiler runs one ring through all
    spanned = [math.prod(spanned)]
  rates = [link * (2 if size >= chip.ring else 1) for size in spanned]
  if one.kind == "collective-permute":
    return wire, 0.0, wire / link  # to a neighbour, over one link
  if one.kind.endswith("all-to-all"):
    # Half of a ring's bytes cross any cut, a quarter of its length apart.
    longest = max(
      size / rate for size, rate in zip(spanned, rates, strict=True)
    )
    return wire, 0.0, one.bytes * longest / 4
  return wire, 0.0, wire / sum(rates)
