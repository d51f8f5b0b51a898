"""Eight CPU devices in every test process, and prepared data for all tests."""

import hypothesis
import pytest

from tests.helpers import devices  # noqa: F401  before jax

# How long an example takes says how busy the machine is, nothing of the code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def config():
  """Of `data_dir`."""
  from tests.helpers import small_data

  return small_data.config()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """Two procedural voices, prepared once in a test process."""
  from tests.helpers import small_data

  path = tmp_path_factory.mktemp("prepared")
  small_data.prepare(path, processes=2)
  return path
