"""Every test process has eight CPU devices."""

from tests.helpers import devices  # noqa: F401  before jax
