"""The flag that every command with prepared data shares.

For: `data_dir`. Not for: flags of one command, which are defined there.
Defined once, as absl refuses two definitions when one process imports several
entry points.
"""

from absl import flags

from tml_jax import errors

DATA_DIR = flags.DEFINE_string(
  "data_dir",
  "",
  "Directory of the prepared data: one folder for each voice of"
  " --config.data.voices, and tokenizer.model.",
)


def data_dir() -> str:
  """The value of --data_dir.

  Raises:
    errors.UserError: not given.
  """
  if not DATA_DIR.value:
    raise errors.UserError(
      "--data_dir is missing: give the directory of the prepared data, which"
      " `python -m tml_jax.prepare` writes"
    )
  return DATA_DIR.value
