"""One corpus of a source: anywhere, by anybody, again and again."""

import filecmp
import json
import pathlib
import urllib.request

import fsspec
import pytest
from moto import server as moto_server

from tests.helpers import commands
from tml_jax import errors, prepare
from tml_jax.data import corpus, source
from tml_jax.data.prepare import plan
from tml_jax.data.prepare.runners import Runner
from tml_jax.data.source import Part


def run(src, dst, *, runner=Runner.LOCAL, **changes):
  arguments = dict(
    options={"text": "body", "licence": "CC0-1.0"},
    size=(120, 160),
    runner=runner,
    beam_options=["--runner=DirectRunner"] if runner is Runner.BEAM else [],
    processes=1,
    verify=False,
    rebuild=False,
  )
  return prepare.prepare_source(
    "jsonl", src=str(src), dst=str(dst), **(arguments | changes)
  )


def write(folder, **files):
  """JSON lines by name of the file: texts of documents."""
  folder.mkdir(exist_ok=True)
  for name, texts in files.items():
    rows = "".join(json.dumps({"body": text}) + "\n" for text in texts)
    (folder / f"{name}.jsonl").write_text(rows, encoding="utf-8")


@pytest.fixture
def small_units(monkeypatch):
  """Each file a unit of its own."""
  monkeypatch.setattr(plan, "UNIT_BYTES", 1)


@pytest.fixture
def src(tmp_path):
  folder = tmp_path / "src"
  write(folder, a=["one", "two"], b=["three", "", None], c=["four"])
  return folder


def texts(path):
  found = corpus.RecordSource(path)
  return [found[i].text for i in range(len(found))]


def test_what_is_there_is_never_touched(tmp_path, src, small_units):
  """New files join; the old units keep their bytes and their times."""
  dst = tmp_path / "data/web"
  report = run(src, dst)
  assert texts(dst) == ["one", "two", "three", "four"]
  assert report["kinds"]["document"]["recordings"] == 4
  assert report["licences"]["CC0-1.0"]["letters"] == 15
  (skipped,) = report["skipped"].values()
  assert skipped["count"] == 2
  before = {p.name: p.stat().st_mtime_ns for p in (dst / "units").iterdir()}
  write(src, aa=["new"])
  run(src, dst)
  assert texts(dst) == ["one", "two", "three", "four", "new"]
  after = {p.name: p.stat().st_mtime_ns for p in (dst / "units").iterdir()}
  assert before.items() <= after.items() and len(after) == len(before) + 2
  page = (dst / "report.html").read_text(encoding="utf-8")
  assert "CC0-1.0" in page and "http" not in page


@pytest.mark.slow
@pytest.mark.parametrize("left", [(1,), (0, 2), (0, 1, 2)])
def test_what_a_killed_run_left_makes_the_same_corpus(
  tmp_path, src, small_units, left
):
  """Whichever units were finished: other processes finish in another order."""
  whole, cut = tmp_path / "whole/web", tmp_path / "cut/web"
  run(src, whole)
  run(src, cut)
  units = [unit.name for unit in corpus.read_index(cut).units]
  (cut / corpus.INDEX).unlink()
  next(cut.glob("table-*")).unlink()
  for number in {0, 1, 2} - {*left}:
    (cut / f"units/{units[number]}.parquet").unlink()
  report = run(src, cut)
  assert report["recordings"] == 4
  same = filecmp.dircmp(whole, cut)
  for each in (same, same.subdirs["units"]):
    assert not (each.left_only or each.right_only or each.diff_files)


@pytest.mark.slow
def test_a_pipeline_gives_the_same_bytes(tmp_path, src, small_units):
  run(src, tmp_path / "local/web")
  run(src, tmp_path / "beam/web", runner=Runner.BEAM)
  same = filecmp.dircmp(tmp_path / "local/web", tmp_path / "beam/web")
  for each in (same, same.subdirs["units"]):
    assert not (each.left_only or each.right_only or each.diff_files)
  assert len(same.subdirs["units"].same_files) == 6


def test_options_of_beam_that_it_does_not_know(tmp_path, src):
  with pytest.raises(errors.UserError, match="'--nonsense=1', which Beam does"):
    run(src, tmp_path / "d", runner=Runner.BEAM, beam_options=["--nonsense=1"])


