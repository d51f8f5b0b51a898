"""Trains a vocoder: `python -m tml_jax.train_vocoder --workdir=DIR ...`.

For: one run from nothing or from its last checkpoint to its last step, with
`--config=experiments/vocoder.py:small` and the prepared data of the interaction
model. Not for: the loop, which is `train.main`; here is what it trains.
`vocoder/loss.py` is what the step minimises. A killed run is restarted by the
same command.
"""

import functools
from collections.abc import Sequence

from absl import flags, logging

from tml_jax import train
from tml_jax.config import flags as config_flags
from tml_jax.training import task as task_lib
from tml_jax.vocoder.config import VocoderConfig

flags.adopt_module_key_flags(train)  # `--help` shows them, too


class Vocoder:
  """The task of a vocoder; `Task` says what each part is for."""

  def __init__(self, config: VocoderConfig):
    self.config, self._data_dir = config, config_flags.data_dir()
    self.evaluation = None  # `benchmarks/vocoder.py` measures it

  def check(self) -> None:
    """`data` finds all there is."""

  def keep(self, workdir: str) -> None:
    """Config and weights are all of it."""

  def check_rows(self, rows: Sequence[int]) -> None:
    """Every process can make any rows."""

  def data(self, *, rows: Sequence[int]) -> task_lib.Data:
    from tml_jax.data import splits
    from tml_jax.vocoder import clips as clips_lib
    from tml_jax.vocoder import loss

    data = self.config.data
    clips = clips_lib.Clips(
      data.voices,
      data_dir=self._data_dir,
      split=splits.Split.TRAIN,
      share=data.heldout_share,
      dev=data.dev_share,
      seed=data.seed,
    )
    logging.info("%.1f minutes of speech", clips.seconds / 60)
    return clips_lib.Loader(
      clips,
      rows=rows,
      size=self.config.train.global_batch_size,
      samples=loss.samples(self.config),
      gain_db=data.gain_db,
    )

  def program(self, *, mesh):
    from tml_jax.training import program
    from tml_jax.vocoder import loss, network

    model = network.Vocoder(self.config.model)
    example = network.example(self.config.model, batch_size=1, frames=1)
    return program.of(
      model,
      config=self.config,
      mesh=mesh,
      boxed_variables=lambda key: model.init(key, *example),
      example=functools.partial(loss.example, self.config),
      objective=loss.Spectra(),
    )

  def step_flops(self) -> float:
    from tml_jax.vocoder import loss

    return loss.step_flops(self.config)


def main(config: VocoderConfig) -> None:
  train.run(config, task=Vocoder)


if __name__ == "__main__":
  config_flags.run(main, config_type=VocoderConfig)
