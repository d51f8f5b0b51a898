"""What a run reads and writes, in a bucket of a real server: both kinds."""

import json
import threading

import pytest
import tensorstore as ts

from tests.helpers import object_store
from tml_jax import buckets, errors, files, lock, workdir
from tml_jax.training import metrics


@pytest.fixture(scope="module", params=object_store.SCHEMES)
def server(request):
  with object_store.serve(request.param) as store, store.used():
    yield store


@pytest.fixture
def store(server):
  yield server
  server.mend()


@pytest.fixture
def place(store, request):
  """A folder of the test's own."""
  return files.path(f"{store.url}/{request.node.name.split('[')[0]}")


def test_files_are_whole_and_lines_stay_in_order(place, monkeypatch):
  files.make(place, what="--workdir=x")
  assert buckets.names(place) == [] and buckets.sizes(place) == {}
  file = place / "a.json"
  assert files.read_json(file) is None
  for content in ('{"a": 1}', '{"a": 2}'):
    files.write_atomically(file, content=content)
    assert files.read_json(file) == json.loads(content)
  monkeypatch.setattr(files, "_MOST_REWRITTEN", 30)
  lines = place / "lines.jsonl"
  assert files.read_json_lines(lines) == []
  for k in range(12):
    files.append_line(lines, line=json.dumps({"k": k}))
  assert files.read_json_lines(lines) == [{"k": k} for k in range(12)]
  parts = [f"lines.jsonl.{k}" for k in (1, 2)]
  assert buckets.names(place) == ["a.json", "lines.jsonl", *parts]
  blocks = list(buckets.blocks(lines))
  assert b"".join(blocks) == lines.read_bytes()


def test_of_several_writers_of_a_new_file_one_succeeds(store, place):
  file, made = place / "lock", []
  if store.url.startswith("gs"):  # its server knows no conditions
    files.create(file, content="x")
    assert "ifGenerationMatch=0" in store.asked[-1]
    return

  def create(number):
    try:
      files.create(file, content=str(number))
      made.append(number)
    except FileExistsError:
      pass

  threads = [threading.Thread(target=create, args=(k,)) for k in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  (number,) = made
  assert file.read_text() == str(number)


def test_a_run_has_one_writer(store, place):
  if store.url.startswith("gs"):
    pytest.skip("gcp-storage-emulator knows no ifGenerationMatch")
  first, second = (
    lock.Lock(str(place), flag="--workdir", does="trains") for _ in range(2)
  )
  first.take()
  with pytest.raises(errors.TransientError, match="is in use: process .* tra"):
    second.take()
  first.release()
  second.take()
  second.release()
  assert buckets.names(place) == []


def test_a_dead_owner_does_not_hold_it(place):
  left = {"id": "a", "machine": lock._machine(), "pid": 2**22 + 1, "host": "h"}
  files.write_atomically(place / lock.FILE, content=json.dumps(left))
  new = lock.Lock(str(place), flag="--workdir", does="trains")
  new.take()
  new.release()


def test_no_rights_is_one_error_before_work(store, place):
  store.deny("(PUT|POST) .*")
  with pytest.raises(errors.UserError) as error:
    files.make(place, what=f"--workdir={place}")
  assert error.value.status is errors.Status.BAD_INPUT
  text = str(error.value)
  assert text.startswith(f"--workdir={place} cannot be written")
  assert "credentials" in text and "\n" not in text
  store.mend()
  assert buckets.names(place) == []


def test_a_bucket_that_is_not_there(store):
  place = files.path(f"{store.url}-none/run")
  with pytest.raises(errors.UserError, match="bucket") as error:
    files.make(place, what=f"--workdir={place}")
  assert error.value.status is errors.Status.BAD_INPUT
  assert workdir.checkpoint_steps(place) == []


def test_urls_that_name_nothing():
  for url in ("s3://", "gs:///run"):
    with pytest.raises(errors.UserError, match="names no bucket"):
      files.path(url)
  with pytest.raises(errors.UserError, match="AWS_REGION is missing"):
    buckets.spec("s3://b/run", environment={"AWS_ENDPOINT_URL": "http://x"})


def test_what_orbax_and_tensorstore_take_for_one_place(store, place):
  """Without a slash at the end, as Orbax gives it."""
  opened = ts.KvStore.open(buckets.spec(f"{place}/")).result()
  opened.write("k", b"v").result()
  assert (place / "k").read_bytes() == b"v"


def test_an_unfinished_checkpoint_does_not_count(place):
  for step, name in (
    (1, workdir.COMMITTED),
    (2, "state/commit_success.txt"),
    (10, workdir.COMMITTED),
  ):
    folder = place / workdir.CHECKPOINTS / str(step)
    files.write_atomically(folder / name, content="x")
  assert workdir.checkpoint_steps(place) == [1, 10]


def test_a_folder_moves_and_its_mark_comes_last(store, place):
  old, new = place / "3", place / "damaged" / "3"
  for name in ("a/b", workdir.COMMITTED, "z"):
    files.write_atomically(old / name, content=name)
  before = buckets.sizes(old)
  buckets.move(old, to=new, last=workdir.COMMITTED)
  assert buckets.sizes(new) == before and buckets.sizes(old) == {}


def test_boards_come_when_a_run_ends(place):
  writer = metrics.Writer(str(place))
  writer.write(3, {"loss": 1.0})
  assert buckets.names(place) == [workdir.METRICS]
  writer.close()
  ((name, size),) = buckets.sizes(place / workdir.TENSORBOARD).items()
  assert "tfevents" in name and size > 0
  lines = files.read_json_lines(place / workdir.METRICS)
  assert lines == [{"step": 3, "loss": 1.0}]
