"""Prepared data of two procedural voices, made once for all training tests."""

import pytest

from tests.helpers import small_data


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp("prepared")
  small_data.prepare(path, processes=2)
  return str(path)
