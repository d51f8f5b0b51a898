import json
import os
import signal
import subprocess
import sys

import pytest

from tests.helpers import (
  bad_source,
  commands,
  hugging_face,
  small,
  small_data,
)
from tml_jax import errors, lock, prepare
from tml_jax.data import corpus, source, transcripts
from tml_jax.data.prepare import code
from tml_jax.streams import tokenizer


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("BAD_SOURCE_FOLDER", str(tmp_path))


@pytest.mark.slow
def test_report_counts_every_reason(tmp_path, capsys):
  report = small_data.prepare(tmp_path / "data", "bad:fast", processes=2)
  entry = report["corpora"]["bad-fast"]
  counts = {name: value["count"] for name, value in entry["skipped"].items()}
  assert counts == bad_source.REASONS
  assert entry["recordings"] == bad_source.GOOD
  assert len(corpus.RecordSource(tmp_path / "data/bad-fast")) == 12
  written = json.loads((tmp_path / "data" / prepare.REPORT).read_text())
  assert written == report
  table = capsys.readouterr().out
  assert "1 samples far over full scale" in table and "2 empty" in table


def test_prepared_data(data_dir, config):
  """The fixture of all data tests is complete and has a tokenizer."""
  assert sorted(p.name for p in data_dir.iterdir() if p.name[0] != ".") == [
    "prepare_report.json",
    "procedural-high",
    "procedural-low",
    "tokenizer.json",
    "tokenizer.model",
  ]
  tokens = tokenizer.load(
    str(data_dir / tokenizer.FILENAME), config=config.streams
  )
  assert tokens.decode(tokens.encode("wait three")) == "wait three"


def test_a_second_run_keeps_what_is_finished(data_dir, config):
  def stamps():
    return {
      path: path.stat().st_mtime_ns
      for path in data_dir.rglob("*")
      if path.is_file() and path.suffix in (".array_record", ".model")
    }

  before = stamps()
  prepare.prepare(config, data_dir=str(data_dir), sounds_root="/", processes=1)
  assert stamps() == before


def test_a_damaged_corpus_is_rebuilt(tmp_path):
  path = tmp_path / "data"
  small_data.prepare(path, "bad:fast")
  digest = corpus.read_index(path / "bad-fast").digest
  shard = (
    path / "bad-fast" / corpus.read_index(path / "bad-fast").shards[0].file
  )
  shard.write_bytes(b"x" * shard.stat().st_size)
  small_data.prepare(path, "bad:fast")
  assert corpus.verify(path / "bad-fast").digest == digest


def test_a_second_corpus_joins_and_the_tokenizer_stays(tmp_path, caplog):
  path = tmp_path / "data"
  small_data.prepare(path, "bad:fast")
  model = (path / tokenizer.FILENAME).read_bytes()
  report = small_data.prepare(path, "bad:fast", "grown:a")
  assert (path / tokenizer.FILENAME).read_bytes() == model
  assert "stays as it was trained, on bad-fast; it spells grown-a" in (
    caplog.text
  )
  assert report["tokenizer_of"] == ["bad-fast"]
  assert {n: e["done"] for n, e in report["corpora"].items()} == {
    "bad-fast": "kept: as many recordings as before, and its source has no"
    " stamp() that would tell whether one has changed",
    "grown-a": "new",
  }
  # The other alone, as well.
  assert small_data.prepare(path, "grown:a")["tokenizer_of"] == ["bad-fast"]


def grown(folder, report):
  """What was done, which recordings were read, and what is there now."""
  read = (folder / "read").read_text().split()
  (folder / "read").write_text("")
  recordings = corpus.RecordSource(folder / "data/grown-a")
  assert len(recordings) == report["corpora"]["grown-a"]["recordings"]
  texts = [recordings[i].metadata["text"] for i in range(len(recordings))]
  return report["corpora"]["grown-a"]["done"], sorted(read), texts


