"""Between the memory of a host and arrays on a mesh."""

import jax
import numpy as np
import pytest

from tml_jax import errors
from tml_jax.parallel import hosts


@pytest.fixture(scope="module")
def sharding():
  mesh = jax.make_mesh((4, 2), ("data", "tensor"), devices=jax.devices()[:8])
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))


def test_rows_lie_where_they_belong(sharding):
  rows = hosts.local_rows(sharding, size=8)
  assert rows == list(range(8))
  batch = {"x": np.arange(24).reshape(8, 3), "y": np.arange(8.0)}
  arrays = hosts.put(batch, rows=rows, sharding=sharding, size=8)
  for name, value in batch.items():
    assert arrays[name].sharding == sharding
    np.testing.assert_array_equal(arrays[name], value)
    for shard in arrays[name].addressable_shards:
      np.testing.assert_array_equal(shard.data, value[shard.index])


def test_weights_are_refused_where_a_host_cannot_hold_them():
  small = {"w": jax.ShapeDtypeStruct((4, 8), np.float32)}
  assert hosts.num_bytes(small) == 128
  hosts.check_fits(small, what="x", fix="y")
  large = {"w": jax.ShapeDtypeStruct((2**20, 2**22), np.float32)}
  with pytest.raises(errors.UserError, match="16384.0 GiB, more than half of"):
    hosts.check_fits(large, what="train.evaluate_every = 5", fix="set it to 0")
