"""Eight CPU devices in every test process, and prepared data for all tests."""

import hypothesis
import pytest

from tests.helpers import devices  # noqa: F401  before jax

# How long an example takes says how busy the machine is, nothing of the code.
hypothesis.settings.register_profile("tests", deadline=None)
# An hour of damaged files: pytest --hypothesis-profile=fuzz -k damaged_files
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=20_000)
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


@pytest.fixture
def registries(monkeypatch):
  """What a test registers is gone after it."""
  from absl import flags

  from tml_jax import plugins, registry, tools
  from tml_jax.data import scenarios, source
  from tml_jax.evals.metrics import panel

  for each in (
    scenarios.FAMILIES,
    source.SOURCES,
    tools.TOOLS,
    panel.REGISTERED,
  ):
    list(each)  # finds its own files first
    monkeypatch.setattr(each, "_things", dict(each._things))
  monkeypatch.setattr(registry, "modules", set(registry.modules))
  monkeypatch.setattr(plugins, "_loaded", {})
  before = {*flags.FLAGS}
  yield
  for name in {*flags.FLAGS} - before:
    delattr(flags.FLAGS, name)
