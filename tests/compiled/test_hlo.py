"""Programs as XLA prints them: parsing, trip counts, FLOPs, bytes, groups.

Hand-written texts in the notations of the CPU and the TPU compiler, and small
compiled programs whose numbers are known.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tml_jax.compiled import collectives, costs, executed, hlo
from tml_jax.kernels.experts import grouped

LOOP = """HloModule jit_f, is_scheduled=true, num_partitions=8

%body (p: (s32[], bf16[8,16], bf16[6,16,16])) -> (s32[], bf16[8,16]) {
  %p = (s32[]{:T(128)}, bf16[8,16]{1,0:T(8,128)(2,1)}, bf16[6,16,16]) \
parameter(0)
  %one = s32[]{:T(128)} constant(1)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = bf16[8,16]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %ws = bf16[6,16,16] get-tuple-element(%p), index=2
  %next = s32[]{:T(128)} add(%i, %one)
  %zero = s32[] constant(0)
  %w = bf16[1,16,16]{2,1,0:T(8,128)S(1)} dynamic-slice(%ws, %i, %zero, %zero), \
dynamic_slice_sizes={1,16,16}
  %w2 = bf16[16,16] bitcast(%w)
  %y = bf16[8,16]{1,0} convolution(%x, %w2), dim_labels=bf_io->bf
  ROOT %t = (s32[], bf16[8,16], bf16[6,16,16]) tuple(%next, %y, /*index=2*/%ws)
}

