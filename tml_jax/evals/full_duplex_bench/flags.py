"""Where Full-Duplex-Bench lies: the flag that its commands share.

For: `evaluate --suite=fdb`, `published`, `mouth`. Not for: the layout
(`folders`). Start at `ROOT`.
"""

from absl import flags

ROOT = flags.DEFINE_string(
  "fdb_root",
  "",
  "Full-Duplex-Bench, or clips in its layout. With evaluate --suite=fdb every"
  " output.wav and output.json goes beside its input.wav, or below --out in the"
  " same folders.",
)
