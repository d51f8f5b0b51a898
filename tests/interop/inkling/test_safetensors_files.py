"""Reading and writing against the safetensors library."""

import json

import numpy as np
import pytest

from tml_jax import errors
from tml_jax.interop.inkling import dims, safetensors_files

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

SHAPES = {"a.x": (7, 6, 5), "a.y": (40,), "b": (3, 9), "c": (), "d": (4, 3, 2)}


@pytest.fixture
def tensors():
  generator = torch.Generator().manual_seed(0)
  kinds = (torch.bfloat16, torch.float32, torch.float16, torch.float32)
  return {
    name: torch.randn(shape, generator=generator).to(kinds[i % 4])
    for i, (name, shape) in enumerate(SHAPES.items())
  }


@pytest.fixture
def directory(tmp_path, tensors):
  """Two files and an index, written by the library."""
  weight_map = {}
  for file, names in (("1.safetensors", "a.x a.y"), ("2.safetensors", "b c d")):
    part = {name: tensors[name] for name in names.split()}
    safetensors_torch.save_file(part, tmp_path / file)
    weight_map |= dict.fromkeys(part, file)
  write_index(tmp_path, weight_map)
  return tmp_path


def write_index(path, weight_map):
  text = json.dumps({"metadata": {}, "weight_map": weight_map})
  (path / safetensors_files.INDEX).write_text(text)


def reader(path):
  return safetensors_files.Reader(safetensors_files.Source(str(path)))


def whole(shape):
  return tuple((0, n) for n in shape)


@pytest.mark.parametrize("run", [1, 50, 1 << 20])
@pytest.mark.parametrize("chunk", [40, 1 << 20])
def test_boxes_equal_the_librarys_tensors(
  directory, tensors, monkeypatch, run, chunk
):
  monkeypatch.setattr(safetensors_files, "_MIN_RUN_BYTES", run)
  monkeypatch.setattr(safetensors_files, "CHUNK_BYTES", chunk)
  source = reader(directory)
  assert not source.problems
  assert set(source.entries) == set(tensors)
  random = np.random.default_rng(0)
  for name, tensor in tensors.items():
    expected = tensor.float().numpy()
    for _ in range(20):
      box = tuple(
        tuple(sorted(random.choice(n + 1, 2, replace=False)))
        for n in tensor.shape
      )
      found = source.read(name, box=box)
      np.testing.assert_array_equal(
        found.astype(np.float32), expected[dims.slices(box)]
      )


def test_a_url_is_read_like_a_directory(directory, tensors):
  source = reader(f"file://{directory}")
  found = source.read("b", box=whole((3, 9)))
  np.testing.assert_array_equal(found, tensors["b"].float().numpy())


def test_the_library_reads_what_is_written(tmp_path, tensors):
  names = {torch.bfloat16: "BF16", torch.float32: "F32", torch.float16: "F16"}
  shapes = {
    name: (tuple(x.shape), safetensors_files.DTYPES[names[x.dtype]])
    for name, x in tensors.items()
  }

  def load(name):
    return tensors[name].float().numpy().astype(shapes[name][1])

  safetensors_files.write(tmp_path, tensors=shapes, load=load, limit=300)
  index = json.loads((tmp_path / safetensors_files.INDEX).read_text())
  files = sorted(set(index["weight_map"].values()))
  # a.x alone is larger than the limit.
  assert files == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
  assert index["metadata"]["total_size"] == sum(
    x.numel() * x.element_size() for x in tensors.values()
  )
  found = {}
  for file in files:
    found |= safetensors_torch.load_file(tmp_path / file)
  assert set(found) == set(tensors)
  for name, tensor in tensors.items():
    assert torch.equal(found[name], tensor) and found[name].dtype == (
      tensor.dtype
    )


def test_a_truncated_file_is_named(directory):
  path = directory / "2.safetensors"
  path.write_bytes(path.read_bytes()[:-3])
  with pytest.raises(errors.UserError, match="2.safetensors is truncated"):
    reader(directory)


def test_a_truncated_header_is_named(directory):
  path = directory / "2.safetensors"
  path.write_bytes(path.read_bytes()[:20])
  with pytest.raises(errors.UserError, match="2.safetensors is truncated"):
    reader(directory)


def test_what_is_no_safetensors_file_is_named(directory):
  (directory / "2.safetensors").write_bytes(b"<html>not found</html>" * 9)
  with pytest.raises(errors.UserError, match="2.safetensors does not begin"):
    reader(directory)


def test_index_and_files_that_differ_are_all_told(directory):
  write_index(
    directory,
    {"a.x": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}
    | {"z": "2.safetensors", "d": "3.safetensors"},
  )
  problems = "; ".join(reader(directory).problems)
  assert "in 1.safetensors and not in model.safetensors.index.json: a.y" in (
    problems
  )
  assert "not in 2.safetensors: z" in problems
  assert "3.safetensors is in model.safetensors.index.json and not" in problems


