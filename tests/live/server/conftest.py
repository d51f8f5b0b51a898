"""One compiled pool of random weights for all tests of a process."""

import pytest

from tests.helpers import served


@pytest.fixture(scope="session")
def pool():
  """Two slots; each test leaves it empty."""
  return served.pool(2)
