"""Flags of `evaluate` for a model behind a turn detector, and what they give.

For: `--agent=turns`, which meets users turn by turn (`turn_based`), and
`--tuned`. Not for: sweeping these settings (`sweep_flags`). Start at
`with_settings`. Only `evaluate` imports this: a flag is defined once.
"""

from collections.abc import Iterable

from absl import flags

from tml_jax import errors
from tml_jax.config import Config, Detector, SemanticEnd, Start
from tml_jax.config import text as config_text

TRAINED = "trained"
MODELS = (TRAINED, "duplex", "turns")  # of --agent: with a run
# Of --agent=turns; what is not given is as in the config of the run.
_HARNESS = {
  "vad": flags.DEFINE_enum(
    "vad",
    None,
    [*Detector],
    "Detector of speech, for --agent=turns; if not given, turns.vad of the"
    " run, as those below.",
  ),
  "endpoint_s": flags.DEFINE_float(
    "endpoint", None, "Seconds without speech that end a turn."
  ),
  "semantic_end": flags.DEFINE_enum(
    "semantic_end",
    None,
    [*SemanticEnd],
    "model: it is asked every 200 ms while silence lasts, and `<quiet>` means"
    " not yet; off: once.",
  ),
  "maximum_silence_s": flags.DEFINE_float(
    "maximum_silence", None, "Seconds of silence in which it is asked."
  ),
  "minimum_interruption_s": flags.DEFINE_float(
    "minimum_interruption",
    None,
    "Seconds of speech that interrupt the agent.",
  ),
  "resume_after_false_s": flags.DEFINE_float(
    "resume_after_false",
    None,
    "Seconds of silence after an interruption, in which the model says nothing,"
    " until it goes on where it was cut; 0: it never does.",
  ),
  "start": flags.DEFINE_enum(
    "start",
    None,
    [*Start],
    "When a reply begins to be made: speculative, in the first silence; at_end,"
    " when the turn is over.",
  ),
}
TUNED = flags.DEFINE_string(
  "tuned",
  "",
  "File of a sweep on dev: what it chose is used, but for what other flags"
  " give.",
)


def agent_of(config: Config, *, name: str) -> str:
  """--agent, where that is `trained` what it stands for."""
  return str(config.data.layout) if name == TRAINED else name


def connect(config: Config, *, agent: str):
  """How a model meets its users, in words, and as a function for `run`.

  `agent` is of `agent_of`.
  """
  from tml_jax.evals import turn_based
  from tml_jax.live import user

  if agent == "duplex":
    return agent, lambda config: user.Recorded
  turn_based.connect(config)  # refuses what cannot be, before anything starts
  return turn_based.describe(config.turns), turn_based.connect


def with_settings(config: Config, *, agent: str) -> Config:
  """The config with what --tuned and the flags of the harness give.

  Raises:
    errors.UserError: they cannot be, or `agent` has no harness.
  """
  changes = {}
  if TUNED.value:
    from tml_jax.evals import sweep

    changes = sweep.tuned(TUNED.value, config=config, agent=agent)
  changes |= {
    f"turns.{field}": flag.value
    for field, flag in _HARNESS.items()
    if flag.value is not None
  }
  refuse(changes, agent=agent)
  return config_text.with_fields(config, changes)


def record() -> dict[str, str]:
  """Which file of --tuned was used, for the JSON file."""
  from tml_jax.evals import sweep

  return {"tuned": sweep.digest(TUNED.value)} if TUNED.value else {}


def refuse(changes: Iterable[str], *, agent: str) -> None:
  """Settings of a harness have no meaning without one.

  Raises:
    errors.UserError: `changes` have some, and `agent` has none.
  """
  for path in changes:
    if path.startswith("turns.") and agent != "turns":
      raise errors.UserError(
        f"{path} with --agent={agent}: it is a setting of the harness; give"
        " --agent=turns, or leave it out"
      )
