"""Checkpoints in buckets of real servers: whole, or absent."""

import re

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint.experimental import v1

from tests.helpers import commands, object_store, small_run
from tml_jax import buckets, errors, files, workdir
from tml_jax.parallel import processes as processes_lib
from tml_jax.training import bucket_arrays, checkpoint, checksums, tiers

LOADER = {"identity": {}, "shards": {"0": 3}}


@pytest.fixture(scope="module", params=object_store.SCHEMES)
def server(request):
  with object_store.serve(request.param) as store, store.used():
    yield store


@pytest.fixture
def run(server, request, monkeypatch):
  """A workdir of the test's own; a lost connection is found out soon."""
  monkeypatch.setattr(buckets, "RETRIES", {"max_retries": 1})
  yield f"{server.url}/{request.node.name.split('[')[0]}"
  server.mend()


def state(step: int):
  """Parameters of a step, over all devices."""
  mesh = jax.make_mesh((8,), ("data",))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  noise = np.random.default_rng(step).normal(size=(64, 512))
  return {
    "params": {
      "rows": jax.device_put(jnp.asarray(noise, jnp.float32), rows),
      "all": jnp.arange(step, step + 5),
    },
    "step": jnp.asarray(step),
  }


def abstract():
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    state(0),
  )


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def save(run, *steps: int, keep: int = 9):
  trainer = checkpoint.Checkpointer(run, keep=keep)
  for step in steps:
    trainer.save(step, state=state(step), loader_state=LOADER)
  trainer.close()


def test_what_was_saved_comes_back_bit_for_bit(run):
  save(run, 1, 2, 3, keep=2)
  assert workdir.checkpoint_steps(run) == [2, 3]
  trainer = checkpoint.Checkpointer(run, keep=2)
  for step in (2, 3):
    found, loader = trainer.restore(abstract(), step=step)
    assert_equal(found, state(step))
    assert loader == LOADER
    assert (
      found["params"]["rows"].sharding == state(0)["params"]["rows"].sharding
    )
  trainer.close()
  weights = checkpoint.Weights(run)
  assert weights.step == 3
  params = {"params": abstract()["params"]}
  assert_equal(weights.restore(params)["params"], state(3)["params"])
  weights.close()
  older = checkpoint.Weights(f"{run}/{workdir.CHECKPOINTS}/2")
  assert older.step == 2
  older.close()


@pytest.mark.slow
def test_a_connection_lost_in_a_save_leaves_the_save_before(run, server):
  save(run, 1)
  trainer = checkpoint.Checkpointer(run, keep=9)
  seen = len(server.asked)
  place = f"{workdir.CHECKPOINTS}(/|%2F)2(/|%2F)state(/|%2F)"
  server.cut_at(f"(PUT|POST) .*{place}(d|ocdbt.process_0)(/|%2F)")
  with pytest.raises(errors.TransientError, match="checkpoints before stay"):
    trainer.save(2, state=state(2), loader_state=LOADER)
    trainer.wait()
  assert server.is_cut and len(server.asked) > seen
  server.mend()
  assert workdir.checkpoint_steps(run) == [1]
  left = buckets.sizes(files.path(run) / workdir.CHECKPOINTS / "2")
  assert left and workdir.COMMITTED not in left
  weights = checkpoint.Weights(run)  # a reader removes nothing
  assert weights.step == 1
  weights.close()
  again = checkpoint.Checkpointer(run, keep=9)
  found, _ = again.restore(abstract(), step=1)
  assert_equal(found, state(1))
  assert not buckets.sizes(files.path(run) / workdir.CHECKPOINTS / "2")
  again.save(2, state=state(2), loader_state=LOADER)
  again.close()
  assert workdir.checkpoint_steps(run) == [1, 2]


