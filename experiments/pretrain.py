"""Pretraining on text, pairs and conversations: experiments/pretrain.py:SIZE.

For: `tml_interaction_small`, the reference mixture, and `tiny_pretrain`, for
two cores. Not for: what these sizes are (interaction.py) or how each kind of
data is brought (docs/pretraining_data.md). Start at `MIXTURE`. An entry that is
no scenario family is the name of a prepared corpus: give yours these names, or
change the entries.
"""

import dataclasses

from experiments import data, interaction, topologies
from tml_jax import errors
from tml_jax.config import Config

# In percent of the positions. No one has published the shares of a model of
# this kind: each has the reason for which it is there, to be argued with.
MIXTURE = (
  # Language and knowledge come from text: an hour of speech has some 10,000
  # words. Moshi (arXiv 2410.00037) kept half of its batches text alone while
  # it learned audio, so that it forgot none.
  "web:33.5",
  # Calls of tools are written as code is: braces, names, exact spelling.
  "code:6",
  # To hear: speech with its transcript is the densest supervision that sound
  # has, and there are 100,000 hours of it. More than speaking, because whoever
  # is not understood is not answered.
  "heard:18",
  # To speak: the flow head learns from `<speak>` alone, and the text before
  # the sound says what to say.
  "spoken:12",
  # To see: captions name things (stills) and what happens (clips). Patches are
  # most of their positions, so a share buys few captions.
  "images:6",
  "clips:6",
  # When to speak: recordings of two people on two tracks. There is little of
  # this in the world, some thousand hours: a larger share would repeat it.
  "conversations:10",
  # When to speak as it is asked, to act at a given time, to call tools: nobody
  # has recorded that. 17 families, each with this weight, are 8.5 %.
  "all:0.5",
)
# What can be had without a download: `texts`, the documents of this
# repository, and the recorded prompts of Debian, heard and spoken.
TINY_MIXTURE = (
  "texts:30",
  "heard:20",
  "spoken:20",
  "reply:20",
  "typed:10",
)


def _pretrain(config: Config, *, name: str, mixture: tuple[str, ...]) -> Config:
  """A size of interaction.py on a mixture with documents."""
  streams = config.streams
  return dataclasses.replace(
    config,
    name=name,
    # Every position of a document but one is a target. With the slots of
    # conversations alone, a third of the positions, a sequence of text would be
    # two thirds padding. The logits of the others cost 5 % of a step.
    streams=dataclasses.replace(streams, max_targets=streams.seq_len),
    data=dataclasses.replace(config.data, mixture=mixture),
  )


def tml_interaction_small() -> Config:
  """The reference size and mixture."""
  return _pretrain(
    interaction.tml_interaction_small(),
    name="pretrain_tml_interaction_small",
    mixture=MIXTURE,
  )


def medium() -> Config:
  """The same mixture for one v5p-64 or eight GPUs."""
  return _pretrain(
    interaction.medium(), name="pretrain_medium", mixture=MIXTURE
  )


def tiny_pretrain() -> Config:
  """Minutes on two cores: every kind but pictures and recorded calls."""
  config = _pretrain(
    interaction.tiny(), name="tiny_pretrain", mixture=TINY_MIXTURE
  )
  return dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, voices=data.REAL_VOICES),
  )


SIZES = {
  "tiny_pretrain": tiny_pretrain,
  "medium": medium,
  "tml_interaction_small": tml_interaction_small,
}


def get_config(name: str = "") -> Config:
  """The config called SIZE or SIZE@TOPOLOGY, what follows --config's colon."""
  size, _, topology = name.partition("@")
  if size not in SIZES:
    raise errors.UserError(
      f"experiments/pretrain.py has no size {size!r}; write"
      f" experiments/pretrain.py:SIZE with one of {', '.join(SIZES)}"
    )
  config = SIZES[size]()
  return topologies.on(config, topology=topology) if topology else config
