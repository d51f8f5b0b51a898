"""Prepared data of two procedural voices, made once for all data tests."""

import dataclasses

import pytest

from experiments import interaction
from tml_jax import prepare

VOICES = ("procedural:low", "procedural:high")


def small_config(**data):
  """`tiny` with two voices and small groups; `data` replaces fields."""
  config = interaction.get_config("tiny_procedural")
  fields = dict(voices=VOICES, logical_shards=4, group_size=2, workers=0)
  return dataclasses.replace(
    config,
    data=dataclasses.replace(config.data, **(fields | data)),
    train=dataclasses.replace(config.train, global_batch_size=4),
  )


@pytest.fixture(scope="session")
def config():
  return small_config()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, config):
  path = tmp_path_factory.mktemp("prepared")
  prepare.prepare(config, data_dir=str(path), sounds_root="/", processes=2)
  return path
