"""Which utterances and which random numbers belong to which split.

For: one rule that scenarios, mixtures and evaluation share. Not for: reading
data. A prompt is held out by a hash of its id, the same for every voice, so a
held-out sentence was never heard in any voice; random draws of two splits
never come from the same seed.

By its hash, a number in [0, 1), an id is held out below `share`, of DEV from
there to `share + dev`, and of training above. So held-out ids are the same
whatever DEV takes; what DEV has, training has not. A run whose `dev` was 0 has
trained on all that is not held out, and has no DEV. The words that families
ask with belong to all splits; of those, DEV has none as prompts.
"""

import enum
import hashlib
import math
import zlib

import numpy as np


class Split(enum.StrEnum):
  """Training, what choices are made on, and two ways to test it."""

  TRAIN = "train"
  DEV = "dev"  # never trained on: thresholds, weights, checkpoints
  HELDOUT = "heldout"  # utterances never trained on, in new scenarios
  FRESH = "fresh"  # utterances of training in new scenarios


_TAGS = {Split.TRAIN: 1, Split.HELDOUT: 2, Split.FRESH: 3, Split.DEV: 4}


def is_heldout(identifier: str, *, share: float) -> bool:
  """Whether a prompt (or a recording) is kept for the last test."""
  return hash_of(identifier) < share * 2**64


def hash_of(identifier: str) -> int:
  """The number of 64 bits that decides: first 8 bytes of the SHA-1."""
  digest = hashlib.sha1(identifier.encode()).digest()
  return int.from_bytes(digest[:8], "big")


def contains(
  split: Split, identifier: str, *, share: float, dev: float = 0.0
) -> bool:
  """Whether `split` may use the prompt or recording `identifier`.

  Args:
    split: the split.
    identifier: of the prompt or recording.
    share: that is held out.
    dev: that DEV has.
  """
  if split == Split.HELDOUT:
    return is_heldout(identifier, share=share)
  kept_back = is_heldout(identifier, share=share + dev)
  if split == Split.DEV:
    return kept_back and not is_heldout(identifier, share=share)
  return not kept_back


def members(
  split: Split, hashes: np.ndarray, *, share: float, dev: float = 0.0
) -> np.ndarray:
  """Which of many recordings `split` may use.

  Args:
    split: the split.
    hashes: [n] uint64, first 8 bytes of the SHA-1 of each id.
    share: that is held out.
    dev: that DEV has.

  Returns:
    [k] int64, their numbers in order: those that `contains` is true of.
  """
  heldout = hashes < np.uint64(math.ceil(share * 2**64))
  kept_back = hashes < np.uint64(math.ceil((share + dev) * 2**64))
  of_split = {
    Split.HELDOUT: heldout,
    Split.DEV: kept_back & ~heldout,
  }.get(split, ~kept_back)
  return np.flatnonzero(of_split)


def seed_sequence(
  *, family: str, split: Split, seed: int, index: int
) -> np.random.SeedSequence:
  """The seed of item `index` of a scenario family in a split."""
  tag = zlib.crc32(family.encode())
  return np.random.SeedSequence([tag, _TAGS[split], seed, index])


def generator(
  *, family: str, split: Split, seed: int, index: int
) -> np.random.Generator:
  """Random numbers of item `index`, the same on every machine."""
  sequence = seed_sequence(family=family, split=split, seed=seed, index=index)
  return np.random.Generator(np.random.Philox(sequence))
