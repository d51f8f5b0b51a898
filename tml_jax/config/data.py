"""What the loader mixes and how it prefetches.

For: `DataConfig`. Not for: how a recording becomes frames in numbers
(`config/streams.py`), nor where prepared data lies (--data_dir).
"""

import dataclasses
import enum

from tml_jax.config import checks


class Layout(enum.StrEnum):
  """How a recording becomes frames."""

  DUPLEX = "duplex"  # both sides at once, on the clock
  TURNS = "turns"  # one after the other, as behind a turn detector


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """What the loader mixes and how it prefetches."""

  voices: tuple[str, ...]  # `prepare` builds these corpora, "source:variant"
  mixture: tuple[str, ...]  # "source:weight", shares of the positions
  logical_shards: int  # fixed for the life of a run; a multiple of hosts
  group_size: int  # recordings packed together, first fit; fewer if long
  workers: int  # prefetch processes; 0 = threads of the main process
  heldout_share: float  # of prompt ids, by hash
  seed: int
  layout: Layout = Layout.DUPLEX

  @property
  def mixture_weights(self) -> dict[str, float]:
    """Weight by source, as `mixture` gives them."""
    entries = (entry.rpartition(":") for entry in self.mixture)
    return {source: float(weight) for source, _, weight in entries}

  def __post_init__(self) -> None:
    checks.require_range(
      self, section="data", names="logical_shards group_size", low=1
    )
    checks.require_range(self, section="data", names="workers", low=0)
    checks.require_range(
      self, section="data", names="seed", low=0, high=checks.MAX_SEED
    )
    checks.require(
      0 < self.heldout_share < 1,
      f"data.heldout_share = {self.heldout_share}: between 0 and 1",
    )
    for name in ("voices", "mixture"):
      checks.require(
        len(getattr(self, name)) > 0, f"data.{name} = (): name at least one"
      )
    checks.require(
      len({*self.voices}) == len(self.voices),
      f"data.voices = {self.voices}: a voice is named twice",
    )
    for entry in self.mixture:
      source, _, weight = entry.rpartition(":")
      checks.require(
        source != "" and _is_weight(weight),
        f"data.mixture entry {entry!r}: write SOURCE:WEIGHT with a weight"
        " above 0, for instance reply:1.0",
      )
    checks.require(
      len(self.mixture_weights) == len(self.mixture),
      f"data.mixture = {self.mixture}: a source is named twice",
    )


def _is_weight(text: str) -> bool:
  try:
    return 0 < float(text) < float("inf")
  except ValueError:
    return False
