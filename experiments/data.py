"""Voices and mixtures that the experiments train on.

For: `interaction.py` and `vocoder.py`. Not for: what a source or a scenario
family is (tml_jax/data).
"""

from tml_jax.config import DataConfig

PROCEDURAL_VOICES = (
  "procedural:low",
  "procedural:high",
  "procedural:bright",
  "procedural:dark",
)
# Every scenario family, as often as the others: docs/families.md.
INTERACTIVE_MIXTURE = ("all:1.0",)
# Recorded prompts in five languages and a synthetic voice for each: two
# voices per timeline that are never the same.
REAL_VOICES = (
  "asterisk:en",
  "asterisk:fr",
  "asterisk:es",
  "asterisk:it",
  "asterisk:ru",
  "espeak:en-us",
  "espeak:fr-fr",
  "espeak:es",
  "espeak:it",
  "espeak:ru",
)
# Of prompts and recordings, for every choice: thresholds, weights of losses,
# checkpoints, rows of an ablation. What is held out is looked at for a table.
DEV_SHARE = 0.05
REFERENCE = DataConfig(
  voices=REAL_VOICES,
  mixture=("reply:1.0",),
  logical_shards=256,
  group_size=64,
  workers=4,
  heldout_share=0.1,
  dev_share=DEV_SHARE,
  seed=0,
)
