"""Least times of instructions and collectives, at peak and as reached."""

import numpy as np
import pytest

from tml_jax import errors
from tml_jax.compiled import collectives, costs, executed, hlo, roofline
from tml_jax.parallel import chips

V5P, V6E, TPU7X = (chips.CHIPS[name] for name in ("v5p", "v6e", "tpu7x"))


def _work(text: str, *, chip: chips.Chip) -> roofline.Work:
  """Of the last instruction."""
  *_, last = roofline.works(executed.Walk(hlo.parse(text)), chip=chip)
  return last


def _square(size: int) -> str:
  shape = f"bf16[{size},{size}]"
  return f"""ENTRY %e (a: {shape}, b: {shape}) -> {shape} {{
  %a = {shape} parameter(0)
  %b = {shape} parameter(1)
  ROOT %c = {shape} dot(%a, %b), lhs_contracting_dims={{1}}, \
rhs_contracting_dims={{0}}
}}
"""


@pytest.mark.parametrize(
  "size, teraflops", [(16384, 950), (4096, 893), (2048, 680)]
)
def test_square_products_are_as_fast_as_they_were_measured(size, teraflops):
  """By the documentation of TPU7x, a device, in bfloat16."""
  work = _work(_square(size), chip=TPU7X)
  assert work.flops == 2 * size**3
  assert 2 * size**3 / work.reached.seconds / 1e12 == pytest.approx(
    teraflops, rel=0.02
  )
  assert work.at_peak.seconds == pytest.approx(2 * size**3 / 1153.5e12)


@pytest.mark.parametrize(
  "dtypes, faster",
  [
    (("s8", "s8"), (V5P, V6E)),
    (("f8e4m3fn", "f8e4m3fn"), (TPU7X,)),
    (("f8e5m2", "f8e4m3fn"), (TPU7X,)),
    (("bf16", "s8"), ()),  # as wide as the wider one
  ],
)
def test_8_bits_at_twice_the_rate_where_the_chip_has_them(dtypes, faster):
  left, right = (f"{dtype}[4096,4096]" for dtype in dtypes)
  text = f"""ENTRY %e (a: {left}, b: {right}) -> f32[4096,4096] {{
  %a = {left} parameter(0)
  %b = {right} parameter(1)
  ROOT %c = f32[4096,4096] dot(%a, %b), lhs_contracting_dims={{1}}, \
rhs_contracting_dims={{0}}
}}
"""
  for chip in (V5P, V6E, TPU7X):
    work = _work(text, chip=chip)
    peak = chip.peak_flops / chip.devices * (2 if chip in faster else 1)
    assert work.flops == 2 * 4096**3
    assert work.at_peak.compute_s == pytest.approx(2 * 4096**3 / peak)
    assert work.reached.compute_s == pytest.approx(
      2 * 4096**3 / (0.82 * peak) + 7.5e-6
    )


def test_a_chip_that_lacks_a_precision_says_which_it_has():
  with pytest.raises(errors.UserError, match="v5p .*no float8.*write int8"):
    chips.require("TPU v5", dtype="float8_e4m3fn", what="sample.x = fp8")
  with pytest.raises(errors.UserError, match="tpu7x .*no int8.*write fp8"):
    chips.require("TPU7x", dtype="int8", what="sample.x = int8")
  for kind, dtype in (
    ("TPU v6 lite", "int8"),
    ("TPU7x", "float8_e5m2"),
    ("cpu", "int8"),
    ("cpu", "float8_e4m3fn"),
  ):
    chips.require(kind, dtype=dtype, what="")


def test_a_host_without_room_is_said_with_both_sizes():
  with pytest.raises(
    errors.UserError, match="x = 1: 104.4 GiB .*v5p has 104.3"
  ):
    chips.require_host_memory("TPU v5", device_bytes=112.1e9, what="x = 1")
  chips.require_host_memory("TPU v5", device_bytes=111.9e9, what="x = 1")
  with pytest.raises(errors.UserError, match="tpu7x has 111.8"):  # two devices
    chips.require_host_memory("TPU7x", device_bytes=121e9, what="x = 1")
  chips.require_host_memory("cpu", device_bytes=1e15, what="")


def test_a_narrow_product_fills_half_of_a_matrix_unit():
  """128 columns: a whole unit of v5p, half of one of v6e."""
  text = """ENTRY %e (a: bf16[4096,4096], b: bf16[4096,128]) -> bf16[4096,128] {
  %a = bf16[4096,4096] parameter(0)
  %b = bf16[4096,128] parameter(1)
  ROOT %c = bf16[4096,128] dot(%a, %b), lhs_contracting_dims={1}, \
rhs_contracting_dims={0}
}
"""
  module = hlo.parse(text)
  entry = module.computations["e"]
  (product,) = costs.products(entry.root, scope=entry, module=module)
  assert product.flops == 2 * 4096 * 4096 * 128
  assert product.filled(V5P.mxu) == product.flops
  assert product.filled(V6E.mxu) == 2 * product.flops