%condition (p.1: (s32[], bf16[8,16], bf16[6,16,16])) -> pred[] {
  %limit = s32[]{:T(128)} constant(6)
  %p.1 = (s32[], bf16[8,16], bf16[6,16,16]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: bf16[8,16], b: bf16[6,16,16]) -> bf16[8,16] {
  %a = bf16[8,16]{1,0} parameter(0)
  %b = bf16[6,16,16]{2,1,0} parameter(1)
  %start = s32[] constant(START)
  %init = (s32[], bf16[8,16], bf16[6,16,16]) tuple(%start, %a, %b)
  %loop = (s32[], bf16[8,16], bf16[6,16,16]) while(%init), \
condition=%condition, body=%body, metadata={op_name="jit(f)/while"}
  ROOT %r = bf16[8,16]{1,0} get-tuple-element(%loop), index=1
}
"""


def _flops(module: hlo.Module) -> float:
  return sum(
    step.count
    * costs.flops(step.instruction, scope=step.computation, module=module)
    for step in executed.Walk(module).executed()
  )


@pytest.mark.parametrize("start, trips", [(0, 6), (2, 4)])
def test_a_loop_without_known_trip_count(start, trips):
  module = hlo.parse(LOOP.replace("START", str(start)))
  assert _flops(module) == trips * 2 * 8 * 16 * 16
  walk = executed.Walk(module)
  counts = {s.instruction.name: s.count for s in walk.executed()}
  assert counts["y"] == trips and counts["loop"] == 1
  assert walk.unknown_loops == []


@pytest.mark.parametrize(
  "start, limit, step, direction, trips",
  [
    (0, 6, 2, "LT", 3),
    (0, 7, 2, "LT", 4),
    (0, 6, 2, "LE", 4),
    (9, 0, -4, "GT", 3),
    (8, 0, -4, "GE", 3),
    (6, 6, 1, "LT", 0),
    # Ends when the index wraps around, or never.
    (0, 6, -1, "LT", None),
    (0, 6, 0, "LT", None),
    (0, 6, 1, "NE", None),
  ],
)
def test_loops_of_other_steps(start, limit, step, direction, trips):
  text = LOOP.replace("START", str(start)).replace("=LT", f"={direction}")
  text = text.replace("constant(1)", f"constant({step})")
  module = hlo.parse(text.replace("constant(6)", f"constant({limit})"))
  entry = module.computations["main"]
  found = executed.trip_count(module, entry.by_name["loop"], caller=entry)
  assert found == trips
  # The same with the step subtracted.
  text = text.replace("add(%i, %one)", "subtract(%i, %one)")
  text = text.replace(f"one = s32[]{{:T(128)}} constant({step})", "one = S")
  text = text.replace("one = S", f"one = s32[] constant({-step})")
  module = hlo.parse(text.replace("constant(6)", f"constant({limit})"))
  entry = module.computations["main"]
  found = executed.trip_count(module, entry.by_name["loop"], caller=entry)
  assert found == trips


def test_a_step_that_depends_on_data_is_unknown():
  text = LOOP.replace("START", "0").replace("add(%i, %one)", "add(%i, %i)")
  module = hlo.parse(text)
  entry = module.computations["main"]
  loop = entry.by_name["loop"]
  assert executed.trip_count(module, loop, caller=entry) is None


def test_compiled_loops_of_any_step():
  def count(start, stop, step):
    def f(x):
      def body(carry):
        i, y = carry
        return i + step, jnp.tanh(y @ y)

      def ahead(carry):
        return carry[0] < stop if step > 0 else carry[0] > stop

      return jax.lax.while_loop(ahead, body, (start, x))[1]

    text = jax.jit(f).lower(jnp.zeros((8, 8))).compile().as_text()
    text = text.replace("known_trip_count", "hidden")
    return _flops(hlo.parse(text)) / (2 * 8**3)

  assert count(0, 20, 3) == 7
  assert count(20, 0, -6) == 4


def test_a_loop_of_unknown_length_is_named():
  text = LOOP.replace("constant(START)", "parameter(2)")
  walk = executed.Walk(hlo.parse(text))
  counts = {s.instruction.name: s.count for s in walk.executed()}
  assert counts["y"] == 1
  assert walk.unknown_loops == ["jit(f)/while"]


def test_a_loop_for_what_does_not_fit_is_not_counted():
  assert executed.RARE == grouped.OVERFLOW
  text = LOOP.replace("constant(START)", "parameter(2)")
  text = text.replace("jit(f)/while", f"jit(f)/{grouped.OVERFLOW}/while")
  walk = executed.Walk(hlo.parse(text))
  assert "y" not in {s.instruction.name for s in walk.executed()}
  assert walk.rare_loops == ["jit(f)/overflow/while"]
  assert walk.unknown_loops == []


def test_types_with_layouts_tuples_and_memory_spaces():
  module = hlo.parse(LOOP.replace("START", "0"))
  body = module.computations["body"]
  p, w = body.by_name["p"], body.by_name["w"]
  assert [str(a) for a in p.arrays] == ["s32[]", "bf16[8,16]", "bf16[6,16,16]"]
  assert (w.arrays[0].space, w.arrays[0].bytes) == (1, 512)
  assert body.root.operands == ("next", "y", "ws")
  assert hlo.arrays("f8e4m3fn[4,2]{1,0}")[0].bytes == 8
  assert hlo.arrays("pred[<=8]")[0].dims == (8,)
  assert hlo.arrays("(token[], u4[3])")[1].bytes == 2


def test_a_slice_of_a_stack_reads_the_slice():
  module = hlo.parse(LOOP.replace("START", "0"))
  body = module.computations["body"]
  cost = costs.hbm_bytes(body.by_name["w"], scope=body, module=module)
  # 512 bytes from HBM to on-chip memory.
  assert cost == 512


@pytest.mark.parametrize(
  "labels, left, right, out",
  [
    ("bf_io->bf", "8,16", "16,32", "8,32"),
    ("fb_io->bf", "16,8", "16,32", "8,32"),
    ("bf_oi->fb", "8,16", "32,16", "32,8"),
  ],
)
def test_dots_written_as_convolutions(labels, left, right, out):
  module = hlo.parse(
    f"""ENTRY %e (a: f32[{left}], b: f32[{right}]) -> f32[{out}] {{
  %a = f32[{left}] parameter(0)
  %b = f32[{right}] parameter(1)
  ROOT %c = f32[{out}] convolution(%a, %b), dim_labels={labels}, \
operand_precision={{highest,highest}}
}}
"""
  )
  assert _flops(module) == 2 * 8 * 16 * 32


def test_a_batched_dot_written_as_a_convolution_with_holes():
  """Four products of [8, 16] @ [16, 32], the batch as a spatial dim."""
  module = hlo.parse(
    """ENTRY %e (a: f32[4,8,16], b: f32[4,16,32]) -> f32[4,8,32] {
  %a = f32[4,8,16] parameter(0)
  %b = f32[4,16,32] parameter(1)
  ROOT %c = f32[4,8,32] convolution(%a, %b), \
window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0io->0bf
}
"""
  )
  assert _flops(module) == 4 * 2 * 8 * 16 * 32


KERNEL = """ENTRY %e (a: bf16[8,16]) -> bf16[8,32] {
  %a = bf16[8,16] parameter(0)
  ROOT %k = bf16[8,32] custom-call(%a), custom_call_target="tpu_custom_call", \
metadata={op_name="jit(f)/moe/gmm"}, backend_config={"custom_call_config":\
{"body":"QQ==",ESTIMATE"needs_layout_passes":true}}
}
"""


def test_positions_of_a_window_are_counted_without_making_them():
  random = np.random.default_rng(0)
  names = ("out", "size", "kernel", "stride", "holes", "dilation", "pad")
  for _ in range(300):
    values = random.integers(1, (12, 12, 9, 5, 7, 7, 9))
    window = dict(zip(names, map(int, values), strict=True))
    out, kernel = np.arange(window["out"])[:, None], np.arange(window["kernel"])
    place = out * window["stride"] + kernel * window["dilation"] - window["pad"]
    inside = (place >= 0) & (place < window["size"] * window["holes"])
    want = int((inside & (place % window["holes"] == 0)).sum())
    assert costs._valid_positions(**window) == want, window
  # Batch dims of a dot, as a TPU writes them: here 40,960 of them.
  many = 40960
  assert many == costs._valid_positions(
    out=many, size=many, kernel=many, stride=many - 1, holes=many, pad=0
  )


def test_what_a_kernel_says_of_itself_may_take_lines_of_its_own():
  module = hlo.parse("""ENTRY %e (a: bf16[4,8]) -> bf16[4,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %k = bf16[4,8]{1,0} custom-call(%a), custom_call_target="tpu_custom_call", \
frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"tiling\\": {\\"tile_m\\": 512}}"
}}, metadata={op_name="jit(f)/pallas_call"}, \
backend_config={"cost_estimate":{"flops":"64","bytes_accessed":"128"}}
  ROOT %r = bf16[4,8]{1,0} copy(%k)
}
""")
  *_, kernel, last = module.computations["e"].instructions
  assert last.name == "r" and last.is_root
  assert kernel.op_name == "jit(f)/pallas_call"
  assert costs.estimate(kernel) == costs.Estimate(flops=64, bytes=128)


def test_kernels_state_their_cost_or_are_unknown():
  stated = '"cost_estimate":{"flops":"8192","bytes_accessed":"1024"},'
  module = hlo.parse(KERNEL.replace("ESTIMATE", stated))
  entry = module.computations["e"]
  assert _flops(module) == 8192
  assert costs.hbm_bytes(entry.root, scope=entry, module=module) == 1024
  module = hlo.parse(KERNEL.replace("ESTIMATE", ""))
  entry = module.computations["e"]
  assert costs.flops(entry.root, scope=entry, module=module) is None


@pytest.mark.parametrize(
  "groups, want, axes",
  [
    ("replica_groups={{0,1,2,3},{4,5,6,7}}", (0, 1, 2, 3), ("expert", "seq")),
    ("replica_groups=[4,2]<=[8]", (0, 1), ("seq",)),
    ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4), ("data",)),
    (
      "replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}",
      (0, 1, 2, 3),
      ("expert", "seq"),
    ),
    (
      "replica_groups=mesh['a'=4,'c'=2] {'a'}",
      (0, 2, 4, 6),
      ("data", "expert"),
    ),
    ("replica_groups=mesh['a'=8] {'a':(2)2}", (0, 2), ("expert",)),
    (
      "replica_groups=mesh['a'=4,'c'=2] {'c','a'}",
      (0, 2, 4, 6, 1, 3, 5, 7),
      None,
    ),
    ("replica_groups={}", (), None),
    ("source_target_pairs={{0,0},{1,3},{3,1}}", (1, 3), ("expert",)),
  ],
)
def test_groups_and_their_axes(groups, want, axes):
  """A mesh data=2, expert=2, seq=2."""
  item = hlo.Instruction(
    "x", "all-gather", (), (), "", f", {groups}, x=1", False
  )
  group = collectives.first_group(item)
  assert group == want or (axes is None and sorted(group) == sorted(want))
  if axes:
    names = ("data", "expert", "seq")
    assert collectives.axes(group, mesh_shape=(2, 2, 2), names=names) == axes


def test_an_unknown_notation_of_groups_raises():
  item = hlo.Instruction(
    "x", "all-gather", (), (), "", ", replica_groups=?", False
  )
  with pytest.raises(ValueError, match="unknown notation"):
    collectives.first_group(item)


EXCHANGES = """%all-reduce-scatter.1 (p: f32[8,4]) -> f32[2,4] {
  %p = f32[8,4] parameter(0)
  %i = s32[] constant(0)
  %sum = f32[8,4] all-reduce(%p), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %part = f32[2,4] dynamic-slice(%sum, %i, %i), dynamic_slice_sizes={2,4}
}

