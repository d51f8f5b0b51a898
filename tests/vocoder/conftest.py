"""The prepared data of the training tests."""

from tests.training.conftest import data_dir  # noqa: F401
