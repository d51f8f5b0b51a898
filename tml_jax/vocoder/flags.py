"""The flag --vocoder: what makes sound of mel.

For: `sample` and `serve`. Not for: training one. Start at `voice`.
"""

from absl import flags

from tml_jax import errors
from tml_jax.training import trained
from tml_jax.vocoder import trained as vocoders

GRIFFIN_LIM, PHASES = "griffin_lim", "phases"
VOCODER = flags.DEFINE_string(
  "vocoder",
  PHASES,
  "What makes sound of mel: phases (while the session runs, without weights),"
  " the workdir of a trained vocoder (while it runs), or griffin_lim (after"
  " it; `sample` alone).",
)


def check(*, is_live: bool) -> None:
  """Refuses a vocoder that is not there, or makes no sound in time.

  Raises:
    errors.UserError: what to give instead.
  """
  if is_live and VOCODER.value == GRIFFIN_LIM:
    raise errors.UserError(
      "--vocoder=griffin_lim makes its sound after the session, --realtime"
      " and `serve` while it runs: take --vocoder=phases or a trained"
      " vocoder's workdir"
    )
  if VOCODER.value not in (GRIFFIN_LIM, PHASES):
    trained.check(VOCODER.value, flag="vocoder", command="train_vocoder")


def voice():
  """The `stream.Voice` of the flag; None for one of afterwards."""
  from tml_jax.vocoder import stream

  if VOCODER.value == GRIFFIN_LIM:
    return None
  if VOCODER.value == PHASES:
    return stream.Voice(network=None, variables={})
  network, variables = vocoders.load(VOCODER.value)
  return stream.Voice(network=network, variables=variables)
