"""How fast a compiled program can be: a bound from its own instructions.

For: `analyse`, which sums FLOPs, HBM bytes and exchanged bytes of a program
and the least time they take on a chip. Not for: a prediction; nothing here
was timed, and latencies are not counted. Start reading at `analyse`.

The bound lets every instruction run at the peak of matrix units or of HBM,
whichever takes longer (products of 8 bits at the chip's peak for those), and
every collective at the full rate of the links that its group spans. `reachable`
is the same sum with what was measured of a chip (`chips.REACHED`): a share of
the peaks, matrix products filled up to whole matrix units and each a little
later, collectives over the rings that the compiler chose, with a latency for
every hop. Still no prediction: nothing waits for anything else.
"""

import collections
import dataclasses
import math
from collections.abc import Iterator, Sequence

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
  reachable_s: float


@dataclasses.dataclass(frozen=True)
class Times:
  """Least seconds of one call of a program, on one device.

  Attributes:
    compute_s: of matrix products.
    hbm_s: of bytes that are read and written.
    instructions_s: sum over instructions of the longer of the two.
    ici_s: all collectives inside slices.
    dcn_s: all collectives between slices.
    host_s: of bytes to and from the host, which work can overlap with.
    exposed_s: of collectives, those that nothing can overlap with.
  """

  compute_s: float
  hbm_s: float
  instructions_s: float
  ici_s: float
  dcn_s: float
  host_s: float
  exposed_s: float

  @property
  def overlapped_s(self) -> float:
    """Every collective hidden behind other work, and none behind another."""
    return max(self.instructions_s, self.ici_s, self.dcn_s, self.host_s)

  @property
  def exposed_total_s(self) -> float:
    """Synchronous collectives after other work, the others hidden."""
    hidden = self.ici_s + self.dcn_s - self.exposed_s
    return max(self.instructions_s, hidden, self.host_s) + self.exposed_s


@dataclasses.dataclass(frozen=True)
class Analysis:
  """Sums over one call of a program, per device.

  Attributes:
    flops: of matrix products, executed.
    hbm_bytes: read and written.
    host_bytes: moved to and from the host.
    times: at peak.
    reachable: at what was measured of the chip.
    exchanges: the collectives.
    uncounted: kernels that state no FLOPs, with how often they run.
    unknown_loops: loops counted once because their length is not known.
    rare_loops: loops not counted: they run for what did not fit in a buffer.
  """

  flops: float
  hbm_bytes: float
  host_bytes: float
  times: Times
  reachable: Times
  exchanges: tuple[Exchange, ...]
  uncounted: dict[str, int]
  unknown_loops: tuple[str, ...]
  rare_loops: tuple[str, ...]


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
  flops = hbm = host = 0.0
  uncounted: collections.Counter[str] = collections.Counter()
  walk = executed.Walk(module)
  at_peak: collections.Counter[str] = collections.Counter()
  reached: collections.Counter[str] = collections.Counter()
  for work in works(walk, chip=chip):
    count = work.step.count
    if work.flops is None:
      uncounted[_kernel_name(work.step.instruction)] += count
    flops += count * (work.flops or 0.0)
    hbm += count * work.hbm_bytes
    host += count * work.host_bytes
    for sums, rated in ((at_peak, work.at_peak), (reached, work.reached)):
      sums["compute_s"] += count * rated.compute_s
      sums["hbm_s"] += count * rated.hbm_s
      sums["instructions_s"] += count * rated.seconds
  exchanges = _exchanges(module, chip=chip, place=place)
  host_s = host / (chip.host_bytes_per_second / chip.devices)

  def times(sums, *, of) -> Times:
    return Times(
      compute_s=sums["compute_s"],
      hbm_s=sums["hbm_s"],
      instructions_s=sums["instructions_s"],
      ici_s=sum(of(e) for e in exchanges if not e.dcn_bytes),
      dcn_s=sum(of(e) for e in exchanges if e.dcn_bytes),
      host_s=host_s,
      exposed_s=sum(of(e) for e in exchanges if not e.is_async),
    )

  return Analysis(
    flops=flops,
    hbm_bytes=hbm,
    host_bytes=host,
    times=times(at_peak, of=lambda e: e.seconds),
    reachable=times(reached, of=lambda e: e.reachable_s),
    exchanges=exchanges,
    uncounted=dict(uncounted),
    unknown_loops=tuple(dict.fromkeys(walk.unknown_loops)),
    rare_loops=tuple(dict.fromkeys(walk.rare_loops)),
  )


@dataclasses.dataclass(frozen=True)
class Rated:
  """Least seconds of one run of an instruction, at some rates."""

  compute_s: float
  hbm_s: float

  @property
  def seconds(self) -> float:
    return max(self.compute_s, self.hbm_s)

  @property
  def is_compute_bound(self) -> bool:
    return self.compute_s == self.seconds > 0


