"""What one voice can say in a scenario.

For: `family`, which sorts a corpus into it, and `shift`, which changes it. Not
for: what a corpus has (`catalogue`). Start at `Bank`.
"""

import dataclasses

from tml_jax.data import source
from tml_jax.streams.timeline import Timeline


@dataclasses.dataclass(frozen=True)
class Bank:
  """What one voice can say: prompt id to index in its corpus.

  Attributes:
    recordings: the corpus.
    language: two letters.
    prompts: of a split.
    words: a family's own.
  """

  recordings: source.Source
  language: str
  prompts: dict[str, int]
  words: dict[str, int]

  def load(self, prompt: str) -> Timeline:
    index = self.prompts.get(prompt)
    return self.recordings[self.words[prompt] if index is None else index]