@pytest.mark.parametrize(
  "text, shown",
  [
    ("{", "index.json is broken"),
    ('{"weight_map": 3}', "index.json is broken"),
  ],
)
def test_a_broken_index_is_named(directory, text, shown):
  (directory / safetensors_files.INDEX).write_text(text)
  with pytest.raises(errors.UserError, match=shown):
    reader(directory)


def test_places_without_a_checkpoint_are_named(tmp_path):
  with pytest.raises(errors.UserError, match="no such directory"):
    reader(tmp_path / "nowhere")
  with pytest.raises(errors.UserError, match="holds neither"):
    reader(tmp_path)
  with pytest.raises(errors.UserError, match="cannot be opened.*gs://"):
    reader("ftp://host/path")


def test_a_bucket_that_cannot_be_read_tells_what_is_needed(monkeypatch):
  monkeypatch.setattr(safetensors_files, "_TIMEOUT", 1)
  with pytest.raises(errors.UserError, match="needs the network and Google"):
    reader("gs://no-bucket-of-this-name-4711/path")


def _edit_header(path, change):
  """Changes the header's JSON text; offsets count from its end."""
  data = path.read_bytes()
  length = int.from_bytes(data[:8], "little")
  text = change(data[8 : 8 + length].decode().rstrip()).encode()
  path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def _edited(name, **fields):
  """A change of one tensor's entry."""

  def change(text):
    header = json.loads(text)
    header[name] |= fields
    return json.dumps(header)

  return change


def _twice(text):
  entry = json.dumps(json.loads(text)["c"])
  return text[:-1] + f', "c": {entry}}}'


@pytest.mark.parametrize(
  "change, words",
  [
    (_edited("b", data_offsets=[0, 54]), "overlaps"),
    (lambda text: _alias(text), "d overlaps c|c overlaps d"),
    (_edited("c", data_offsets=[-2, 0]), "-2 among shape"),
    (_edited("c", shape=[-1, -1]), "-1 among shape"),
    (_edited("c", shape=[1.0]), "1.0 among shape"),
    (_edited("c", shape=[True]), "True among shape"),
    (_edited("c", shape=[10**70]), "among shape"),
    (_edited("c", shape="2"), "'2' among shape"),
    (_edited("c", shape=None), "broken header"),
    (_edited("c", data_offsets=[0]), "broken header"),
    (_edited("c", dtype="I8"), "type I8; supported"),
    (_edited("c", dtype=["F32"]), "broken header"),
    (_twice, "c stands there twice"),
    (lambda text: "[" * 100_000, "broken header"),
    (lambda text: '{"c": 1e999}', "broken header"),
    (lambda text: "[]", "broken header"),
    (lambda text: _without_first(text), "does not follow the header"),
  ],
)
def test_a_header_that_no_writer_makes_is_refused(directory, change, words):
  path = directory / "2.safetensors"
  _edit_header(path, change)
  with pytest.raises(errors.UserError, match=rf"2\.safetensors .*({words})"):
    reader(directory)


def _alias(text):
  """Two tensors of the same bytes."""
  header = json.loads(text)
  header["d"] |= {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}
  header["c"] |= {"dtype": "F16", "shape": [], "data_offsets": [0, 2]}
  return json.dumps({"c": header["c"], "d": header["d"]})


def _without_first(text):
  header = json.loads(text)
  first = min(
    (name for name in header if name != "__metadata__"),
    key=lambda name: header[name]["data_offsets"],
  )
  del header[first]
  return json.dumps(header)


@pytest.mark.parametrize(
  "file", ["../1.safetensors", "/etc/passwd", "a/../../x", "", 7, None]
)
def test_an_index_cannot_name_a_file_elsewhere(directory, file):
  write_index(directory, {"a.x": file})
  with pytest.raises(errors.UserError, match="index.json is broken"):
    reader(directory)


def test_an_index_of_many_brackets_or_one_name_twice(directory):
  for text in (
    '{"weight_map": ' + "[" * 100_000,
    '{"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}}',
  ):
    (directory / safetensors_files.INDEX).write_text(text)
    with pytest.raises(errors.UserError, match="index.json is broken"):
      reader(directory)


def test_links_of_a_cache_are_followed(directory, tensors):
  blobs = directory.parent / "blobs"
  blobs.mkdir()
  (directory / "2.safetensors").rename(blobs / "2")
  (directory / "2.safetensors").symlink_to(blobs / "2")
  found = reader(directory).read("b", box=whole((3, 9)))
  np.testing.assert_array_equal(found, tensors["b"].float().numpy())
