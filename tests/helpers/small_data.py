"""Prepared data of two procedural voices, and the config that reads it."""

import dataclasses
import pathlib

from experiments import interaction
from tml_jax import prepare as prepare_lib
from tml_jax.config import Config
from tml_jax.data import loader
from tml_jax.data.splits import Split

VOICES = ("procedural:low", "procedural:high")


def config(**data) -> Config:
  """`tiny` with two voices and small groups; `data` replaces fields."""
  config = interaction.get_config("tiny_procedural")
  fields = dict(voices=VOICES, logical_shards=4, group_size=2, workers=0)
  return dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, **(fields | data)),
    train=dataclasses.replace(config.train, global_batch_size=4),
  )


def prepare(path: pathlib.Path, *voices: str, processes: int = 1) -> dict:
  """Prepares `voices` into `path`; returns the report."""
  return prepare_lib.prepare(
    config(voices=voices or VOICES),
    data_dir=str(path),
    sounds_root="/",
    processes=processes,
  )


def load(config: Config, data_dir: pathlib.Path, **process) -> loader.Loader:
  return loader.Loader(config, data_dir=data_dir, split=Split.TRAIN, **process)


def take(batches: loader.Loader, count: int) -> list[dict]:
  return [next(batches) for _ in range(count)]