@pytest.mark.slow
def test_a_connection_lost_in_a_comparison_is_no_damage(run, server):
  save(run, 1)
  directory = files.path(run) / workdir.CHECKPOINTS / "1"
  server.cut_at("GET .*manifest.ocdbt")
  with pytest.raises(errors.TransientError, match="1 cannot be read"):
    checksums.damage(directory)
  server.mend()
  assert checksums.damage(directory) == ""


def test_folder_markers_are_no_files_of_a_step(run):
  save(run, 1)
  directory = files.path(run) / workdir.CHECKPOINTS / "1"
  store, root = fsspec.core.url_to_fs(str(directory))
  for marker in ("/", "/state/"):
    store.pipe_file(f"{root}{marker}", b"")
  checksums.write(directory)
  assert checksums.damage(directory) == ""


def test_all_damage_is_seen_and_set_aside(run, caplog):
  save(run, 1, 2)
  step = files.path(run) / workdir.CHECKPOINTS / "2"
  assert checksums.damage(step) == ""
  sizes = buckets.sizes(step)
  name = max(sizes, key=lambda name: sizes[name])
  whole = (step / name).read_bytes()
  buckets.put(step / name, content=whole[:-1])
  assert f"bytes instead of {len(whole)}" in checksums.damage(step)
  buckets.put(step / name, content=whole[:-1] + bytes([whole[-1] ^ 1]))
  assert "has other bytes than were written" in checksums.damage(step)
  shares = [checksums.damage(step, index=i, count=2) for i in range(2)]
  assert sum(map(bool, shares)) == 1
  (step / name).unlink()
  assert "is missing" in checksums.damage(step)
  found = tiers.Tiers(
    small_run.config().train,
    workdir=run,
    local_dir="",
    processes=processes_lib.Processes(),
  )
  resumed = found.resume(abstract())
  found.close()
  assert resumed.step == 1 and "DAMAGED" in caplog.text
  assert_equal(resumed.state, state(1))
  away = files.path(run) / workdir.DAMAGED
  assert buckets.names(away) == ["2"]
  assert {*buckets.sizes(away / "2")} == {*sizes} - {name}
  assert workdir.checkpoint_steps(run) == [1]


def test_what_older_code_saved_on_a_disk_is_read(tmp_path):
  """The manager's options of before buckets; read by today's, and by v1."""
  path = tmp_path / workdir.CHECKPOINTS
  sealing = checkpoint.Sealing(path)
  manager = ocp.CheckpointManager(
    str(path),
    options=ocp.CheckpointManagerOptions(
      max_to_keep=3,
      create=True,
      cleanup_tmp_directories=True,
      async_options=sealing.options,
    ),
  )
  sealing.step = 4
  manager.save(
    4,
    args=ocp.args.Composite(
      state=ocp.args.StandardSave(state(4)), loader=ocp.args.JsonSave(LOADER)
    ),
    force=True,
  )
  manager.close()
  assert workdir.checkpoint_steps(tmp_path) == [4]
  trainer = checkpoint.Checkpointer(str(tmp_path), keep=3)
  found, loader = trainer.restore(abstract(), step=4)
  assert_equal(found, state(4))
  assert loader == LOADER
  trainer.close()
  assert checksums.damage(path / "4") == ""
  later = v1.load_checkpointables(
    path / "4", {"state": abstract(), "loader": None}
  )
  assert_equal(later["state"], state(4))
  assert later["loader"] == LOADER


def test_another_release_of_orbax_is_told_which_one_is_needed(monkeypatch):
  text = (commands.ROOT / "setup.py").read_text(encoding="utf-8")
  monkeypatch.delattr(gcs_utils, "get_kvstore_for_gcs")
  with pytest.raises(errors.UserError) as error:
    bucket_arrays.prepare()
  needed = re.search(r"'(orbax-checkpoint[^']+)'", str(error.value))[1]
  for name in ("_S3", "_GCS"):  # as the extras have it
    line = re.search(rf"^{name} = .*", text, re.MULTILINE)[0]
    assert f'"{needed}"' in line
