"""Eight CPU devices and no accelerator: import it before jax.

For: `tests/conftest.py`, and what runs outside of pytest. A test of a mesh
takes as many of the devices as it needs; a test of one device uses the first.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
