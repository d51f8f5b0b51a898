"""What the loader mixes and how it prefetches.

For: `DataConfig`. Not for: how a recording becomes frames in numbers
(`config/streams.py`), nor where prepared data lies (--data_dir).
"""

import dataclasses
import enum

from tml_jax.config import augment as augment_config
from tml_jax.config import checks


class Layout(enum.StrEnum):
  """How a recording becomes frames."""

  DUPLEX = "duplex"  # both sides at once, on the clock
  TURNS = "turns"  # one after the other, as behind a turn detector


class Damaged(enum.StrEnum):
  """What is done about a recording whose bytes have changed on the disk."""

  REFUSE = "refuse"  # training ends and names it
  SKIP = "skip"  # it is left out and named in the log


class OnChange(enum.StrEnum):
  """What a resumed run does with a mixture that is another one."""

  REFUSE = "refuse"
  GO_ON = "go_on"  # every source where it stood; see docs/pretraining_data.md


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """What the loader mixes and how it prefetches."""

  voices: tuple[str, ...]  # `prepare` builds these corpora, "source:variant"
  mixture: tuple[str, ...]  # "source:weight", shares of the positions
  logical_shards: int  # fixed for the life of a run; a multiple of hosts
  group_size: int  # recordings packed together, first fit; fewer if long
  workers: int  # prefetch processes; 0 = threads of the main process
  heldout_share: float  # of prompt ids, by hash
  # Of prompt ids, by hash, out of what training would have: for choices.
  dev_share: float = 0.0
  seed: int
  layout: Layout = Layout.DUPLEX
  # Recordings that last longer are drawn in stretches of so many seconds, each
  # an element of the mixture: what is in memory at once is bounded by this.
  stretch_seconds: float = 300.0
  # What was before a stretch, or before the next sequence of one that does not
  # fit one, is there again in front of it, without a loss.
  past_seconds: float = 0.0
  damaged: Damaged = Damaged.REFUSE
  # Weights of corpora count times their positions to this power: 0 leaves the
  # weights alone, 1 draws what is twice as large twice as often.
  inverse_temperature: float = 0.0
  # "source:epochs": what has been drawn so often is drawn no more.
  max_epochs: tuple[str, ...] = ()
  # "step:source:weight": from that step on; 0 takes it out.
  schedule: tuple[str, ...] = ()
  # "name:probability:option=value": what is changed in recordings that are
  # trained on; see docs/augmentation.md.
  augment: tuple[str, ...] = ()
  # Of a resumed run whose mixture, or a corpus in it, is another one.
  on_change: OnChange = OnChange.REFUSE

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
    checks.require(
      0 <= self.dev_share < 1 - self.heldout_share,
      f"data.dev_share = {self.dev_share}: at least 0, and less than"
      f" 1 - data.heldout_share = {1 - self.heldout_share:g}",
    )
    checks.require(
      self.stretch_seconds >= 1,
      f"data.stretch_seconds = {self.stretch_seconds}: at least 1",
    )
    checks.require(
      0 <= self.past_seconds <= self.stretch_seconds,
      f"data.past_seconds = {self.past_seconds}: from 0 to"
      f" data.stretch_seconds = {self.stretch_seconds}",
    )
    checks.require(
      0 <= self.inverse_temperature <= 1,
      f"data.inverse_temperature = {self.inverse_temperature}: from 0, the"
      " weights alone, to 1, in proportion to sizes",
    )
    for entry in self.max_epochs:
      name, _, epochs = entry.rpartition(":")
      checks.require(
        name != "" and _is_weight(epochs),
        f"data.max_epochs entry {entry!r}: write SOURCE:EPOCHS with a number"
        " above 0, for instance calls:4",
      )
    for entry in self.schedule:
      step, *rest = entry.split(":")
      checks.require(
        step.isdecimal()
        and len(rest) == 2
        and rest[0] != ""
        and (_is_weight(rest[1]) or _is_zero(rest[1])),
        f"data.schedule entry {entry!r}: write STEP:SOURCE:WEIGHT with a weight"
        " of 0 or more, for instance 10000:calls:2.0",
      )
    for entry in self.augment:
      augment_config.parse(entry)
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


def _is_zero(text: str) -> bool:
  try:
    return float(text) == 0
  except ValueError:
    return False


def _is_weight(text: str) -> bool:
  try:
    return 0 < float(text) < float("inf")
  except ValueError:
    return False
