"""`train_tokenizer` as a command: the same file, and bad input."""

import pytest
from absl import flags
from absl.testing import flagsaver

from tests.helpers import commands, recorded, small_data
from tml_jax import errors, train_tokenizer
from tml_jax.streams import tokenizer


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory):
  root = tmp_path_factory.mktemp("data")
  lines = [
    recorded.line(f"{i}", text=f"line {i} of what is typed") for i in range(40)
  ]
  recorded.write(
    root, lines=lines, others=[recorded.line("x", text="quite another")]
  )
  return root


def _run(data, **values):
  flags.FLAGS.mark_as_parsed()
  values = {"data_dir": str(data)} | values
  with flagsaver.flagsaver(**values):
    train_tokenizer.main(small_data.config())


def test_the_same_corpora_give_the_same_file(data, tmp_path, capsys):
  out, again = tmp_path / "a" / "t.model", tmp_path / "b.model"
  _run(data, corpora=["lines", "others"], out=str(out))
  assert "41 different texts" in capsys.readouterr().out
  _run(data, corpora=["others", "lines", "lines"], out=str(again))
  assert out.read_bytes() == again.read_bytes()
  tokens = tokenizer.load(str(out), config=small_data.config().streams)
  assert tokens.decode(tokens.encode("line 3 <s>\n")) == "line 3 <s>\n"
  capsys.readouterr()
  stamp = out.stat().st_mtime_ns
  _run(data, corpora=["lines", "others"], out=str(out))
  assert "as it was" in capsys.readouterr().out
  assert out.stat().st_mtime_ns == stamp
  with pytest.raises(errors.UserError, match="is there, and is another"):
    _run(data, corpora=["others"], out=str(out))
  assert out.read_bytes() == again.read_bytes()
  _run(data, corpora=["others"], out=str(out), overwrite=True)
  assert out.read_bytes() != again.read_bytes()
  assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
  "values, words",
  [
    ({"data_dir": ""}, "--data_dir is missing"),
    ({"data_dir": "/nowhere"}, "there is no such directory"),
    ({"corpora": []}, "--corpora is missing: name some of lines, others"),
    ({"corpora": ["line"]}, "no 'line' in .*; did you mean 'lines'"),
    ({"corpora": ["zzz"]}, "there are lines, others"),
    ({"out": ""}, "--out=: name a file that ends with .model"),
    ({"out": "/proc/x.model"}, "cannot be written"),
  ],
)
def test_bad_flags(values, words, data, tmp_path):
  given = {"corpora": ["lines"], "out": str(tmp_path / "new" / "t.model")}
  with pytest.raises(errors.UserError, match=words):
    _run(data, **(given | values))
  assert not (tmp_path / "new" / "t.model").exists()


def test_what_is_there_is_not_replaced_by_mistake(data, tmp_path):
  out = tmp_path / "t.model"
  out.write_text("mine")
  with pytest.raises(errors.UserError, match="give --overwrite"):
    _run(data, corpora=["lines"], out=str(out))
  assert out.read_text() == "mine"
  (tmp_path / "d.model").mkdir()
  with pytest.raises(errors.UserError, match="is a directory"):
    _run(data, corpora=["lines"], out=str(tmp_path / "d.model"))


def test_command_line(data, tmp_path):
  command = ("-m", "tml_jax.train_tokenizer", f"--data_dir={data}")
  out = tmp_path / "t.model"
  made = commands.run(
    *command, "--corpora=lines", f"--out={out}", "--max_mib=1"
  )
  assert made.returncode == 0, made.stderr
  assert "MiB that were read" in made.stdout
  result = commands.run(*command, "--corpora=liens", f"--out={out}")
  assert result.returncode == 2
  assert result.stderr.startswith("error: --corpora: there is no 'liens'")
  assert len(result.stderr.splitlines()) == 1
