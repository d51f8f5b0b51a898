"""Ablations: `--config=experiments/ablations.py:ROW`, a base with one change.

For: `python -m tml_jax.ablate`, which trains and evaluates the rows and makes
the table, and for one row by hand. Not for: sizes (`interaction.py`). Start
reading at `ROWS`; experiments/README.md shows them with their flags.
"""

from typing import Any

from experiments import interaction
from tml_jax.config import Config, Layout, Position, SayText
from tml_jax.config import flags as config_flags
from tml_jax.evals.ablation import Row

BASE = "interactive"  # of interaction.py


def _turn(
  ms: int,
  *,
  seq_len: int,
  max_speak: int,
  max_targets: int,
  max_text: int,
) -> dict[str, Any]:
  """Other micro-turns, and sequences that hold as many conversations.

  Measured on 80 of the mixture: 551, 437, 374 and 360 positions each at 100,
  200, 400 and 800 ms. A frame takes text for its length, a short one no less
  than the base's.
  """
  return {
    "streams.turn_ms": ms,
    "streams.seq_len": seq_len,
    "streams.max_speak": max_speak,
    "streams.max_targets": max_targets,
    "streams.max_text_in": max_text,
    "streams.max_text_out": max_text,
  }


_TURN = "how long may a micro-turn be? (base: 200 ms)"
ROWS: dict[str, Row] = {
  "base": Row(question="what all others differ from", changes={}),
  "turns": Row(
    question="does a turn detector do as well? (time-out 0.5 s)",
    changes={"data.layout": Layout.TURNS},
  ),
  "turns_0.3": Row(
    question="does a turn detector do as well? (time-out 0.3 s)",
    changes={"data.layout": Layout.TURNS},
    run="turns",
    evaluate=("--endpoint=0.3",),
  ),
  "turns_0.7": Row(
    question="does a turn detector do as well? (time-out 0.7 s)",
    changes={"data.layout": Layout.TURNS},
    run="turns",
    evaluate=("--endpoint=0.7",),
  ),
  "turns_silero": Row(
    question="does a turn detector do as well? (Silero's network, 0.5 s)",
    changes={"data.layout": Layout.TURNS},
    run="turns",
    evaluate=("--vad=silero",),
  ),
  "turns_plain": Row(
    question="does a turn detector do as well? (a time-out of 0.5 s alone)",
    changes={"data.layout": Layout.TURNS},
    run="turns",
    evaluate=(
      "--semantic_end=off",
      "--minimum_interruption=0.1",
      "--resume_after_false=0",
      "--start=at_end",
    ),
  ),
  # The nearest to the 80 ms of others that holds whole tokens of 50 ms.
  "window_100": Row(
    question=_TURN,
    changes=_turn(
      100, seq_len=1152, max_speak=128, max_targets=448, max_text=8
    ),
  ),
  "window_400": Row(
    question=_TURN,
    changes=_turn(400, seq_len=768, max_speak=40, max_targets=160, max_text=16),
  ),
  "window_800": Row(
    question=_TURN,
    changes=_turn(800, seq_len=736, max_speak=24, max_targets=128, max_text=32),
  ),
  "no_clock": Row(
    question="does it need to be told the time?",
    changes={"model.clock_features": 0},
  ),
  "time_rope": Row(
    question="distance in tokens or in time?",
    changes={"model.position": Position.TIME_ROPE},
  ),
  "time_rope_no_clock": Row(
    question="distance in tokens or in time?",
    changes={
      "model.position": Position.TIME_ROPE,
      "model.clock_features": 0,
    },
  ),
  "silence_1": Row(
    question="how much does a decision to stay silent weigh? (base: 0.3)",
    changes={"streams.silence_weight": 1.0},
  ),
  "silence_0.1": Row(
    question="how much does a decision to stay silent weigh? (base: 0.3)",
    changes={"streams.silence_weight": 0.1},
  ),
  "no_feedback_noise": Row(
    question="must it be made used to its own voice?",
    changes={"train.feedback_noise": 0.0},
  ),
  "no_say_text": Row(
    question="must it write what it says?",
    changes={"streams.say_text": SayText.NONE},
  ),
  "load_balance_loss": Row(
    question="what balances the experts? (base: selection bias)",
    changes={
      "train.load_balance_loss_weight": 0.01,  # Switch's and GShard's
      "train.optim.router_bias_rate": 0.0,
    },
  ),
  "unbalanced": Row(
    question="what balances the experts? (base: selection bias)",
    changes={"train.optim.router_bias_rate": 0.0},
  ),
  # d_ff of a dense layer is that of the active experts.
  "dense": Row(
    question="how many experts, with as many parameters active? (base: 8)",
    changes={
      "model.num_dense_layers": interaction.SIZES[BASE]().model.num_layers
    },
  ),
  "experts_32": Row(
    question="how many experts, with as many parameters active? (base: 8)",
    changes={"model.num_experts": 32},
  ),
  "flow_1": Row(
    question="how many steps of the flow? (base: 8)",
    changes={"model.flow.steps": 1},
    run="base",
  ),
  "flow_2": Row(
    question="how many steps of the flow? (base: 8)",
    changes={"model.flow.steps": 2},
    run="base",
  ),
  # Trained to cover a stretch of the flow in one step.
  "flow_map_1": Row(
    question="how many steps of the flow? (base: 8)",
    changes={"model.flow.steps": 1, "model.flow.map_weight": 1.0},
  ),
}


def base() -> Config:
  """What the rows change."""
  return interaction.get_config(BASE)


def get_config(name: str = "base") -> Config:
  """The config of a row."""
  return config_flags.config_of_row(
    name,
    changes={row: ROWS[row].changes for row in ROWS},
    base=base(),
    file="experiments/ablations.py",
  )
