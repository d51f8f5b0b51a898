"""TPU chips: what they can do, by topology family.

For: limits and speeds that `aot` and `training/flops.py` judge a program by.
Not for: measurements. Start at `CHIPS`.

Products of 8 bits run at twice the rate of bfloat16, by the same documentation:
of integers on v5p and v6e, of floats on TPU7x. Ragged ones of the other kind
libtpu 0.0.42 multiplies in float32.

Speeds are the figures that Google Cloud publishes for each family
(documentation of v5p, v6e and TPU7x, "System architecture"). A link carries
100 GB/s in each direction by them; 90 is what is reached (Austin et al., How
to Scale Your Model, 2025), and what TPU7x's documentation measures of an
all-gather over two axes: 179 GB/s. The HBM limits are what libtpu 0.0.42
enforces when it compiles ("exceeds available HBM").

What is reached of the peaks (`REACHED`) was measured on one family, TPU7x, by
its documentation, and stands for all of them: matrix products of 16,384 by
16,384 run at 950 of 1,153.5 TFLOP/s, 0.82; those of 4,096 and 2,048 at 893 and
680, which is the same and 9.2 and 7.2 us more each (7.5 here); HBM gives 6.4 of
7.38 TB/s, 0.87. A hop to a neighbour takes about 1 us, and PCIe moves 16 GB/s
a chip on v5p and 32 on v6e (Austin et al.); no figure of TPU7x is published,
so it has that of v6e. Memory of hosts is that of the machines with four chips
(ct5p-hightpu-4t 448 GB, ct6e-standard-4t 720, tpu7x-standard-4t 960). Only
v6e's was compared with a page: its documentation has 1,536 GiB for eight chips.
"""

import dataclasses
from typing import Any

from tml_jax import errors

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One chip; a JAX device is `1 / devices` of it.

  Attributes:
    device_kind: of its devices, in JAX.
    devices: JAX devices of a chip.
    peak_flops: dense bfloat16, FLOP/s.
    hbm_bytes_per_second: of the chip.
    hbm_limit: bytes that a program may use, of the chip.
    link_bytes_per_second: of one ICI link in one direction.
    ring: size from which a torus dim closes to a ring.
    dcn_bytes_per_second: of the chip, between slices.
    host_bytes_per_second: of the chip, to and from its host, each way.
    host_memory: of the machine, bytes a chip.
    mxu: rows and columns of a matrix unit.
    eight_bits: what it multiplies at twice `peak_flops`: "int8" or "float8".
  """

  device_kind: str
  devices: int
  peak_flops: float
  hbm_bytes_per_second: float
  hbm_limit: float
  link_bytes_per_second: float
  ring: int
  dcn_bytes_per_second: float
  host_bytes_per_second: float
  host_memory: float
  mxu: int
  eight_bits: str

  def speed(self, dtype: str) -> float:
    """How much faster than bfloat16 it multiplies; `dtype` as XLA names it."""
    kind = {"s8": "int8", "u8": "int8"}.get(dtype, "")
    if dtype.startswith("f8"):
      kind = "float8"
    return 2.0 if kind == self.eight_bits else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reached:
  """What programs reach of a chip's peaks.

  Attributes:
    matmul: of `peak_flops`, by matrix products that fill the matrix units.
    ramp_seconds: that every matrix product takes besides.
    hbm: of `hbm_bytes_per_second`.
    hop_seconds: that every step of a collective takes besides its bytes.
  """

  matmul: float
  ramp_seconds: float
  hbm: float
  hop_seconds: float


REACHED = Reached(matmul=0.82, ramp_seconds=7.5e-6, hbm=0.87, hop_seconds=1e-6)

CHIPS = {
  "v5p": Chip(
    device_kind="TPU v5",
    devices=1,
    peak_flops=459e12,
    hbm_bytes_per_second=2765e9,
    hbm_limit=95.74 * GIB,
    link_bytes_per_second=90e9,
    ring=4,
    dcn_bytes_per_second=50e9 / 8,
    host_bytes_per_second=16e9,
    host_memory=448e9 / 4,
    mxu=128,
    eight_bits="int8",
  ),
  "v6e": Chip(
    device_kind="TPU v6 lite",
    devices=1,
    peak_flops=918e12,
    hbm_bytes_per_second=1638e9,
    hbm_limit=31.25 * GIB,
    link_bytes_per_second=90e9,
    ring=16,
    dcn_bytes_per_second=100e9 / 8,
    host_bytes_per_second=32e9,
    host_memory=720e9 / 4,
    mxu=256,
    eight_bits="int8",
  ),
  "tpu7x": Chip(
    device_kind="TPU7x",
    devices=2,
    peak_flops=2307e12,
    hbm_bytes_per_second=7380e9,
    hbm_limit=2 * 94.75 * GIB,
    link_bytes_per_second=90e9,
    ring=4,
    dcn_bytes_per_second=100e9 / 8,
    host_bytes_per_second=32e9,
    host_memory=960e9 / 4,
    mxu=256,
    eight_bits="float8",
  ),
}


def of(topology: str) -> Chip:
  """The chip of a topology, FAMILY:AxBxC.

  Raises:
    errors.UserError: a family that is not in CHIPS.
  """
  family, _, size = topology.partition(":")
  if family not in CHIPS or not size:
    raise errors.UserError(
      f"--topology={topology}: write FAMILY:AxBxC with FAMILY one of "
      f"{', '.join(CHIPS)}, for instance v5p:8x8x8"
    )
  return CHIPS[family]


def peak_bytes(memory: Any) -> int:
  """HBM of a device at most, of a program's `memory_analysis()`.

  What the compiler holds against the limit: the largest sum of live buffers. It
  counts those in the host's memory too. Arguments there are there all the time
  and can be taken off; of temporaries there it is not said when, so that
  arguments and all temporaries of HBM, with the holes between them, are what it
  cannot be more than.
  """
  allocated = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  live = memory.peak_memory_in_bytes - memory.host_argument_size_in_bytes
  return min(live, allocated)


def require_host_memory(
  device_kind: str, *, device_bytes: float, what: str
) -> None:
  """That a host has room for its devices' bytes; others than CHIPS pass.

  Args:
    device_kind: of a device, in JAX.
    device_bytes: in the host's memory, for each device.
    what: the settings that ask for it.

  Raises:
    errors.UserError: it has not.
  """
  for family, chip in CHIPS.items():
    room = chip.host_memory / chip.devices
    if device_kind == chip.device_kind and device_bytes > room:
      raise errors.UserError(
        f"{what}: {device_bytes / GIB:.1f} GiB a device in the memory of hosts,"
        f" and a machine of {family} has {room / GIB:.1f}; take more chips, or"
        " leave it in HBM"
      )


def require(device_kind: str, *, dtype: str, what: str) -> None:
  """That a chip multiplies 8 bits of this kind; others than CHIPS pass.

  Args:
    device_kind: of a device, in JAX.
    dtype: JAX's name.
    what: setting and value that ask for it.

  Raises:
    errors.UserError: it does not.
  """
  kind = "float8" if dtype.startswith("float8") else dtype
  for family, chip in CHIPS.items():
    if device_kind == chip.device_kind and kind != chip.eight_bits:
      raise errors.UserError(
        f"{what}: {family} multiplies no {kind}, its 8 bits are"
        f" {chip.eight_bits}; write {'fp8' if kind == 'int8' else 'int8'}"
      )