@pytest.fixture
def bucket(monkeypatch):
  """A bucket of a real server that speaks S3."""
  server = moto_server.ThreadedMotoServer(port=0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
  monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
  monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
  monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
  fsspec.get_filesystem_class("s3").clear_instance_cache()
  reset = f"http://{host}:{port}/moto-api/reset"  # state is of the process
  urllib.request.urlopen(urllib.request.Request(reset, method="POST")).close()
  files = fsspec.filesystem("s3")
  files.mkdir("bucket")
  yield files
  server.stop()
  fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.slow
def test_from_a_bucket_to_a_bucket(tmp_path, src, bucket, small_units):
  bucket.put(f"{src}/", "bucket/src/", recursive=True)
  run("s3://bucket/src", "s3://bucket/data/web")
  bucket.get("bucket/data/web/", str(tmp_path / "got"), recursive=True)
  assert texts(tmp_path / "got") == ["one", "two", "three", "four"]
  run(src, tmp_path / "local/web")
  made = sorted(p.name for p in (tmp_path / "local/web/units").iterdir())
  assert len(made) == 6  # names tell stamps, which are of another place
  # A second run keeps all, a lost object is made again, and nothing else.
  names = [each["name"] for each in bucket.ls("bucket/data/web/units", True)]
  times = {n: bucket.info(n)["LastModified"] for n in names}
  run("s3://bucket/src", "s3://bucket/data/web")
  assert times == {n: bucket.info(n)["LastModified"] for n in names}
  lost = next(n for n in names if n.endswith(".array_record"))
  bucket.rm(lost)
  run("s3://bucket/src", "s3://bucket/data/web")
  assert sorted(names) == sorted(
    each["name"] for each in bucket.ls("bucket/data/web/units", True)
  )


def test_a_bucket_that_is_not_there(tmp_path, src, bucket):
  with pytest.raises(errors.UserError, match="s3://none/web.*does not exist"):
    run(src, "s3://none/web")
  with pytest.raises(errors.UserError, match="no such file or folder"):
    run("s3://bucket/nothing", tmp_path / "d")
  with pytest.raises(errors.UserError, match="nowhere://x"):
    run(src, "nowhere://x/web")


@pytest.mark.slow
def test_damage_is_made_again(tmp_path, src, small_units):
  dst = tmp_path / "web"
  run(src, dst)
  index = corpus.verify(dst)
  first, second = index.shards[0].file, index.shards[1].file
  (dst / first).unlink()
  data = bytearray((dst / second).read_bytes())
  data[-1] ^= 1
  (dst / second).write_bytes(data)
  run(src, dst)  # by sizes: one is seen
  with pytest.raises(errors.UserError, match="is corrupt"):
    corpus.verify(dst)
  run(src, dst, verify=True)
  assert corpus.verify(dst) == index  # to the byte, and in its order
  assert texts(dst) == ["one", "two", "three", "four"]


def test_another_option_makes_another_corpus(tmp_path, src):
  dst = tmp_path / "web"
  run(src, dst)
  run(src, dst, options={"text": "body", "licence": "MIT"})
  found = corpus.RecordSource(dst)
  assert {found[i].metadata["licence"] for i in range(len(found))} == {"MIT"}
  assert len(found.index.units) == 1


def test_a_source_that_gives_a_name_twice():
  class Twice:
    def parts(self):
      return [Part("a", "1", 1), Part("a", "2", 1)]

    def read(self, part):
      return iter(())

  with pytest.raises(errors.UserError, match="two parts named 'a'"):
    plan.parts_of(Twice())


@pytest.mark.slow
def test_command_line(tmp_path, src):
  """One line and exit status 2 for bad input, before any work."""
  common = ("-m", "tml_jax.prepare")
  full = (*common, "--source=jsonl", f"--src={src}", f"--dst={tmp_path}/d/web")
  half = (*common, "--source=jsonl", f"--src={src}")
  tiny = "--config=experiments/interaction.py:tiny"
  for arguments, words in (
    (half, "--dst is missing"),
    ((*half, "--dst=a/b,c"), "leave those"),
    ((*common, "--source=json", "--src=a", "--dst=b"), "did you mean 'jsonl'"),
    ((*full, "--option=text"), "write --option=NAME=VALUE"),
    ((*full, "--option=a=1", "--option=a=2"), "is given twice"),
    ((*full, "--option=txt=body"), "jsonl has no option 'txt'"),
    ((*common, f"--src={src}", tiny), "--src is for one corpus"),
  ):
    result = commands.run(*arguments)
    assert result.returncode == 2 and words in result.stderr, result.stderr
  assert not pathlib.Path(tmp_path / "d").exists()
  result = commands.run(*full, "--option=text=body", "--processes=1")
  assert result.returncode == 0, result.stderr
  assert "4 recordings" in result.stdout and "skipped: 2" in result.stdout
  assert source.IMPORTERS  # found by their files
