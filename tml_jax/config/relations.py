"""What the sections of a config ask of each other.

For: `config.Config`, which calls `whole` when it is built. Not for: the values
of one section (`config/checks.py`). Every message names the fields, the values
and the fix.
"""

import math
import re
from typing import Any

from tml_jax.config import checks as config_checks


def whole(config: Any) -> None:
  rows = (
    config.streams.text_vocab_size
    + config_checks.CONTROL_ROWS
    + config.model.vocab_padding
  )
  config_checks.require(
    config.model.vocab_size >= rows,
    f"model.vocab_size = {config.model.vocab_size}: at least"
    f" streams.text_vocab_size + {config_checks.CONTROL_ROWS} control rows +"
    f" model.vocab_padding = {rows}",
  )
  for name, made in config_checks.DMEL.items():
    value = getattr(config.model, name)
    config_checks.require(
      value == made,
      f"model.{name} = {value}: must be {made}, which tml_jax.streams makes",
    )
  config_checks.require(
    config.data.layout == "duplex"
    or config.streams.turn_ms == config_checks.TICK_MS,
    f"data.layout = {config.data.layout} with streams.turn_ms ="
    f" {config.streams.turn_ms}: the harness cuts turns every"
    f" {config_checks.TICK_MS} ms; set streams.turn_ms={config_checks.TICK_MS}",
  )
  execution = config.train.execution
  config_checks.require(
    config.numerics == "default"
    or (execution.attention, execution.moe_dispatch) == ("cells", "automatic"),
    "numerics = invariant: a form for CPUs; set"
    " train.execution.attention=cells and"
    " train.execution.moe_dispatch=automatic",
  )
  weight, layers = config.train.load_balance_loss_weight, config.model
  config_checks.require(
    not weight or layers.num_dense_layers < layers.num_layers,
    f"train.load_balance_loss_weight = {weight}: all {layers.num_layers} layers"
    " are dense, there is no load to balance; set it to 0",
  )
  _require_sequence_can_be_cut(config)
  pattern = config.model.attention_pattern
  config_checks.require(
    config.train.remat_policy != "offload"
    or not config.train.execution.scan_layers
    or not re.search(r"(.)\1", pattern),
    "train.remat_policy = offload: where equal layers are next to one another,"
    f" as in model.attention_pattern = {pattern}, they are scanned inside the"
    " scan of blocks, and libtpu cannot move arrays of two such dims to the"
    " host; set train.execution.scan_layers=False, or remat_policy=block",
  )
  batch, shards = config.train.global_batch_size, config.data.logical_shards
  config_checks.require(
    batch % shards == 0,
    f"train.global_batch_size = {batch}: must be a multiple of"
    f" data.logical_shards = {shards}, as every shard gives the same number"
    " of sequences to a step",
  )


def _require_sequence_can_be_cut(config: Any) -> None:
  """What lies on the mesh axes of "time" and "heads" must come out even."""
  rules, mesh, m = config.mesh.axis_rules, config.mesh, config.model
  parts = {
    name: math.prod(getattr(mesh, axis) for axis in rules.get(name, ()))
    for name in ("time", "heads")
  }
  pieces, length = parts["time"], config.streams.seq_len
  streams, chunk = config.streams, config.train.execution.loss_chunk
  sizes = {
    f"streams.{name}": getattr(streams, name)
    for name in (
      "seq_len",
      "max_audio",
      "max_patches",
      "max_speak",
      "max_targets",
    )
  }
  if chunk < streams.max_targets:
    sizes["train.execution.loss_chunk"] = chunk
  for name, size in sizes.items():
    config_checks.require(
      size % pieces == 0,
      f"{name} = {size}: cannot be cut into {pieces} equal pieces by"
      f" mesh.seq = {mesh.seq}; make it a multiple of {pieces}",
    )
  if pieces == 1 or config.train.execution.attention != "pallas":
    return
  piece = length // pieces
  config_checks.require(
    piece >= m.sliding_window and piece % config_checks.FLASH_BLOCK == 0,
    f"mesh.seq = {mesh.seq}: pieces of {piece} positions; the attention"
    f" kernels take multiples of {config_checks.FLASH_BLOCK}, and at least"
    f" model.sliding_window = {m.sliding_window}: a smaller axis or longer"
    " sequences",
  )
  devices = parts["heads"] * pieces
  heads = math.lcm(m.num_kv_heads, devices)
  config_checks.require(
    m.num_heads % heads == 0,
    f"mesh.seq = {mesh.seq}: model.num_heads = {m.num_heads} cannot be dealt"
    f" out to {devices} devices in groups of one key head; make the axis"
    " smaller",
  )
