"""TPU chips: what they can do, by topology family.

For: limits and speeds that `aot` and `training/flops.py` judge a program by.
Not for: measurements. Start at `CHIPS`.

Speeds are the figures that Google Cloud publishes for each family
(documentation of v5p, v6e and TPU7x, "System architecture"). A link carries
100 GB/s in each direction by them; 90 is what is reached (Austin et al., How
to Scale Your Model, 2025). The HBM limits are what libtpu 0.0.42 enforces
when it compiles ("exceeds available HBM").
"""

import dataclasses

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
  """

  device_kind: str
  devices: int
  peak_flops: float
  hbm_bytes_per_second: float
  hbm_limit: float
  link_bytes_per_second: float
  ring: int
  dcn_bytes_per_second: float


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
