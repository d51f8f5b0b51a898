"""Prepared data of a bucket on a disk: copied once, within a bound."""

import concurrent.futures
import shutil

import fsspec
import pytest

from tests.helpers import commands, object_store
from tml_jax import buckets, errors, fetched, files

NAMES = ("tokenizer.model", "web/index.json", "web/units/a.array_record")


@pytest.fixture(scope="module", params=object_store.SCHEMES)
def store(request):
  with object_store.serve(request.param) as found, found.used():
    yield found


@pytest.fixture
def url(store, request):
  url = f"{store.url}/{request.node.name.split('[')[0]}"
  for k, name in enumerate(NAMES):
    buckets.put(files.path(url) / name, content=bytes([k]) * 1000)
  yield url
  store.mend()


def fetch(url, directory, *, most_bytes=1e9):
  return fetched.fetch(url, directory=str(directory), most_bytes=most_bytes)


def contents(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def test_what_is_there_is_not_copied_again(url, tmp_path):
  folder = fetch(url, tmp_path)
  assert contents(folder) == {
    name: bytes([k]) * 1000 for k, name in enumerate(NAMES)
  }
  times = {name: (folder / name).stat().st_mtime_ns for name in NAMES}
  assert fetch(url, tmp_path) == folder
  assert times == {n: (folder / n).stat().st_mtime_ns for n in NAMES}
  # Other bytes of the same length, one gone, one that was cut on the disk.
  buckets.put(files.path(url) / NAMES[1], content=b"x" * 1000)
  (files.path(url) / NAMES[0]).unlink()
  (folder / NAMES[2]).write_bytes(b"\2" * 999)
  assert contents(fetch(url, tmp_path)) == {
    NAMES[1]: b"x" * 1000,
    NAMES[2]: b"\2" * 1000,
  }


def test_no_room_is_one_error_before_anything_is_copied(
  url, tmp_path, monkeypatch
):
  with pytest.raises(errors.UserError, match="--data_cache_gib=.*mount"):
    fetch(url, tmp_path / "a", most_bytes=2999)
  usage = shutil.disk_usage(tmp_path)._replace(free=2999)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
  with pytest.raises(errors.UserError, match="GiB free, and .* make room"):
    fetch(url, tmp_path / "a")
  assert contents(tmp_path) == {}
  monkeypatch.undo()
  assert len(contents(fetch(url, tmp_path / "a", most_bytes=3000))) == 3


def test_an_interrupted_copy_goes_on_where_it_was(url, store, tmp_path):
  store.deny("GET .*model")  # the first of the files
  with pytest.raises(errors.UserError, match="cannot be copied"):
    fetch(url, tmp_path)
  store.mend()
  before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
  kept = [
    path for path in before if path.name in ("index.json", "a.array_record")
  ]
  assert kept
  assert len(contents(fetch(url, tmp_path))) == 3
  assert [p.stat().st_mtime_ns for p in kept] == [before[p] for p in kept]


def test_several_processes_of_a_host_copy_each_file_once(url, store, tmp_path):
  start = len(store.asked)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    folders = list(pool.map(lambda _: fetch(url, tmp_path), range(4)))
  assert len(contents(folders[0])) == 3 and len({*folders}) == 1
  asked = [line for line in store.asked[start:] if _is_read(line)]
  assert len(asked) == 3, asked


def _is_read(line: str) -> bool:
  """Whether a request is for the bytes of an object, not for what it is."""
  if ("/storage/v1/" in line) != ("alt=media" in line):  # of Google
    return False
  return line.startswith("GET") and any(
    name.rpartition("/")[2] in line for name in NAMES
  )


def test_a_process_asks_the_bucket_once(url, store, tmp_path):
  run = (
    "import sys; from absl import flags;"
    "from tml_jax.config import flags as config_flags; flags.FLAGS(sys.argv);"
    "assert config_flags.data_dir() == config_flags.data_dir()"
  )
  start = len(store.asked)
  result = commands.run(
    *("-c", run, f"--data_dir={url}", f"--data_cache={tmp_path}")
  )
  assert result.returncode == 0, result.stderr
  first = store.asked[start:]
  start = len(store.asked)
  fetch(url, tmp_path)
  lists = [line for line in first if line in store.asked[start:]]
  assert len(lists) == len({*lists}) > 0


def test_objects_that_stand_for_folders_are_no_files(url, tmp_path):
  store, root = fsspec.core.url_to_fs(url)
  for marker in ("/", "/web/", "/web/units/"):
    store.pipe_file(f"{root}{marker}", b"")
  assert contents(fetch(url, tmp_path)).keys() == {*NAMES}
  assert buckets.sizes(files.path(url)).keys() == {*NAMES}


def test_what_a_killed_process_left_is_removed(url, tmp_path):
  folder = fetch(url, tmp_path)
  (folder / "web" / ".fetching-abc").write_bytes(b"x")
  assert contents(fetch(url, tmp_path)).keys() == {*NAMES}


def test_room_of_files_that_the_bucket_has_no_longer_counts(
  url, tmp_path, monkeypatch
):
  folder = fetch(url, tmp_path)
  (files.path(url) / NAMES[0]).unlink()
  buckets.put(files.path(url) / NAMES[1], content=b"x" * 1000)
  buckets.put(files.path(url) / "new", content=b"y" * 1000)
  usage = shutil.disk_usage(tmp_path)

  def disk_usage(path):  # a disk of 3000 bytes
    return usage._replace(free=3000 - sum(map(len, contents(folder).values())))

  monkeypatch.setattr(shutil, "disk_usage", disk_usage)
  assert contents(fetch(url, tmp_path)).keys() == {*NAMES[1:], "new"}


def test_a_folder_that_is_not_there_and_no_directory(url, tmp_path):
  with pytest.raises(errors.UserError, match="there is nothing"):
    fetch(f"{url}-none", tmp_path)
  (tmp_path / "file").touch()
  with pytest.raises(errors.UserError, match="--data_cache=.*/file/x cannot"):
    fetch(url, tmp_path / "file" / "x")


@pytest.mark.slow
def test_a_lost_connection_leaves_whole_files_only(url, store, tmp_path):
  store.cut_at("GET .*array_record")
  with pytest.raises(errors.TransientError, match="cannot be copied"):
    fetch(url, tmp_path)
  for name, content in contents(tmp_path).items():
    assert len(content) == 1000, name
  store.mend()
  assert len(contents(fetch(url, tmp_path))) == 3
