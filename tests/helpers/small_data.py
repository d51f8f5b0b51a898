"""Prepared data of two procedural voices, and the config that reads it."""

import pathlib

from tests.helpers import small
from tml_jax import prepare as prepare_lib
from tml_jax.config import Config
from tml_jax.data import loader
from tml_jax.data.splits import Split

VOICES = small.RUN_FIELDS["data.voices"]


def config(**data) -> Config:
  """The small run with more shards, read in one process; `data` fields."""
  fields = dict(logical_shards=4, workers=0) | data
  return small.run(
    {"train.global_batch_size": 4}
    | {f"data.{name}": value for name, value in fields.items()}
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
