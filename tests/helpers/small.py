"""The one small config of the tests: `tiny`, narrower, of two layers.

For: every helper that needs a config; each states what differs, by the dotted
path of a field. Not for: batches, runs or sessions of it (`small_run`,
`small_session`, `small_trunk`, `small_data`). Start at `config`.
"""

from typing import Any

from experiments import interaction
from tml_jax.config import Config
from tml_jax.config import streams as streams_config
from tml_jax.config import text as config_text

TEXT_ROWS = 64
# A sliding and a global layer, both with experts; a window and an extent that
# are shorter than a sequence.
FIELDS = {
  "name": "small",
  "streams.text_vocab_size": TEXT_ROWS,
  "streams.video_height": 40,
  "streams.video_width": 40,
  "model.vocab_size": TEXT_ROWS + streams_config.CONTROL_ROWS,
  "model.d_model": 32,
  "model.num_layers": 2,
  "model.attention_pattern": "LG",
  "model.head_dim": 8,
  "model.swa_head_dim": 8,
  "model.sliding_window": 32,
  "model.rel_extent": 64,
  "model.num_experts": 4,
  "model.expert_d_ff": 32,
  "model.hmlp_widths": (4, 8, 8),
  "model.moe_tile": 8,
  "model.flow.width": 32,
  "model.flow.depth": 1,
}
# For runs on prepared data: its tokenizer needs the text rows of `tiny`, and
# its sequences the other bounds.
RUN_FIELDS = {
  "data.voices": ("procedural:low", "procedural:high"),
  "data.logical_shards": 2,
  "data.group_size": 2,
  "model.num_layers": 1,
  "model.d_model": 32,
  "model.expert_d_ff": 32,
  "model.flow.width": 32,
  "model.flow.depth": 1,
  "train.global_batch_size": 2,
  "train.log_every": 1,
  "train.optim.warmup_steps": 2,
}


def config(fields: dict[str, Any]) -> Config:
  """The small config with `fields` changed."""
  return config_text.with_fields(
    interaction.get_config("tiny"), FIELDS | fields
  )


def run(fields: dict[str, Any]) -> Config:
  """`tiny_procedural` for a run of a few steps, with `fields` changed."""
  return config_text.with_fields(
    interaction.get_config("tiny_procedural"), RUN_FIELDS | fields
  )


def flags() -> tuple[str, ...]:
  """`run({})` on the command line."""
  return (
    "--config=experiments/interaction.py:tiny_procedural",
    *(config_text.as_flag(path, value) for path, value in RUN_FIELDS.items()),
  )