_NOTHING = Rated(0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Work:
  """One run of an instruction that is no collective.

  Attributes:
    step: the instruction and how often it runs.
    flops: of its matrix products; None for a kernel that does not state them.
    hbm_bytes: read and written.
    host_bytes: moved to or from the host, beside other work.
    at_peak: time at the chip's peaks.
    reached: time at `chips.REACHED`.
  """

  step: executed.Executed
  flops: float | None
  hbm_bytes: float
  host_bytes: float
  at_peak: Rated
  reached: Rated


def works(walk: executed.Walk, *, chip: chips.Chip) -> Iterator[Work]:
  """Costs of everything that runs; those of collectives are not bytes."""
  peak = chip.peak_flops / chip.devices
  bandwidth = chip.hbm_bytes_per_second / chip.devices
  limits = chips.REACHED
  module = walk.module
  for step in walk.executed():
    item, scope = step.instruction, step.computation
    products = costs.products(item, scope=scope, module=module)
    flops = None if products is None else sum(p.flops for p in products)
    host = costs.host_bytes(item, scope=scope)
    moved, at_peak, reached = 0.0, _NOTHING, _NOTHING
    if not (_is_exchange(item, module=module) or step.is_async or host):
      moved = costs.hbm_bytes(item, scope=scope, module=module)
      ramp = limits.ramp_seconds if products else 0.0
      at_peak = Rated(
        sum(p.flops / chip.speed(p.dtype) for p in products or ()) / peak,
        moved / bandwidth,
      )
      filled = sum(
        p.filled(chip.mxu) / chip.speed(p.dtype) for p in products or ()
      )
      reached = Rated(
        filled / (limits.matmul * peak) + ramp,
        moved / (limits.hbm * bandwidth),
      )
    yield Work(step, flops, moved, host, at_peak, reached)


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
    took = time_of(one, chip=chip, place=place)
    crosses = took.dcn_bytes > 0
    row = rows.setdefault((one.kind, axes, one.is_async, crosses), [0.0] * 5)
    for i, value in enumerate(
      (
        1,
        took.ici_bytes,
        took.dcn_bytes,
        took.seconds,
        took.reachable_s,
      )
    ):
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
      reachable_s=reachable,
    )
    for (kind, axes, is_async, _), (
      count,
      ici,
      dcn,
      seconds,
      reachable,
    ) in rows.items()
  ]
  return tuple(sorted(result, key=lambda e: -e.seconds))


@dataclasses.dataclass(frozen=True)
class Taken:
  """One collective: bytes that a device receives, and least seconds.

  Attributes:
    ici_bytes: inside a slice.
    dcn_bytes: between slices.
    seconds: at the full rate of all links that its group spans.
    reachable_s: over the rings that the compiler chose, with its hops.
  """

  ici_bytes: float
  dcn_bytes: float
  seconds: float
  reachable_s: float


def time_of(
  one: collectives_lib.Collective, *, chip: chips.Chip, place: Place
) -> Taken:
  """Bytes and seconds of one collective."""
  wire = one.wire_bytes
  if one.between_slices:
    seconds = wire / (chip.dcn_bytes_per_second / chip.devices)
    return Taken(0.0, wire, seconds, seconds)
  coords = place.coords[list(one.group)]
  sizes = [len(set(coords[:, dim].tolist())) for dim in range(3)]
  spanned = [size for size in sizes if size > 1]
  if not spanned:  # the cores of one chip
    seconds = wire / (_DIE_TO_DIE * chip.link_bytes_per_second)
    return Taken(wire, 0.0, seconds, seconds + chips.REACHED.hop_seconds)
  rings = one.rings or tuple(spanned)
  seconds = _over(one, rings=spanned, chip=chip)
  if one.emitter.startswith("1D"):  # the compiler runs one ring through all
    rings = (math.prod(spanned),)
    seconds = _over(one, rings=rings, chip=chip)
  hops = sum(size // 2 if size >= chip.ring else size - 1 for size in rings)
  if one.kind == "collective-permute":
    hops = 1
  elif one.kind == "all-reduce":  # there and back
    hops *= 2
  reachable = _over(one, rings=rings, chip=chip)
  return Taken(wire, 0.0, seconds, reachable + hops * chips.REACHED.hop_seconds)


def _over(
  one: collectives_lib.Collective, *, rings: Sequence[int], chip: chips.Chip
) -> float:
  """Seconds over rings of these sizes, all of them at once."""
  link = chip.link_bytes_per_second / chip.devices
  rates = [link * (2 if size >= chip.ring else 1) for size in rings]
  if one.kind == "collective-permute":
    return one.wire_bytes / link  # to a neighbour, over one link
  if one.kind.endswith("all-to-all"):
    # Half of a ring's bytes cross any cut, a quarter of its length apart.
    longest = max(size / rate for size, rate in zip(rings, rates, strict=True))
    return one.bytes * longest / 4
  return one.wire_bytes / sum(rates)
