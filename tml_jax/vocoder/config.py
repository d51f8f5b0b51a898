"""The typed configuration of a vocoder: `experiments/vocoder.py` returns it.

For: `train_vocoder` and what uses its weights. Not for: the interaction model
(`config`), which makes mel and never sees a waveform. Start at
`VocoderConfig`.
"""

import dataclasses

from tml_jax.config import LoopConfig, MeshConfig, checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocoderModelConfig:
  """The network that finds 401 magnitudes behind 80 mel channels."""

  width: int
  depth: int  # blocks; each sees kernel - 1 frames further back
  hidden: int  # between the two pointwise layers of a block
  kernel: int  # frames
  mel_mean: float  # log10 fine mel is standardised by these two
  mel_std: float

  def __post_init__(self):
    checks.require_positive(
      self, section="model", names="width depth hidden kernel mel_std"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocoderDataConfig:
  """Which prepared voices it hears."""

  voices: tuple[str, ...]  # as `data.voices` of the interaction model
  heldout_share: float  # of prompt ids, by hash
  windows: int  # of 200 ms in one example
  gain_db: float  # examples are played up to this much louder or softer
  seed: int
  # Of prompts that nothing trains on; an interaction model chooses by them.
  dev_share: float = 0.0

  def __post_init__(self):
    checks.require_positive(self, section="data", names="windows")
    checks.require(
      0 <= self.dev_share < 1 - self.heldout_share,
      f"data.dev_share = {self.dev_share}: at least 0, and less than"
      f" 1 - data.heldout_share = {1 - self.heldout_share:g}",
    )
    checks.require(len(self.voices) > 0, "data.voices = (): name at least one")
    checks.require(
      0 < self.heldout_share < 1,
      f"data.heldout_share = {self.heldout_share}: between 0 and 1",
    )
    checks.require(
      0 <= self.gain_db < 40, f"data.gain_db = {self.gain_db}: 0 to 40"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocoderTrainConfig(LoopConfig):
  """How it is trained: a sequence is a piece of speech."""

  magnitude_weight: float  # of the predicted spectrum itself
  stft_weight: float  # of its sound at other resolutions
  mel_weight: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocoderConfig:
  """One experiment."""

  name: str
  model: VocoderModelConfig
  data: VocoderDataConfig
  train: VocoderTrainConfig
  mesh: MeshConfig

  @property
  def compiler_options(self) -> dict[str, str | bool]:
    """Of XLA, for every program of a run."""
    return self.mesh.compiler_flags