%wrapped (q: f32[2,4]) -> f32[8,4] {
  %q = f32[2,4] parameter(0)
  ROOT %g = f32[8,4] all-gather(%q), replica_groups={{0,1,2,3}}, dimensions={0}
}

ENTRY %e (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4] parameter(0)
  %rs = f32[2,4] fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1
  %start = ((f32[2,4]), f32[8,4], u32[]) async-start(%rs), calls=%wrapped
  %done = f32[8,4] async-done(%start)
  %ag = (f32[2,4], f32[8,4]) all-gather-start(%rs), \
replica_groups={{0,1,2,3}}, dimensions={0}
  %agd = f32[8,4] all-gather-done(%ag)
  %ar = f32[8,4] all-reduce(%done), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %pp = f32[8,4] collective-permute(%ar), source_target_pairs={{0,1},{1,0}}
}
"""


def test_kinds_bytes_and_overlap_of_collectives():
  found = collectives.find(hlo.parse(EXCHANGES), num_devices=4)
  rows = [(c.kind, c.bytes, c.wire_bytes, c.is_async) for c in found]
  assert rows == [
    ("reduce-scatter", 128, 96, False),
    ("all-gather", 128, 96, True),
    ("all-gather", 128, 96, True),
    ("all-reduce", 128, 192, False),
    ("collective-permute", 128, 128, False),
  ]


def test_nested_scans_of_matmuls_on_the_cpu():
  """XLA's own count of the same program leaves the loops out."""

  def step(x, w):
    return jax.lax.scan(lambda y, _: (jnp.tanh(y @ w), None), x, None, 5)

  def f(x, ws):
    return jax.lax.scan(lambda y, w: (step(y, w)[0], None), x, ws)[0]

  compiled = (
    jax.jit(f).lower(jnp.zeros((32, 64)), jnp.zeros((7, 64, 64))).compile()
  )
  want = 7 * 5 * 2 * 32 * 64 * 64
  assert _flops(hlo.parse(compiled.as_text())) == want
  assert compiled.cost_analysis()["flops"] < want / 5


