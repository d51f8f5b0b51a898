"""Eight CPU devices, no accelerator, programs compiled once.

Import it before jax.

For: `tests/conftest.py`, and what runs outside of pytest. A test of a mesh
takes as many of the devices as it needs; a test of one device uses the first.
Most of the time of the tests is XLA's, and many compile the same program: what
was compiled is kept on disk, for the other processes and the next time.
"""

import os
import pathlib

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
_COMPILED = pathlib.Path.home() / ".cache" / "tml_jax" / "tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2 << 30))  # bytes
