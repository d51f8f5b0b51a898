"""Which utterances and which random numbers belong to which split.

For: one rule that scenarios, mixtures and evaluation share. Not for: reading
data. A prompt is held out by a hash of its id, the same for every voice, so a
held-out sentence was never heard in any voice; random draws of two splits
never come from the same seed.
"""

import enum
import hashlib
import math
import zlib

import numpy as np


class Split(enum.StrEnum):
  """Training, and two ways to test it."""

  TRAIN = "train"
  HELDOUT = "heldout"  # utterances never trained on, in new scenarios
  FRESH = "fresh"  # utterances of training in new scenarios


_TAGS = {Split.TRAIN: 1, Split.HELDOUT: 2, Split.FRESH: 3}


def is_heldout(identifier: str, *, share: float) -> bool:
  """Whether a prompt (or a recording) is kept from training."""
  return hash_of(identifier) < share * 2**64


def hash_of(identifier: str) -> int:
  """The number of 64 bits that decides: first 8 bytes of the SHA-1."""
  digest = hashlib.sha1(identifier.encode()).digest()
  return int.from_bytes(digest[:8], "big")


def contains(split: Split, identifier: str, *, share: float) -> bool:
  """Whether `split` may use the prompt or recording `identifier`."""
  return is_heldout(identifier, share=share) == (split == Split.HELDOUT)


def members(split: Split, hashes: np.ndarray, *, share: float) -> np.ndarray:
  """Which of many recordings `split` may use.

  Args:
    split: the split.
    hashes: [n] uint64, first 8 bytes of the SHA-1 of each id.
    share: that is held out.

  Returns:
    [k] int64, their numbers in order: those that `contains` is true of.
  """
  heldout = hashes < np.uint64(math.ceil(share * 2**64))
  return np.flatnonzero(heldout == (split == Split.HELDOUT))


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