@pytest.mark.slow
def test_a_corpus_follows_its_source(tmp_path, monkeypatch):
  """A unit with something new or changed is made again, and no other."""
  path = tmp_path / "data"

  def prepare_again():
    return grown(tmp_path, small_data.prepare(path, "grown:a"))

  write = bad_source.write_grown
  write(tmp_path, {"b": "two", "d": "four", "x": "silent"})
  assert prepare_again() == ("new", ["b", "d", "x"], ["two", "four"])
  assert prepare_again() == ("kept", [], ["two", "four"])
  write(tmp_path, {"a": "one", "b": "two", "d": "four", "x": "silent"})
  assert prepare_again() == (  # what is there is not touched
    "brought up to date: 1 recordings are new or changed, 0 gone",
    ["a"],
    ["two", "four", "one"],
  )
  write(tmp_path, {"a": "one", "b": "two", "d": "five", "x": "silent"})
  assert prepare_again() == (
    "brought up to date: 1 recordings are new or changed, 1 gone",
    ["b", "d", "x"],
    ["one", "two", "five"],
  )
  report = json.loads((path / prepare.REPORT).read_text())
  assert report["corpora"]["grown-a"]["skipped"] == {
    "silent": {"count": 1, "examples": ["x"]}
  }
  write(tmp_path, {"d": "five", "x": "loud"})
  assert prepare_again() == (
    "brought up to date: 1 recordings are new or changed, 3 gone",
    ["d", "x"],
    ["five", "loud"],
  )
  digest = corpus.read_index(path / "grown-a").digest
  table = next((path / "grown-a/units").glob("*.parquet"))
  table.write_bytes(table.read_bytes()[:-9])
  assert prepare_again()[:2] == ("rebuilt: it was damaged", ["d", "x"])
  assert corpus.read_index(path / "grown-a").digest == digest
  monkeypatch.setattr(code, "code_of", lambda factory: "other")
  assert prepare_again()[:2] == (
    "rebuilt: the code that converts it has changed",
    ["d", "x"],
  )


@pytest.mark.slow
def test_video_of_another_size_is_skipped_and_said(tmp_path):
  """Before training, which would fail after its compilation."""
  write = bad_source.write_grown
  write(
    tmp_path, {"a": "one", "b": "two video 120 160", "c": "three video 8 8"}
  )
  report = small_data.prepare(tmp_path / "data", "grown:a")
  entry = report["corpora"]["grown-a"]
  assert (entry["recordings"], entry["done"]) == (2, "new")
  assert entry["skipped"]["video of another size"]["examples"] == [
    "grown:a/c: 8 x 8 uint8 at 0.0 s; the config's streams.video_height and"
    " video_width are 120 x 160: resize it there"
  ]
  assert small_data.prepare(tmp_path / "data", "grown:a")["corpora"]["grown-a"][
    "done"
  ] == ("kept")
  other = small.run(
    {
      "data.voices": ("grown:a",),
      "streams.video_height": 80,
    }
  )
  report = prepare.prepare(
    other, data_dir=str(tmp_path / "data"), sounds_root="/", processes=1
  )
  entry = report["corpora"]["grown-a"]
  assert entry["done"] == "rebuilt: video is 80x160 now, and was 120x160"
  assert entry["recordings"] == 1
  assert (tmp_path / "read").read_text().split() == [*"abc", *"abc"]


def test_whatever_is_wrong_with_a_recording_it_alone_is_skipped(tmp_path):
  bad_source.write_grown(
    tmp_path,
    {
      "a": "one",
      "b": "raise",
      "c": "null",
      "d": "number",
      "e": "surrogate",
      "f": "latin",
      "g": "float32",
      "h": "x" * 1001 + " two",
      "i": "speechless",
    },
  )
  entry = small_data.prepare(tmp_path / "data", "grown:a")["corpora"]["grown-a"]
  assert entry["recordings"] == 2
  skipped = entry["skipped"]
  assert skipped["its source failed"]["examples"] == [
    "number 1: ZeroDivisionError('division by zero')",
  ]
  assert skipped["not a valid timeline"]["examples"] == [
    "number 2: timeline 'grown:a/c': environment word at 0.0 s is None and no"
    " text",
    "number 3: timeline 'grown:a/d': environment word at 0.0 s is 3 and no"
    " text",
    "number 4: timeline 'grown:a/e': environment word at 0.0 s has half of a"
    " character, '\\ud800': it was cut, or is not in UTF-8",
    "number 5: timeline 'grown:a/caf\\udce9': id has half of a character,"
    " '\\udce9': it was cut, or is not in UTF-8",
    "number 6: TypeError(\"can not serialize 'numpy.float32' object\")",
  ]
  assert entry["left out"] == {
    "words too long to be said": {"count": 1, "examples": ["grown:a/h"]}
  }
  assert skipped["not a valid timeline"]["count"] == 6
  kept = corpus.RecordSource(tmp_path / "data/grown-a")[1]
  assert [word.text for word in kept.tracks[0].words] == ["two"]


