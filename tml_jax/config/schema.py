"""One experiment: the sections together, and what they ask of each other.

For: the `Config` that `experiments/*.py` return and every other module reads.
Not for: choosing values (that is `experiments/`), nor the fields of a section
(`streams.py`, `model.py`, `data.py`, `train.py`, `mesh.py`, `sample.py` and
`turns.py` beside this file). Derived values are properties; nothing here
imports jax. A value that cannot work raises `errors.UserError` when its
dataclass is built, naming the field, the value and the fix.
"""

import dataclasses
import enum
import math

from tml_jax.config import checks
from tml_jax.config import data as data_config
from tml_jax.config import mesh as mesh_config
from tml_jax.config import model as model_config
from tml_jax.config import sample as sample_config
from tml_jax.config import streams as streams_config
from tml_jax.config import train as train_config
from tml_jax.config import turns as turns_config


class Numerics(enum.StrEnum):
  """Whether results may depend on what is computed beside them."""

  DEFAULT = "default"  # to rounding
  # The same bits in training, prefill and ticks, whatever shares the batch.
  INVARIANT = "invariant"  # CPU

  @property
  def compiler_options(self) -> dict[str, bool]:
    """XLA's; else fusions keep in float32 what is rounded to bfloat16."""
    invariant = self is Numerics.INVARIANT
    return {"xla_allow_excess_precision": False} if invariant else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """One experiment."""

  name: str
  streams: streams_config.StreamsConfig
  model: model_config.ModelConfig
  data: data_config.DataConfig
  train: train_config.TrainConfig
  mesh: mesh_config.MeshConfig
  sample: sample_config.SampleConfig
  numerics: Numerics
  # Of --config.data.layout=turns, and of sessions with --agent=turns.
  turns: turns_config.TurnsConfig = turns_config.TurnsConfig()

  @property
  def compiler_options(self) -> dict[str, str | bool]:
    """Of XLA, for every program of a run."""
    return self.numerics.compiler_options | self.mesh.compiler_flags

  def __post_init__(self) -> None:
    _require_what_streams_make(self)
    _require_execution(self)
    _require_batch(self)
    _require_sequence_can_be_cut(self)


def _require_what_streams_make(config: Config) -> None:
  """The model and the layout of the data fit the streams."""
  streams, model = config.streams, config.model
  control_rows = streams_config.CONTROL_ROWS
  rows = streams.text_vocab_size + control_rows + model.vocab_padding
  checks.require(
    model.vocab_size >= rows,
    f"model.vocab_size = {model.vocab_size}: at least"
    f" streams.text_vocab_size + {control_rows} control rows +"
    f" model.vocab_padding = {rows}",
  )
  for name, made in (
    ("dmel_channels", streams_config.MEL_CHANNELS),
    ("dmel_levels", streams_config.DMEL_LEVELS),
  ):
    value = getattr(model, name)
    checks.require(
      value == made,
      f"model.{name} = {value}: must be {made}, which tml_jax.streams makes",
    )
  tick_ms = streams_config.TICK_MS
  checks.require(
    config.data.layout is data_config.Layout.DUPLEX
    or streams.turn_ms == tick_ms,
    f"data.layout = {config.data.layout} with streams.turn_ms ="
    f" {streams.turn_ms}: the harness cuts turns every"
    f" {tick_ms} ms; set streams.turn_ms={tick_ms}",
  )


def _require_execution(config: Config) -> None:
  """How a step runs fits what it computes."""
  execution = config.train.execution
  checks.require(
    config.numerics is Numerics.DEFAULT
    or (execution.attention, execution.moe_dispatch)
    == (train_config.AttentionForm.CELLS, train_config.MoeDispatch.AUTOMATIC),
    "numerics = invariant: a form for CPUs; set"
    " train.execution.attention=cells and"
    " train.execution.moe_dispatch=automatic",
  )
  checks.require(
    config.numerics is Numerics.DEFAULT or not config.train.low_precision,
    f"numerics = invariant with train.low_precision ="
    f" {config.train.low_precision}: sessions would multiply otherwise than"
    " training; leave train.low_precision empty",
  )


def _require_batch(config: Config) -> None:
  """Shards share a batch evenly, and its loss has what it balances."""
  weight, model = config.train.load_balance_loss_weight, config.model
  checks.require(
    not weight or model.num_dense_layers < model.num_layers,
    f"train.load_balance_loss_weight = {weight}: all {model.num_layers} layers"
    " are dense, there is no load to balance; set it to 0",
  )
  drafts = config.sample.draft_tokens
  checks.require(
    drafts <= model.num_mtp_layers,
    f"sample.draft_tokens = {drafts}: each is drafted by a layer of multi-token"
    f" prediction, and model.num_mtp_layers = {model.num_mtp_layers}; draft at"
    " most so many",
  )
  weight = config.train.mtp_loss_weight
  checks.require(
    not weight or model.num_mtp_layers > 0,
    f"train.mtp_loss_weight = {weight}: there are no layers of multi-token"
    " prediction; set model.num_mtp_layers=1, or the weight to 0",
  )
  batch, shards = config.train.global_batch_size, config.data.logical_shards
  checks.require(
    batch % shards == 0,
    f"train.global_batch_size = {batch}: must be a multiple of"
    f" data.logical_shards = {shards}, as every shard gives the same number"
    " of sequences to a step",
  )


def _require_sequence_can_be_cut(config: Config) -> None:
  """What lies on the mesh axes of "time" and "heads" must come out even."""
  mesh, model, streams = config.mesh, config.model, config.streams
  execution, rules = config.train.execution, config.mesh.axis_rules
  parts = {
    name: math.prod(getattr(mesh, axis) for axis in rules.get(name, ()))
    for name in ("time", "heads")
  }
  pieces, length = parts["time"], streams.seq_len
  sizes = {
    f"streams.{name}": getattr(streams, name) for name in streams_config.LIMITS
  }
  if execution.loss_chunk < streams.max_targets:
    sizes["train.execution.loss_chunk"] = execution.loss_chunk
  for name, size in sizes.items():
    checks.require(
      size % pieces == 0,
      f"{name} = {size}: cannot be cut into {pieces} equal pieces by"
      f" mesh.seq = {mesh.seq}; make it a multiple of {pieces}",
    )
  is_pallas = execution.attention is train_config.AttentionForm.PALLAS
  if pieces == 1 or not is_pallas:
    return
  piece, block = length // pieces, train_config.FLASH_BLOCK
  checks.require(
    piece >= model.sliding_window and piece % block == 0,
    f"mesh.seq = {mesh.seq}: pieces of {piece} positions; the attention"
    f" kernels take multiples of {block}, and at least"
    f" model.sliding_window = {model.sliding_window}: a smaller axis or longer"
    " sequences",
  )
  devices = parts["heads"] * pieces
  heads = math.lcm(model.num_kv_heads, devices)
  checks.require(
    model.num_heads % heads == 0,
    f"mesh.seq = {mesh.seq}: model.num_heads = {model.num_heads} cannot be"
    f" dealt out to {devices} devices in groups of one key head; make the axis"
    " smaller",
  )
