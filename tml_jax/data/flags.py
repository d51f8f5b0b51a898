"""The flag that every command with prepared data shares.

Defined once, as absl refuses two definitions when one process imports several
entry points.
"""

from absl import flags

DATA_DIR = flags.DEFINE_string(
  "data_dir",
  "",
  "Directory of the prepared data: one folder for each voice of"
  " --config.data.voices, and tokenizer.model.",
)