def test_code_counts_by_what_it_does(tmp_path):
  """Comments, documentation and format rebuild nothing."""
  text = (
    '''"""What."""\nx = 1  # one\n\ndef f(a):\n  """Of f."""\n\n  return a\n'''
  )
  same = "x=1\ndef f( a ):\n    return a"
  assert code._meaning(text) == code._meaning(same)
  assert code._meaning(text) != code._meaning(text.replace("1", "2"))
  found = {}
  code._collect(sys.modules["tml_jax.data.voices.espeak"], found)
  assert {
    "tml_jax.data.voices.asterisk",
    "tml_jax.data.audio",
    "tml_jax.data.media",
    "tml_jax.streams.timeline",
  } <= found.keys()
  codes = {code.code_of(source.SOURCES[n]) for n in ("espeak", "procedural")}
  assert len(codes) == 2


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_a_broken_tokenizer_record_is_said_and_can_be_mended(content, tmp_path):
  path = tmp_path / "data"
  small_data.prepare(path, "bad:fast")
  model = (path / tokenizer.FILENAME).read_bytes()
  record = path / transcripts.RECORD
  record.write_text(content)
  with pytest.raises(errors.UserError, match=r"tokenizer\.json is broken"):
    small_data.prepare(path, "bad:fast")
  record.unlink()
  small_data.prepare(path, "bad:fast")
  assert (path / tokenizer.FILENAME).read_bytes() == model


def test_a_tokenizer_that_somebody_put_there_stays(tmp_path, capsys):
  path = tmp_path / "data"
  path.mkdir()
  made = small_data.config().streams
  tokenizer.train(["one two"], path=str(path / tokenizer.FILENAME), config=made)
  content = (path / tokenizer.FILENAME).read_bytes()
  report = small_data.prepare(path, "bad:fast")
  assert (path / tokenizer.FILENAME).read_bytes() == content
  assert report["tokenizer_of"] == []
  assert not (path / transcripts.RECORD).exists()
  assert (
    f"tokenizer sentencepiece {tokenizer.digest(path / tokenizer.FILENAME)}"
    in (capsys.readouterr().out)
  )
  # A note on another says nothing about it.
  (path / tokenizer.FILENAME).unlink()
  assert small_data.prepare(path, "bad:fast")["tokenizer_of"] == ["bad-fast"]
  (path / tokenizer.FILENAME).write_bytes(content)
  assert small_data.prepare(path, "bad:fast")["tokenizer_of"] == []


def test_with_a_tokenizer_of_its_own_none_is_trained(tmp_path):
  given = tmp_path / "given.json"
  hugging_face.write(given)
  arguments = dict(
    data_dir=str(tmp_path / "data"), sounds_root="/", processes=1
  )
  config = small_data.config(voices=("bad:fast",))
  report = prepare.prepare(config, **arguments, tokenizer_file=str(given))
  assert report["tokenizer"] == tokenizer.described(str(given))
  assert not list((tmp_path / "data").glob("tokenizer*"))
  with pytest.raises(errors.UserError, match="no tokenizer at .*none.json"):
    prepare.prepare(
      config, **arguments, tokenizer_file=str(tmp_path / "none.json")
    )


