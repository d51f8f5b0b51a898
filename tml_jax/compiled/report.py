"""The report of `python -m tml_jax.aot`: one dict, one table.

For: `build`, the numbers by name, and `table`, the same for people. Not for:
finding them (`roofline.py`). All numbers are per chip; a chip of two devices
has the sum of both.
"""

from typing import Any

from tml_jax.compiled import roofline, scopes
from tml_jax.parallel import chips

_LARGEST = 12  # rows of collectives in the table
_MODULES = 30  # rows of scopes


def build(
  analysis: roofline.Analysis,
  *,
  by_module: list[scopes.Row],
  chip: chips.Chip,
  num_devices: int,
  model_flops: float,
  state: dict[str, int],
  memory: Any,
) -> dict[str, Any]:
  """Numbers of one compiled step.

  Args:
    analysis: of its program.
    by_module: the same by scope.
    chip: what it is compiled for.
    num_devices: of all slices.
    model_flops: that the model needs for a step, all chips together.
    state: bytes of the arguments of a device, by what they are.
    memory: `compiled.memory_analysis()`.
  """
  devices = chip.devices
  num_chips = num_devices // devices
  peak = chips.peak_bytes(memory)
  categories = {
    name: size * devices / chips.GIB for name, size in state.items()
  }
  categories["activations_and_temporaries"] = (
    (peak - memory.argument_size_in_bytes) * devices / chips.GIB
  )
  padding = memory.argument_size_in_bytes - sum(state.values())
  categories["padding_of_arguments"] = padding * devices / chips.GIB
  flops = analysis.flops * devices
  ici = sum(e.ici_bytes for e in analysis.exchanges) * devices
  dcn = sum(e.dcn_bytes for e in analysis.exchanges) * devices
  at_peak = model_flops / num_chips / chip.peak_flops
  return {
    "chips": num_chips,
    "devices_per_chip": devices,
    "hbm_gib_per_chip": peak * devices / chips.GIB,
    "hbm_limit_gib": chip.hbm_limit / chips.GIB,
    "hbm_by_category_gib": categories,
    "flops_per_chip": flops,
    "model_flops_per_chip": model_flops / num_chips,
    "flop_ratio": flops / (model_flops / num_chips),
    "hbm_gb_moved_per_chip": analysis.hbm_bytes * devices / 1e9,
    "ici_gb_per_chip": ici / 1e9,
    "dcn_gb_per_chip": dcn / 1e9,
    "collectives": [
      {
        "kind": e.kind,
        "axes": list(e.axes),
        "asynchronous": e.is_async,
        "count": e.count,
        "ici_gb": e.ici_bytes * devices / 1e9,
        "dcn_gb": e.dcn_bytes * devices / 1e9,
        "seconds": e.seconds,
        "reachable_seconds": e.reachable_s,
      }
      for e in analysis.exchanges
    ],
    "host_gb_per_chip": analysis.host_bytes * devices / 1e9,
    "roofline": _seconds(analysis.times),
    "roofline_reachable": _seconds(analysis.reachable),
    "roofline_s": analysis.times.overlapped_s,
    "roofline_reachable_s": analysis.reachable.overlapped_s,
    "mfu_bound": at_peak / analysis.times.overlapped_s,
    "mfu_bound_exposed": at_peak / analysis.times.exposed_total_s,
    "mfu_bound_reachable": at_peak / analysis.reachable.overlapped_s,
    "mfu_bound_reachable_exposed": at_peak / analysis.reachable.exposed_total_s,
    "by_module": scopes.report(by_module, chip=chip),
    "kernels_without_flops": analysis.uncounted,
    "loops_of_unknown_length": list(analysis.unknown_loops),
    "loops_for_overflow": list(analysis.rare_loops),
  }


def _seconds(times: roofline.Times) -> dict[str, float]:
  return {
    "compute_s": times.compute_s,
    "hbm_s": times.hbm_s,
    "instructions_s": times.instructions_s,
    "ici_s": times.ici_s,
    "dcn_s": times.dcn_s,
    "host_s": times.host_s,
    "synchronous_collectives_s": times.exposed_s,
    "exposed_total_s": times.exposed_total_s,
  }


