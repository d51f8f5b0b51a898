"""Imports from gs:// and s3://, off a local server that speaks both."""

import pytest

from tests.helpers import buckets, commands, importing

transformers = pytest.importorskip("transformers")
from tests.helpers import hf  # noqa: E402

SCHEMES = ("gs", "s3")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """Buckets: one that is read, and one with a truncated and a missing file."""
  root = tmp_path_factory.mktemp("buckets")
  hf.save_text(root / "good" / "models" / "inkling")
  files = sorted((root / "good" / "models" / "inkling").glob("model-*"))
  for name in ("truncated", "missing", buckets.FORBIDDEN):
    folder = root / name / "models" / "inkling"
    folder.mkdir(parents=True)
    for file in (root / "good" / "models" / "inkling").iterdir():
      data = file.read_bytes()
      if file == files[1] and name == "truncated":
        data = data[:-1]
      if file == files[1] and name == "missing":
        continue
      (folder / file.name).write_bytes(data)
  (root / "empty").mkdir()
  return root


@pytest.fixture
def server(root, monkeypatch):
  with buckets.serve(root) as server:
    for name, value in server.environment.items():
      monkeypatch.setenv(name, value)
    yield server


SCRIPT = """
import sys
from tests.helpers import importing
from tml_jax import errors
for src in sys.argv[2:]:
  try:
    importing.import_(src, sys.argv[1] + '/' + src.split(':')[0])
  except errors.UserError as error:
    print(error)
"""


def import_(tmp_path, *sources):
  """Standard output of a process that imports each source."""
  result = commands.run("-c", SCRIPT, str(tmp_path), *sources, timeout=300)
  assert result.returncode == 0, result.stderr[-3000:]
  return result.stdout


@pytest.mark.slow
def test_buckets_are_read_by_ranges(root, server, tmp_path, monkeypatch):
  source = root / "good" / "models" / "inkling"
  importing.one_device(monkeypatch)
  importing.import_(source, tmp_path / "directory")
  expected = importing.variables_of(tmp_path / "directory")
  assert import_(
    tmp_path, *(f"{s}://good/models/inkling" for s in SCHEMES)
  ) == ("")
  for scheme in SCHEMES:
    importing.assert_equal(importing.variables_of(tmp_path / scheme), expected)
  data = [item for item in server.sent if item[0].endswith(".safetensors")]
  assert all(asked for _, asked, _ in data)
  # The header of each file is read once, its length with a last byte. Rows of
  # the vocabulary that no text has are not read. Gate and up of the experts are
  # halves of one tensor; halves this short are read with what is between them,
  # so that tensor is read twice. Nothing else is.
  size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
  files = len(list(source.glob("*.safetensors")))
  d_model, experts, width, layers = 48, 8, 24, 2
  padding = hf.VOCAB["vocab_size"] - hf.VOCAB["unpadded_vocab_size"]
  unread = 2 * padding * d_model * 4  # embedding and unembedding
  twice = layers * experts * 2 * width * d_model * 4
  read = sum(count for _, _, count in data)
  assert read == len(SCHEMES) * (size + files - unread + twice)


@pytest.mark.slow
def test_a_part_of_a_tensor_is_a_part_of_the_bytes(root, server, tmp_path):
  """What a host of several reads: its rows, not the file."""
  script = """
import sys
from tml_jax.interop.inkling import safetensors_files
safetensors_files._MIN_RUN_BYTES = 64
for src in sys.argv[1:]:
  reader = safetensors_files.Reader(safetensors_files.Source(src))
  name = "model.layers.1.mlp.experts.down_proj"
  print(reader.read(name, box=((2, 4), (0, 48), (0, 24))).sum())
"""
  sources = [f"{scheme}://good/models/inkling" for scheme in SCHEMES]
  result = commands.run("-c", script, *sources)
  assert result.returncode == 0, result.stderr
  first, second = result.stdout.split()
  assert first == second
  reads = [count for *_, count in server.sent]
  assert reads.count(2 * 48 * 24 * 4) == len(SCHEMES)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_cannot_be_read_is_one_line_and_nothing_is_written(
  server, tmp_path, scheme
):
  for bucket, shown in (
    (buckets.FORBIDDEN, "config.json cannot be read (PERMISSION_DENIED"),
    ("empty", "holds no config.json"),
    ("missing", "is in model.safetensors.index.json and not there"),
    ("truncated", "is truncated"),
  ):
    result = commands.run(
      "-m",
      "tml_jax.interop.inkling",
      "--import",
      f"--src={scheme}://{bucket}/models/inkling",
      f"--workdir={tmp_path}/new",
    )
    assert result.returncode == 2, result.stderr
    lines = [x for x in result.stderr.splitlines() if x.startswith("error:")]
    (line,) = lines  # Amazon's library also logs what it did not find
    assert shown in line
    assert not list(tmp_path.iterdir())
    if bucket == buckets.FORBIDDEN:
      assert "credentials" in line and f"for {scheme}:// " in line