def test_gradient_of_a_scan_is_three_times_forward():
  def loss(ws, x):
    y = jax.lax.scan(lambda y, w: (jnp.tanh(y @ w), None), x, ws)[0]
    return (y**2).sum()

  f = jax.jit(jax.grad(loss, argnums=(0, 1)))
  compiled = f.lower(jnp.zeros((6, 64, 64)), jnp.zeros((32, 64))).compile()
  assert _flops(hlo.parse(compiled.as_text())) == 3 * 6 * 2 * 32 * 64 * 64


def test_a_prefetched_slice_counts_what_it_reads():
  """16 of 4,096 numbers come on the chip (memory 1) ahead of their use."""
  module = hlo.parse(
    """HloModule prefetch, is_scheduled=true

ENTRY %main (w: f32[4096]) -> f32[16] {
  %w = f32[4096]{0:T(1024)} parameter(0)
  %start = ((f32[4096]{0:T(1024)}), f32[16]{0:T(128)S(1)}, s32[]{:S(2)}) \
slice-start(%w), slice={[0:16]}
  %done = f32[16]{0:T(128)S(1)} slice-done(%start)
  ROOT %out = f32[16]{0:T(128)} add(%done, %done)
}
"""
  )
  entry = module.computations["main"]

  def moved(name):
    item = entry.by_name[name]
    return costs.hbm_bytes(item, scope=entry, module=module)

  assert [moved(name) for name in ("start", "done", "out")] == [64, 0, 64]


def test_gathers_in_a_loop_on_eight_devices():
  """Weights over four devices, gathered in each of six iterations."""
  mesh = jax.make_mesh(
    (2, 4), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )
  spec = jax.sharding.PartitionSpec

  def place(shape, *names):
    sharding = jax.sharding.NamedSharding(mesh, spec(*names))
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

  def local(ws, x):
    def layer(y, w):
      return jnp.tanh(y @ jax.lax.all_gather(w, "fsdp", tiled=True)), None

    return jax.lax.scan(layer, x, ws)[0]

  f = jax.jit(
    jax.shard_map(
      local,
      mesh=mesh,
      in_specs=(spec(None, "fsdp"), spec("data")),
      out_specs=spec("data"),
      check_vma=False,
    )
  )
  compiled = f.lower(
    place((6, 64, 64), None, "fsdp"), place((32, 64), "data")
  ).compile()
  (one,) = collectives.find(hlo.parse(compiled.as_text()), num_devices=8)
  assert (one.kind, one.count, one.bytes) == ("all-gather", 6, 64 * 64 * 4)
  axes = collectives.axes(one.group, mesh_shape=(2, 4), names=mesh.axis_names)
  assert axes == ("fsdp",)
  assert one.wire_bytes == 64 * 64 * 4 * 3 / 4