def table(result: dict[str, Any]) -> str:
  """`build` and what `aot` adds to it, as text."""
  reachable = result["roofline_reachable"]
  slices = f" x {result['num_slices']} slices"
  mesh = " ".join(f"{a}={n}" for a, n in result["mesh"].items() if n > 1)
  lines = [
    f"{result['config']} on {result['topology']}"
    f"{slices if result['num_slices'] > 1 else ''}: {result['chips']} chips,"
    f" mesh {mesh or 'of one device'}",
    f"{result['params_total'] / 1e9:.2f} B parameters,"
    f" {result['params_active'] / 1e9:.2f} B active; {_at_once(result)}",
    "",
    "HBM of a chip, GiB",
  ]
  for name, size in result["hbm_by_category_gib"].items():
    lines.append(f"  {name.replace('_', ' '):<36}{size:>10.2f}")
  lines.append(
    f"  {'live peak':<36}{result['hbm_gib_per_chip']:>10.2f} of"
    f" {result['hbm_limit_gib']:.2f}"
  )
  lines += [
    "",
    "FLOPs of a chip and step",
    f"  {'executed (matrix products)':<36}{result['flops_per_chip']:>10.3e}",
    f"  {'needed by the model':<36}{result['model_flops_per_chip']:>10.3e}",
    f"  {'ratio':<36}{result['flop_ratio']:>10.3f}",
  ]
  for name, count in result["kernels_without_flops"].items():
    lines.append(f"  not counted: {count} calls of {name}")
  for name in result["loops_of_unknown_length"]:
    lines.append(f"  counted once, length unknown: {name}")
  if rare := len(result["loops_for_overflow"]):
    lines.append(
      f"  not counted: {rare} loops for choices of experts beyond"
      " train.execution.moe_buffer"
    )
  lines += ["", *_exchanges(result), "", "By module, of a chip and step"]
  lines += scopes.table(result["by_module"], count=_MODULES)
  lines += ["", f"{'Roofline, seconds a step':<38}{'at peak':>10} reachable"]
  for name, value in result["roofline"].items():
    lines.append(
      f"  {name.removesuffix('_s').replace('_', ' '):<36}{value:>10.3f}"
      f"{reachable[name]:>10.3f}"
    )
  lines += [
    f"  {'bound, collectives overlapped':<36}{result['roofline_s']:>10.3f}"
    f"{result['roofline_reachable_s']:>10.3f}",
    f"  {'MFU bound, collectives overlapped':<36}{result['mfu_bound']:>10.3f}"
    f"{result['mfu_bound_reachable']:>10.3f}",
    f"  {'MFU bound, synchronous ones exposed':<36}"
    f"{result['mfu_bound_exposed']:>10.3f}"
    f"{result['mfu_bound_reachable_exposed']:>10.3f}",
    "",
    f"traced in {result['lower_s']:.0f} s, compiled in"
    f" {result['compile_s']:.0f} s, {result['host_rss_gib']:.1f} GiB of host"
    " memory",
  ]
  return "\n".join(lines)


def _at_once(result: dict[str, Any]) -> str:
  tokens = f"{result['tokens_per_step']:,} tokens"
  if result["program"] == "step":
    return f"{tokens} a step in {result['accumulation_steps']} pieces"
  return f"a tick of {result['sessions']} sessions, {tokens}"


def _exchanges(result: dict[str, Any]) -> list[str]:
  line = "  {:<20}{:<20}{:<6}{:>8}{:>10}{:>10}{:>9}"
  rows = result["collectives"]
  lines = [
    f"Collectives of a chip: {result['ici_gb_per_chip']:.1f} GB over ICI,"
    f" {result['dcn_gb_per_chip']:.1f} GB over DCN",
    line.format("kind", "axes", "mode", "count", "ICI GB", "DCN GB", "seconds"),
  ]
  for row in rows[:_LARGEST]:
    lines.append(
      line.format(
        row["kind"],
        "+".join(row["axes"]),
        "async" if row["asynchronous"] else "sync",
        row["count"],
        f"{row['ici_gb']:.2f}",
        f"{row['dcn_gb']:.2f}",
        f"{row['seconds']:.3f}",
      )
    )
  if len(rows) > _LARGEST:
    rest = sum(row["seconds"] for row in rows[_LARGEST:])
    lines.append(f"  {len(rows) - _LARGEST} more, {rest:.3f} s together")
  return lines
