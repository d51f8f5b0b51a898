"""What of MaxText is compiled: its configuration nearest to ours, by slice.

For: benchmarks/maxtext.py, which compiles ROWS, and maxtext_tables.py, which
sets them beside ours. Start at ROWS.

Flags of RECIPES are those of published recipes for the same chip: DeepSeek-V3
on v5p-1024 and Mixtral 8x22B on v6e-256 (benchmarks/maxtext_*_model_configs.py
and xla_flags_library.py of AI-Hypercomputer/maxtext at e591f30, which
AI-Hypercomputer/tpu-recipes, training/v5p and training/trillium, starts), and
Qwen3-235B-A22B on 256 chips of TPU7x (training/ironwood there, c8cfe2f); but
for its use_random_routing, which MaxText 0.2.4 refuses without expert
parallelism. `check_vma`, which base.yml recommends and no recipe sets, makes
reduce-scatters of the all-reduces of experts' gradients.
"""

import dataclasses
import functools

from tml_jax import errors

# Ours, as far as MaxText has it.
MODEL = (
  "decoder_block=qwen3_moe",
  "base_emb_dim=4096",
  "base_num_decoder_layers=42",
  "base_num_query_heads=32",
  "base_num_kv_heads=8",
  "head_dim=128",
  "num_experts=256",
  "num_experts_per_tok=8",
  "base_mlp_dim=2048",
  "base_moe_mlp_dim=2048",
  "vocab_size=201024",
  "max_target_length=8192",
  "mlp_activations=['silu','linear']",
  "norm_topk_prob=true",
  "normalization_layer_epsilon=1e-6",
  "use_qk_norm=true",
  "dtype=bfloat16",
  "weight_dtype=float32",
)
# What it needs to be told to start at all, to leave files alone, and to compile
# rather than to find what it compiled before.
START = (
  "run_name=row",
  "jax_cache_dir=",
  "compile_topology_num_slices=1",
  "skip_jax_distributed_system=true",
  "enable_checkpointing=false",
  "dataset_type=synthetic",
  "attention=flash",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One program of MaxText.

  Attributes:
    name: of its report.
    topology: the slice in our words.
    compile_topology: the slice in MaxText's.
    tokens: of a chip and step.
    devices: JAX devices of a chip.
    note: what is set, in words.
    flags: of MaxText, behind MODEL and START.
    xla_flags: in LIBTPU_INIT_ARGS.
    buffer: rows of the experts' buffer over those that tokens fill on average;
      kernels state FLOPs and bytes of all of it and skip what is empty.
  """

  name: str
  topology: str
  compile_topology: str
  tokens: int
  devices: int
  note: str
  flags: tuple[str, ...]
  xla_flags: tuple[str, ...] = ()
  buffer: float = 1.0

  @property
  def arguments(self) -> tuple[str, ...]:
    sequences = self.tokens // self.devices / 8192
    batch = f"per_device_batch_size={sequences:g}"
    slice_ = f"compile_topology={self.compile_topology}"
    return (*START, *MODEL, slice_, batch, *self.flags)


_SLICES = {
  "v5p": dict(
    topology="v5p:8x8x8", compile_topology="v5p-1024", tokens=16384, devices=1
  ),
  "v6e": dict(
    topology="v6e:16x16", compile_topology="v6e-256", tokens=8192, devices=1
  ),
  "tpu7x": dict(
    topology="tpu7x:4x8x8",
    compile_topology="tpu7x-512",
    tokens=81920,
    devices=2,
  ),
}


def _row(family: str, name: str, note: str, *flags: str, **others) -> Row:
  return Row(
    name=f"maxtext-{family}-{name}",
    note=note,
    flags=flags,
    **_SLICES[family],
    **others,
  )


_v5p, _v6e, _tpu7x = (functools.partial(_row, family) for family in _SLICES)
_HOST_OFFLOAD = (
  "--xla_tpu_enable_all_experimental_scheduler_features=true",
  "--xla_tpu_enable_scheduler_memory_pressure_tracking=true",
  "--xla_tpu_host_transfer_overlap_limit=24",
  "--xla_tpu_aggressive_opt_barrier_removal=ENABLED",
  "--xla_lhs_prioritize_async_depth_over_stall=ENABLED",
  "--xla_tpu_enable_ag_backward_pipelining=true",
  "--xla_should_allow_loop_variant_parameter_in_chain=ENABLED",
  "--xla_should_add_loop_invariant_op_in_chain=ENABLED",
  "--xla_max_concurrent_host_send_recv=100",
  "--xla_tpu_scheduler_percent_shared_memory_limit=100",
  "--xla_latency_hiding_scheduler_rerun=2",
)
_SPARSECORE = tuple(
  f"--xla_tpu_{flag}"
  for kind in ("all_gather", "all_reduce", "reduce_scatter")
  for flag in (
    f"enable_async_collective_fusion_fuse_{kind}=false",
    f"enable_sparse_core_collective_offload_{kind}=true",
    f"enable_{kind}_offload_tracing=true",
  )
) + (
  "--xla_tpu_use_tc_device_shape_on_sc=true",
  "--xla_sc_enable_instruction_fusion=false",
  "--xla_sc_disjoint_spmem=false",
  "--xla_sc_disable_megacore_partitioning=true",
)
_DATA_PARALLEL = (
  "--xla_tpu_enable_data_parallel_all_reduce_opt=true",
  "--xla_tpu_data_parallel_opt_different_sized_ops=true",
)
_VMEM = ("--xla_tpu_scoped_vmem_limit_kib=81920",)
_V5P_RECIPE = (
  *_SPARSECORE,
  *_HOST_OFFLOAD,
  "--xla_tpu_use_minor_sharding_for_major_trivial_input=true",
  "--xla_tpu_relayout_group_size_threshold_for_reduce_scatter=1",
  "--xla_tpu_assign_all_reduce_scatter_layout=true",
  *_DATA_PARALLEL,
  *_VMEM,
  "--xla_tpu_megacore_fusion_allow_ags=false",
  "--xla_enable_async_collective_permute=true",
)
_V6E_RECIPE = (
  *_VMEM,
  "--xla_tpu_enable_async_collective_fusion=true",
  "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
  "--xla_tpu_enable_async_collective_fusion_multiple_steps=true",
  "--xla_tpu_overlap_compute_collective_tc=true",
  "--xla_enable_async_all_gather=true",
  *_DATA_PARALLEL,
)
_TPU7X_RECIPE = (
  "--xla_tpu_scoped_vmem_limit_kib=61440",
  "--xla_tpu_enable_sparse_core_collective_offload_all_gather=true",
  "--xla_tpu_enable_sparse_core_collective_offload_all_reduce=true",
  "--xla_tpu_use_single_sparse_core_for_all_gather_offload=true",
  *_HOST_OFFLOAD,
)
_OFFLOAD = ("remat_policy=custom", "decoder_layer_input=offload")


def _blocks(q: int, kv: int, compute: int) -> tuple[str, ...]:
  """Tiles of its attention kernel, those of queries and keys."""
  return (
    f"sa_block_q={q}",
    f"sa_block_kv={kv}",
    f"sa_block_kv_compute={compute}",
  )


_BLOCKS_2048 = (
  *_blocks(2048, 2048, 2048),
  "sa_block_q_dkv=2048",
  "sa_block_kv_dkv=2048",
  "sa_block_kv_dkv_compute=2048",
  "sa_block_q_dq=2048",
  "sa_block_kv_dq=2048",
)

_V5P = (
  *_OFFLOAD,
  "out_proj=offload",
  "use_custom_sort_vjp=true",
  "sa_use_fused_bwd_kernel=false",
  *_BLOCKS_2048,
)
_TPU7X = (
  *_OFFLOAD,
  "use_custom_sort_vjp=true",
  "shard_exp_on_fsdp=false",
  "sparse_matmul=true",
  "use_tokamax_splash=true",
  "sa_use_fused_bwd_kernel=true",
  *_blocks(1024, 1024, 512),
  "sa_block_q_dkv=2048",
  "sa_block_kv_dkv=2048",
  "sa_block_kv_dkv_compute=1024",
  "sa_block_q_dq=1024",
  "sa_block_kv_dq=1024",
  "sa_q_layout=HEAD_DIM_MINOR",
  "sa_k_layout=SEQ_MINOR",
  "sa_v_layout=HEAD_DIM_MINOR",
)
_TOKAMAX = ("megablox=false", "use_tokamax_gmm=true")


def _tiles(kernel: str, **sizes: tuple[int, int, int]) -> tuple[str, ...]:
  """Of grouped products: rows, d_model and expert width, for each gradient.

  The recipe's, with our width of 2,048 where it has its own of 1,536.
  """
  return tuple(
    f"{kernel}_{which}_{dim}={size}"
    for which, three in sizes.items()
    for dim, size in zip(
      ("batch_seq", "embed_dim", "mlp_dim"), three, strict=True
    )
  )


ROWS = (
  _v5p("fsdp", "FSDP 512"),
  _v5p(
    "recipe",
    "FSDP 512, recipe of DeepSeek-V3",
    *_V5P,
    xla_flags=_V5P_RECIPE,
  ),
  _v5p(
    "recipe-vma",
    "FSDP 512, recipe of DeepSeek-V3, check_vma",
    *_V5P,
    "check_vma=true",
    xla_flags=_V5P_RECIPE,
  ),
  _v6e("fsdp", "FSDP 256"),
  _v6e("tiled", "FSDP 256, tiled loss", "num_vocab_tiling=8"),
  _v6e(
    "ep16-buffer",
    "FSDP 16, EP 16, tiled loss, ragged buffer 1.5, which drops tokens",
    "num_vocab_tiling=8",
    "ici_expert_parallelism=16",
    "ragged_buffer_factor=1.5",
    buffer=1.5,
  ),
  _v6e(
    "tiled-vma",
    "FSDP 256, tiled loss, check_vma",
    "num_vocab_tiling=8",
    "check_vma=true",
  ),
  _v6e(
    "recipe",
    "FSDP 256, tiled loss, offload and XLA flags of the recipe of Mixtral",
    "num_vocab_tiling=8",
    *_OFFLOAD,
    *(f"{name}=offload" for name in ("out_proj", "query_proj")),
    *(f"{name}=offload" for name in ("key_proj", "value_proj")),
    "use_iota_embed=true",
    xla_flags=_V6E_RECIPE,
  ),
  _tpu7x(
    "recipe",
    "FSDP 512, recipe of Qwen3",
    *_TPU7X,
    *_TOKAMAX,
    xla_flags=_TPU7X_RECIPE,
  ),
  _tpu7x(
    "megablox",
    "FSDP 512, recipe of Qwen3, grouped products of its own (`megablox`)",
    *_TPU7X,
    "megablox=true",
    xla_flags=_TPU7X_RECIPE,
  ),
  _tpu7x(
    "fp8",
    "FSDP 512, recipe of Qwen3 in fp8_full",
    *_TPU7X,
    *_TOKAMAX,
    "use_qwix_quantization=true",
    "quantization=fp8_full",
    "weight_quantization_calibration_method=fixed,-224,224",
    "act_quantization_calibration_method=fixed,-224,224",
    *_tiles("wi_tile", fwd=(512, 4096, 2048), dlhs=(512, 2048, 4096)),
    *_tiles("wi_tile", drhs=(1024, 1024, 2048)),
    *_tiles("wo_tile", fwd=(512, 2048, 4096), dlhs=(512, 4096, 2048)),
    *_tiles("wo_tile", drhs=(512, 1024, 4096)),
    xla_flags=_TPU7X_RECIPE,
  ),
  _v5p("ep8", "FSDP 64, EP 8", "ici_expert_parallelism=8", buffer=8.0),
  _v5p(
    "ep8-buffer",
    "FSDP 64, EP 8, ragged buffer 1.25, which drops tokens",
    "ici_expert_parallelism=8",
    "ragged_buffer_factor=1.25",
    buffer=1.25,
  ),
  _v5p("vma", "FSDP 512, check_vma", "check_vma=true"),
)


def chosen(names: list[str]) -> list[Row]:
  """Rows by name; all of them for no names.

  Raises:
    errors.UserError: there is no such row.
  """
  rows = {row.name: row for row in ROWS}
  for name in names:
    if name not in rows:
      raise errors.UserError(f"--only={name}: write one of {', '.join(rows)}")
  return [row for row in rows.values() if not names or row.name in names]