def test_a_tokenizer_that_does_not_fit_is_said_before_any_work(tmp_path):
  small_data.prepare(tmp_path / "data", "bad:fast")
  (tmp_path / "data/bad-fast" / corpus.INDEX).unlink()
  (tmp_path / "data" / tokenizer.FILENAME).write_bytes(b"xx")
  with pytest.raises(errors.UserError, match="not a sentencepiece model"):
    small_data.prepare(tmp_path / "data", "bad:fast")
  assert not (tmp_path / "data/bad-fast" / corpus.INDEX).exists()


def test_a_file_where_a_corpus_belongs(tmp_path):
  (tmp_path / "data").mkdir()
  (tmp_path / "data/bad-fast").write_text("mine")
  with pytest.raises(errors.UserError, match="must be a folder"):
    small_data.prepare(tmp_path / "data", "bad:fast")
  assert (tmp_path / "data/bad-fast").read_text() == "mine"


@pytest.mark.slow
def test_a_full_disk(tmp_path):
  with commands.files_of_at_most(20_000):
    with pytest.raises(errors.UserError, match="cannot write .*bad-fast"):
      small_data.prepare(tmp_path / "data", "bad:fast")
  assert not (tmp_path / "data/bad-fast").exists()
  small_data.prepare(tmp_path / "data", "bad:fast")  # over the remains


def test_nothing_usable(tmp_path):
  for _ in range(2):  # the second run fails like the first
    with pytest.raises(errors.UserError, match="none of 3 recordings"):
      small_data.prepare(tmp_path / "data", "empty:a")
  assert not (tmp_path / "data/empty-a" / corpus.INDEX).exists()


def test_unwritable_directory(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="--data_dir=.* cannot be written"):
    small_data.prepare(tmp_path / "file/data", "procedural:low")


def test_a_missing_source_is_said_before_any_work(tmp_path):
  for voice in ("procedral:low", "procedural:loud", "asterisk:xx"):
    with pytest.raises(errors.UserError):
      small_data.prepare(tmp_path / "data", "procedural:low", voice)
  assert not list((tmp_path / "data").iterdir())


def test_one_prepare_at_a_time(tmp_path):
  held = lock.Lock(
    str(tmp_path / "procedural-low"), flag="--dst", does="prepares"
  )
  held.take()
  with pytest.raises(
    errors.TransientError, match="--data_dir=.*prepares there"
  ):
    small_data.prepare(tmp_path, "procedural:low")
  held.release()


@pytest.mark.slow
def test_ctrl_c_is_one_line(tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-m", "tml_jax.prepare", f"--data_dir={tmp_path}/data"]
    + ["--config=experiments/interaction.py:tiny_procedural"],
    cwd=commands.ROOT,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
    # Shells start what they put in the background with SIGINT ignored.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
  )
  # Until the first units are made.
  while "0.00/" not in (line := process.stderr.readline()):
    assert process.poll() is None, line
  os.killpg(process.pid, signal.SIGINT)
  rest = process.stderr.read()
  assert process.wait() == 130
  assert rest.endswith("interrupted\n") and "Traceback" not in rest
  commands.wait_until_gone(process.pid)


def test_command_line(tmp_path):
  """One line and exit status 2 for bad input."""
  common = (
    "-m",
    "tml_jax.prepare",
    "--config=experiments/interaction.py:tiny_procedural",
  )
  result = commands.run(*common)
  assert result.returncode == 2 and "--data_dir is missing" in result.stderr
  result = commands.run(
    *common, "--data_dir=gs://bucket/data", f"--data_cache={tmp_path}"
  )
  assert result.returncode == 2
  assert "gs://bucket/data: this command writes there" in result.stderr
  result = commands.run(
    *common, f"--data_dir={tmp_path}", "--config.data.voices=procedual:low"
  )
  assert result.returncode == 2
  assert "did you mean 'procedural'?" in result.stderr
  result = commands.run(
    *common, f"--data_dir={tmp_path}", "--config.data.voices=procedural:low"
  )
  assert result.returncode == 0, result.stderr
  assert "procedural-low" in result.stdout
