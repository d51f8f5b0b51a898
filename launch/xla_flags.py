"""Named sets of TPU compiler options, each with its reason and its source.

For: rows of experiments/topologies.py, which name sets, so that a run's config
holds the options themselves (`mesh.compiler_options`). Not for: which set goes
where, or options of the runtime (LIBTPU_INIT_ARGS). Start reading at SETS.

`python -m launch.xla_flags` lists the sets; `python -m launch.xla_flags NAME
...` prints them as one value, for a run whose topology has no row:

  --config.mesh.compiler_options=$(python -m launch.xla_flags scoped_vmem)

"measured" is what libtpu 0.0.42 did with a program compiled for v5p, v6e and
tpu7x; no TPU has timed any set. Defaults and meanings without another source:
OpenXLA's "XLA Flags Guidance" (openxla.org/xla/flags_guidance).
"""

import dataclasses
import difflib
import sys
from collections.abc import Mapping, Sequence

from tml_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlagSet:
  """Options that are meant together.

  Attributes:
    reason: what they are for, and when not.
    source: where they come from, and what was measured.
    options: value by XLA flag.
  """

  reason: str
  source: str
  options: Mapping[str, str]


_FUSION = "xla_tpu_enable_async_collective_fusion"
_OFFLOAD = "xla_tpu_enable_sparse_core_collective_offload"

SETS: dict[str, FlagSet] = {
  "async_collective_fusion": FlagSet(
    reason=(
      "All-gathers run inside the matrix products next to them, and"
      " all-to-alls while something else is computed. Costs memory for the"
      " buffers in flight. Not with `sparsecore`, which takes all-gathers out"
      " of fusions."
    ),
    source=(
      "MaxText's set for all-gathers and OpenXLA's flag for all-to-all."
      " Measured: without, no collective of the step is asynchronous on v5p"
      " and v6e; with it most all-gathers are fused and all-to-alls have a"
      " start and a done. Reduce-scatters stay synchronous."
    ),
    options={
      _FUSION: "true",
      f"{_FUSION}_fuse_all_gather": "true",
      f"{_FUSION}_multiple_steps": "true",
      "xla_tpu_overlap_compute_collective_tc": "true",
      "xla_enable_async_all_gather": "true",
      "xla_tpu_enable_async_all_to_all": "true",
    },
  ),
  "async_all_reduce": FlagSet(
    reason=(
      "The same for all-reduces: gradients of replicated parameters (norms,"
      " routers) and of the `data` axis inside a slice."
    ),
    source="MaxText's set for all-reduces.",
    options={
      _FUSION: "true",
      f"{_FUSION}_fuse_all_reduce": "true",
      f"{_FUSION}_multiple_steps": "true",
      "xla_tpu_overlap_compute_collective_tc": "true",
      "xla_enable_async_all_reduce": "true",
    },
  ),
  "async_reduce_scatter": FlagSet(
    reason=(
      "Reduce-scatters of gradients inside matrix products. Try it with"
      " `async_collective_fusion`; look at the report for what it changed."
    ),
    source=(
      "By analogy with all-gathers. Measured: accepted, and the one small"
      " program tried kept its reduce-scatter synchronous on v5p and v6e."
    ),
    options={
      _FUSION: "true",
      f"{_FUSION}_fuse_reduce_scatter": "true",
    },
  ),
  "sparsecore": FlagSet(
    reason=(
      "Collectives run on the SparseCores, beside the matrix units. tpu7x"
      " does all-gathers and reduce-scatters this way by default; v5p and v6e"
      " need it. Takes all-gathers out of matrix products."
    ),
    source=(
      "MaxText's sets for offloading all-gathers and all-reduces, with"
      " reduce-scatters added and without xla_sc_disjoint_spmem, which is no"
      " option of the compiler (measured)."
    ),
    options={
      f"{_FUSION}_fuse_all_gather": "false",
      f"{_OFFLOAD}_all_gather": "true",
      f"{_OFFLOAD}_reduce_scatter": "true",
      f"{_OFFLOAD}_all_reduce": "true",
      "xla_tpu_use_tc_device_shape_on_sc": "true",
      "xla_sc_disable_megacore_partitioning": "true",
      "xla_sc_enable_instruction_fusion": "false",
    },
  ),
  "sparsecore_beside_fusion": FlagSet(
    reason=(
      "With `async_collective_fusion`: what is not fused with a matrix product"
      " goes to the SparseCores, reduce-scatters above all."
    ),
    source=(
      "Measured on v5p:8x8x8, six sliding-window layers of the reference"
      " model with AdamW: of 76 GB of collectives a chip and step, 20 stay"
      " synchronous; with SparseCores for reductions alone, 31."
    ),
    options={
      f"{_OFFLOAD}_all_gather": "true",
      f"{_OFFLOAD}_reduce_scatter": "true",
      f"{_OFFLOAD}_all_reduce": "true",
      "xla_tpu_use_tc_device_shape_on_sc": "true",
      "xla_sc_disable_megacore_partitioning": "true",
      "xla_sc_enable_instruction_fusion": "false",
    },
  ),
  "scoped_vmem": FlagSet(
    reason=(
      "64 MiB of VMEM for one kernel instead of 16: larger tiles of grouped"
      " matrix products, which read their operands fewer times. What a kernel"
      " takes is not there for prefetching."
    ),
    source=(
      "MaxText uses 80 MiB for mixtures of experts and 96 for dense models."
      " Measured: megablox tiles of 1024 x 1024 x 512 are refused at the"
      " default and compile at 64 MiB."
    ),
    options={"xla_tpu_scoped_vmem_limit_kib": "65536"},
  ),
  "latency_hiding": FlagSet(
    reason=(
      "The scheduler starts collectives as early and ends them as late as"
      " memory allows; it looks at memory pressure while it does so. Only"
      " what is asynchronous can move."
    ),
    source="OpenXLA; MaxText has the pressure tracking in its offload set.",
    options={
      "xla_tpu_enable_latency_hiding_scheduler": "true",
      "xla_tpu_enable_scheduler_memory_pressure_tracking": "true",
    },
  ),
  "collective_pipelining": FlagSet(
    reason=(
      "All-gathers of the next iteration of a loop run during this one: for"
      " `scan_layers`, whose loop body else begins by waiting for weights."
      " Costs a second copy of what is gathered."
    ),
    source="OpenXLA: three flags to be used together.",
    options={
      "xla_should_allow_loop_variant_parameter_in_chain": "ENABLED",
      "xla_should_add_loop_invariant_op_in_chain": "ENABLED",
      "xla_tpu_enable_ici_ag_pipelining": "true",
    },
  ),
  "reduce_scatter_fusion": FlagSet(
    reason=(
      "An all-reduce that only a slice of is used becomes a reduce-scatter:"
      " half the bytes."
    ),
    source="MaxText's set of that name.",
    options={
      "xla_tpu_use_minor_sharding_for_major_trivial_input": "true",
      "xla_tpu_relayout_group_size_threshold_for_reduce_scatter": "1",
    },
  ),
  "data_parallel_overlap": FlagSet(
    reason=(
      "With several slices: the gradient's all-reduce over the network"
      " between them overlaps with the backward pass."
    ),
    source="MaxText's set of that name.",
    options={
      "xla_tpu_enable_data_parallel_all_reduce_opt": "true",
      "xla_tpu_data_parallel_opt_different_sized_ops": "true",
    },
  ),
  "host_offload": FlagSet(
    reason=(
      "For a remat policy that keeps activations in host memory: transfers"
      " overlap with computation instead of one waiting for the other."
    ),
    source="MaxText's set for offloading, without what other sets have.",
    options={
      "xla_tpu_enable_all_experimental_scheduler_features": "true",
      "xla_tpu_enable_scheduler_memory_pressure_tracking": "true",
      "xla_tpu_host_transfer_overlap_limit": "24",
      "xla_tpu_aggressive_opt_barrier_removal": "ENABLED",
      "xla_lhs_prioritize_async_depth_over_stall": "ENABLED",
      "xla_max_concurrent_host_send_recv": "100",
    },
  ),
  "low_memory": FlagSet(
    reason=(
      "For a step that does not fit by a little: the scheduler tries again"
      " with a smaller limit, and reductions are not fused with broadcasts."
      " Slower to compile, and the step may be slower."
    ),
    source="OpenXLA's suggestions for running out of HBM.",
    options={
      "xla_latency_hiding_scheduler_rerun": "5",
      "xla_tpu_rwb_fusion": "false",
    },
  ),
}