def test_batches_fill_nothing():
  text = """ENTRY %e (a: bf16[6,512,64], b: bf16[6,64,256]) -> bf16[6,512,256] {
  %a = bf16[6,512,64] parameter(0)
  %b = bf16[6,64,256] parameter(1)
  ROOT %c = bf16[6,512,256] dot(%a, %b), lhs_batch_dims={0}, \
rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={1}
}
"""
  module = hlo.parse(text)
  entry = module.computations["e"]
  (product,) = costs.products(entry.root, scope=entry, module=module)
  assert product.flops == 2 * 6 * 512 * 256 * 64
  assert product.sizes == (512, 256, 64)
  assert product.filled(128) == 2 * product.flops


@pytest.mark.parametrize("there, hbm", [("S(5)", 0), ("S(1)", 1), ("", 2)])
def test_a_part_that_moves_to_another_memory_and_back(there, hbm):
  """As libtpu 0.0.42 writes layers' inputs that wait in the host's memory."""
  whole, part = (
    f"bf16[4,512]{{1,0:T(8,128){there}}}",
    "bf16[1,512]{1,0:T(8,128)}",
  )
  text = f"""ENTRY %e (p: bf16[1,512], i: s32[]) -> bf16[1,512] {{
  %p = {part} parameter(0)
  %i = s32[] parameter(1)
  %w = {whole} custom-call(), custom_call_target="AllocateBuffer"
  %t = (({whole}, {part}, s32[], s32[]), {whole}, u32[]) \
dynamic-update-slice-start(%w, %p, %i, %i)
  %d = {whole} dynamic-update-slice-done(%t)
  %f = (({whole}, s32[], s32[]), {part}, u32[]) dynamic-slice-start(%d, %i, %i)
  ROOT %g = {part} dynamic-slice-done(%f)
}}
"""
  works = list(roofline.works(executed.Walk(hlo.parse(text)), chip=V5P))
  assert sum(w.host_bytes for w in works) == (2048 if there == "S(5)" else 0)
  assert sum(w.hbm_bytes for w in works) == 2048 * hbm


def test_a_copy_to_the_host_costs_the_link_and_no_hbm_time():
  text = """ENTRY %e (a: f32[1024,1024]) -> f32[1024,1024] {
  %a = f32[1024,1024]{1,0:T(8,128)} parameter(0)
  %s = (f32[1024,1024]{1,0:T(8,128)S(5)}, f32[1024,1024]{1,0:T(8,128)}, \
u32[]{:S(2)}) copy-start(%a)
  ROOT %d = f32[1024,1024]{1,0:T(8,128)S(5)} copy-done(%s)
}
"""
  place = roofline.Place(
    mesh_shape=(1,), names=("data",), coords=np.zeros((1, 3), int)
  )
  found = roofline.analyse(hlo.parse(text), chip=V5P, place=place)
  assert found.host_bytes == 4 * 2**20
  assert found.hbm_bytes == 0
  assert found.times.host_s == found.reachable.host_s == 4 * 2**20 / 16e9
  assert found.times.overlapped_s == found.times.host_s


def _gather(attributes: str) -> str:
  """Eight by eight chips: 64 parts of 2 KiB."""
  return f"""ENTRY %e (a: f32[8,64]) -> f32[512,64] {{
  %a = f32[8,64] parameter(0)
  ROOT %g = f32[512,64] all-gather(%a), replica_groups=[1,64]<=[64], \
dimensions={{0}}, backend_config={{{attributes}}}
}}
"""


@pytest.mark.parametrize(
  "attributes, at_peak, reached",
  [
    # Nothing stated: both dims at once, half way round each.
    ("", 2, (2, 8)),
    # One ring through all chips, by its name.
    ('"emitter":"1DAllGatherNonMajorDim"', 1, (1, 32)),
    # One ring through all chips, by its strategy, which the bound overlooks.
    (
      '"emitter":"SingleInputAllReduceScatterFusion","strategy":"StrategyRing"'
      r',"debug":"\nStrategyRing{colors:1 phases:1 cores:{64}"',
      2,
      (1, 32),
    ),
    (
      '"emitter":"RotatedPincerEmitter","strategy":"StrategyND"'
      r',"debug":"\nStrategyND{colors:2 phases:2 cores:{8 8}"',
      2,
      (2, 8),
    ),
  ],
)
def test_rings_that_the_compiler_chose(attributes, at_peak, reached):
  (one,) = collectives.find(hlo.parse(_gather(attributes)), num_devices=64)
  grid = np.stack(np.unravel_index(np.arange(64), (8, 8, 1)), axis=1)
  place = roofline.Place(mesh_shape=(64,), names=("fsdp",), coords=grid)
  took = roofline.time_of(one, chip=V5P, place=place)
  received = 512 * 64 * 4 * 63 / 64
  assert took.ici_bytes == received
  rings, hops = reached
  assert took.seconds == pytest.approx(received / (at_peak * 2 * 90e9))
  assert took.reachable_s == pytest.approx(
    received / (rings * 2 * 90e9) + hops * 1e-6
  )
