"""What the compiler writes when a program does not fit, read back."""

import pytest

from tml_jax import errors
from tml_jax.compiled import out_of_memory

_PROGRAM = """HloModule jit_step, is_scheduled=true

ENTRY %main (x.1: f32[8,128]) -> f32[8,128] {
  %x.1 = f32[8,128]{1,0:T(8,128)} parameter(0), metadata={op_name="x"}
  %a = (bf16[4,128]{1,0}, f32[2,128]{1,0}) custom-call(%x.1), \
custom_call_target="k", metadata={op_name="jit(step)/layers/a"}
  %b = (bf16[4,128]{1,0}, f32[2,128]{1,0}) custom-call(%x.1), \
custom_call_target="k", metadata={op_name="jit(step)/layers/a"}
  ROOT %y = f32[8,128]{1,0:T(8,128)} copy(%x.1)
}
"""
_LIVE = """HloLiveRange (max 4):
  InstructionSequence:
    0:x.1
  BufferLiveRange:
    x.1{}:0-4
  Live ranges at 3 (peak):
    x.1{}: 4096 bytes (cumulative: 4096 bytes)
    a{1}: 2048 bytes (cumulative: 6144 bytes)
    b{1}: 2048 bytes (cumulative: 8192 bytes)
    a{0}: 1024 bytes (cumulative: 9216 bytes)
    unknown.7{0,1}: 512 bytes (cumulative: 9728 bytes)
  Stack trace breakdown for peak usage: 9 728 bytes
    main.1 (100.0%, total: 9 728 bytes)
"""


def test_refusal_in_bytes():
  refusal = out_of_memory.parse(
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required"
    " for HLO temporaries (147.88G) exceeds available HBM (95.74G)."
  )
  assert refusal == out_of_memory.Refusal(
    needed=147.88 * 2**30, limit=95.74 * 2**30
  )
  assert out_of_memory.parse("INTERNAL: something else") is None


def test_what_is_live_at_the_peak_by_sum(tmp_path):
  (tmp_path / "m.oom_intermediate_module.txt").write_text(_PROGRAM)
  (tmp_path / "m.after_optimizations-live-range.txt").write_text(_LIVE)
  a = "jit(step)/layers/a"
  tensors = out_of_memory.at_peak(tmp_path, count=9)
  assert {(t.shape, t.op_name, t.bytes, t.count) for t in tensors} == {
    ("f32[8,128]", "x", 4096, 1),
    ("f32[2,128]", a, 2048, 2),
    ("bf16[4,128]", a, 1024, 1),
    ("", "unknown.7", 512, 1),
  }
  sums = [t.bytes * t.count for t in tensors]
  assert sums == sorted(sums, reverse=True)
  assert len(out_of_memory.at_peak(tmp_path, count=2)) == 2


def test_a_compiler_that_writes_nothing_is_named(tmp_path):
  with pytest.raises(errors.UserError, match="live-range"):
    out_of_memory.at_peak(tmp_path, count=1)
