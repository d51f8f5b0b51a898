"""Prepared data of two procedural voices, made once for all training tests."""

import dataclasses

import pytest

from experiments import interaction as sizes
from tml_jax import prepare


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  config = sizes.get_config("tiny_procedural")
  voices = ("procedural:low", "procedural:high")
  config = dataclasses.replace(
    config, data=dataclasses.replace(config.data, voices=voices)
  )
  path = str(tmp_path_factory.mktemp("prepared"))
  prepare.prepare(config, data_dir=path, sounds_root="/", processes=2)
  return path