def resolve(names: Sequence[str]) -> tuple[str, ...]:
  """The options of several sets as `mesh.compiler_options` holds them.

  Raises:
    errors.UserError: no such set, or two sets with different values for one
      option.
  """
  chosen: dict[str, str] = {}
  chosen_by: dict[str, str] = {}
  for name in names:
    if name not in SETS:
      near = difflib.get_close_matches(name, SETS, n=1, cutoff=0.0)
      raise errors.UserError(
        f"no set of XLA flags is named {name!r}; the nearest is {near[0]!r},"
        f" launch/xla_flags.py has {', '.join(SETS)}"
      )
    for flag, value in SETS[name].options.items():
      if chosen.setdefault(flag, value) != value:
        raise errors.UserError(
          f"the sets of XLA flags {chosen_by[flag]!r} and {name!r} want"
          f" {flag}={chosen[flag]} and {flag}={value}: take one of them"
        )
      chosen_by.setdefault(flag, name)
  return tuple(f"{flag}={value}" for flag, value in chosen.items())


def main(names: Sequence[str]) -> None:
  if names:
    print(",".join(resolve(names)))
    return
  for name, flag_set in SETS.items():
    print(f"{name}\n  why: {flag_set.reason}\n  from: {flag_set.source}")
    for option in resolve([name]):
      print(f"    {option}")


if __name__ == "__main__":
  try:
    main(sys.argv[1:])
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.status)
