"""The command line: what parses, and one line for what does not."""

import json

import pytest

from experiments import interaction
from tests.helpers import commands
from tml_jax import workdir

# Prints what arrived; at exit, whether jax was ever imported.
_MAIN = """
import atexit, dataclasses, json, sys
from tml_jax.config import flags as config_flags
from tml_jax.config import text as config_text
def main(config):
  hash(config)
  print(json.dumps([config_text.flatten(config), config_flags.overrides()]))
atexit.register(lambda: print("jax" if "jax" in sys.modules else "no jax"))
config_flags.run(main{options})
"""
# Before _MAIN: a fork for each command line goes on with it, all else imported.
_FORKS = """
import json, os, sys, tempfile
from tml_jax.config import flags as config_flags
results = []
for line in json.loads(sys.argv[1]):
  with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
    child = os.fork()
    if not child:
      os.dup2(out.fileno(), 1)
      os.dup2(err.fileno(), 2)
      sys.argv[1:] = line
      break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out.seek(0)
    err.seek(0)
    results.append((status, out.read(), err.read()))
else:
  print(json.dumps(results))
  sys.exit()
"""
_TINY = "--config=experiments/interaction.py:tiny"


def _run(*flags: str, options: str = "", cwd=commands.ROOT):
  code = _MAIN.replace("{options}", options)
  return commands.run("-c", code, *flags, cwd=cwd)


def test_overrides_are_typed():
  result = _run(
    _TINY,
    "--config.model.num_layers=2",
    "--config.train.optim.learning_rate=1e-3",
    "--config.train.optim.clip_norm=2",
    "--config.train.dtype=bfloat16",
    "--config.model.hmlp_widths=8,16,32",
    "--config.data.voices=espeak:en-us,asterisk:fr",
    "--config.name",
    "mine",
  )
  assert result.returncode == 0, result.stderr
  line, jax = result.stdout.splitlines()
  flat, overrides = json.loads(line)
  wanted = {
    "model.num_layers": 2,
    "train.optim.learning_rate": 1e-3,
    "train.optim.clip_norm": 2.0,
    "train.dtype": "bfloat16",
    "model.hmlp_widths": [8, 16, 32],
    "data.voices": ["espeak:en-us", "asterisk:fr"],
    "name": "mine",
  }
  assert overrides == wanted
  assert {name: flat[name] for name in wanted} == wanted
  assert isinstance(flat["train.optim.clip_norm"], float)
  assert flat["model.d_model"] == 128
  assert jax == "no jax"


_BAD = [
  (
    [_TINY, "--config.model.num_layer=2"],
    "unknown field --config.model.num_layer;"
    " the nearest is --config.model.num_layers",
  ),
  (
    [_TINY, "--config.train.learning_rate", "2"],
    "the nearest is --config.train.optim.learning_rate",
  ),
  ([_TINY, "--config.model=2"], "--config.model is a section"),
  ([_TINY, "--config.model.num_layers=a"], "=a: it takes an integer"),
  ([_TINY, "--config.model.num_layers=1.5"], "=1.5: it takes an integer"),
  ([_TINY, "--config.sample.top_p=high"], "=high: it takes a number"),
  ([_TINY, "--config.model.flow.guidance=nan"], "nan: it takes a finite"),
  ([_TINY, "--config.train.optim.eps=inf"], "inf: it takes a finite number"),
  (
    [_TINY, "--config.train.dtype=float16"],
    "=float16: it takes one of float32, bfloat16",
  ),
  ([_TINY, "--config.model.hmlp_widths=1,2"], "(1, 2): it takes 3 items"),
  ([_TINY, "--config.model.num_heads=3"], "model.num_heads = 3: must be"),
  ([_TINY + "y"], "one of tiny, tiny_procedural, interactive, medium"),
  (["--config=experiments/interaction.py"], "no size ''"),
  (["--config=experiments/none.py:tiny"], "no file 'experiments/none.py'"),
  (["--config=pyproject.toml"], "expected FILE.py:NAME"),
  ([_TINY, "--workdr=x"], "Did you mean: workdir ?"),
  ([_TINY, "stray"], "unexpected argument 'stray'"),
  ([], "--config is missing"),
  (["--config.model.num_layers=2"], "--config is missing"),
  (
    [_TINY, "--out=gs://bucket/run"],
    "--out=gs://bucket/run is a URL and this takes a path: mount",
  ),
  (
    [_TINY, "--local_checkpoint_dir=s3://b/c"],
    "--local_checkpoint_dir=s3://b/c is a URL and this takes a path",
  ),
  ([_TINY, "--workdir=http://a/b"], "--workdir=http://a/b is a URL and this"),
  ([_TINY, "--workdir=gs://b/a*"], "--workdir=gs://b/a*: checkpoints cannot"),
  ([_TINY, "--workdir=runs/[a]"], "--workdir=runs/[a]: checkpoints cannot be"),
  ([_TINY, "--workdir", "a*"], "--workdir=a*: checkpoints cannot be read back"),
  ([_TINY, "--init_from=a?/b"], "--init_from=a?/b: checkpoints cannot be"),
  ([_TINY, "--workdir=a\\b"], "give another"),
  ([_TINY, "--workdir=a\nb"], "give another"),
  ([_TINY, "--workdir=\udcff"], "give another"),
  ([_TINY, "--config.train.skip_batches=0"], "steps begin at 1"),
  (
    [_TINY, "--data_dir=data", "--data_cache=c"],
    "--data_cache=c is for a --data_dir in a bucket (gs://, s3://), and data is"
    " none",
  ),
  ([_TINY, "--data_cache", "c"], "and none is given: leave it out"),
  ([_TINY, "--data_dir=data", "--data_cache_gib=1"], "bounds --data_cache"),
]


@pytest.fixture(scope="module", name="bad_runs")
def _bad_runs():
  """What every command line of _BAD comes to: one process, forked for each."""
  lines = json.dumps([flags for flags, _ in _BAD])
  result = commands.run("-c", _FORKS + _MAIN.replace("{options}", ""), lines)
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout)


@pytest.mark.parametrize("number", range(len(_BAD)))
def test_bad_flags_end_in_one_line_before_jax(bad_runs, number):
  status, out, error = bad_runs[number]
  assert status == 2
  assert out == "no jax\n"
  assert len(error.splitlines()) == 1
  assert error.startswith("error: ")
  assert _BAD[number][1] in error


@pytest.mark.parametrize(
  "code, message",
  [
    ("def get_config(:", "invalid syntax"),
    ("import nothing_of_this_name", "No module named"),
    ("x = 1", "has no function get_config"),
    ("def get_config(): return 1", "must return a Config, not int"),
  ],
)
def test_a_broken_experiment_is_one_line(code, message, tmp_path):
  (tmp_path / "mine.py").write_text(code)
  result = _run(f"--config={tmp_path}/mine.py")
  assert result.returncode == 2 and result.stdout == "no jax\n"
  assert len(result.stderr.splitlines()) == 1
  assert message in result.stderr and f"{tmp_path}/mine.py" in result.stderr


_MINE = """
import dataclasses
from experiments import interaction
def get_config(name):
  return dataclasses.replace(interaction.get_config(name), name="mine")
"""


@pytest.mark.parametrize("mine", [False, True])
def test_an_experiment_is_here_or_installed(mine, tmp_path):
  if mine:  # a file of the same name, which varies the installed one
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "interaction.py").write_text(_MINE)
  result = _run(_TINY, cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  flat, _ = json.loads(result.stdout.splitlines()[0])
  assert flat["name"] == ("mine" if mine else "tiny")


def test_an_experiment_outside_begins_with_an_installed_one(tmp_path):
  """However this package came to be found: here by nothing but its import."""
  (tmp_path / "mine.py").write_text(_MINE)
  script = (
    "import sys\n"
    "root = sys.path.pop(sys.path.index(sys.argv.pop(1)))\n"
    "import importlib.machinery, importlib.util\n"
    "finder = importlib.machinery.PathFinder\n"
    "spec = finder.find_spec('tml_jax', [root])\n"
    "module = importlib.util.module_from_spec(spec)\n"
    "sys.modules['tml_jax'] = module\n"
    "spec.loader.exec_module(module)\n"
  )
  code = script + _MAIN.replace("{options}", "")
  result = commands.run(
    "-c",
    code,
    str(commands.ROOT),
    f"--config={tmp_path}/mine.py:tiny",
    cwd=tmp_path,
  )
  assert result.returncode == 0, result.stderr
  flat, _ = json.loads(result.stdout.splitlines()[0])
  assert flat["name"] == "mine"


def test_no_other_file_is_taken_from_the_installation(tmp_path):
  result = _run("--config=experiments/../setup.py", cwd=tmp_path)
  assert result.returncode == 2
  assert "no file 'experiments/../setup.py'" in result.stderr


def test_the_config_of_a_run_can_be_changed_by_flags(tmp_path):
  from experiments import interaction
  from tml_jax.config import text as config_text

  text = config_text.to_text(interaction.medium())
  (tmp_path / config_text.FILE_NAME).write_text(text, encoding="utf-8")
  result = _run(
    f"--workdir={tmp_path}",
    "--config.sample.top_p=0.5",
    options=", config_from=config_flags.ConfigFrom.WORKDIR",
  )
  assert result.returncode == 0, result.stderr
  flat, _ = json.loads(result.stdout.splitlines()[0])
  assert flat["name"] == "medium"
  assert flat["sample.top_p"] == 0.5


@pytest.mark.parametrize("name", ["a:b", "x.py:y", "a b, c=d", "10:30 {1}é"])
def test_a_workdir_of_any_other_name_is_read(name, tmp_path):
  path = tmp_path / name
  workdir.create(str(path), interaction.tiny())
  script = _MAIN.replace(
    "{options}", ", config_from=config_flags.ConfigFrom.WORKDIR"
  )
  result = commands.run("-c", script, f"--workdir={path}")
  assert result.returncode == 0, result.stderr
  assert json.loads(result.stdout.splitlines()[0])[0]["name"] == "tiny"


def test_a_workdir_without_a_run_is_refused(tmp_path):
  options = ", config_from=config_flags.ConfigFrom.WORKDIR"
  result = _run("--workdir", str(tmp_path), options=options)
  assert result.returncode == 2
  assert f"--workdir={tmp_path} has no config.txt" in result.stderr
  result = _run(options=options)
  assert result.returncode == 2
  assert "--workdir is missing" in result.stderr


def test_an_error_of_ours_keeps_its_traceback():
  result = commands.run(
    "-c",
    "from tml_jax.config import flags as config_flags\n"
    "config_flags.run(lambda config: 1 / 0)",
    _TINY,
  )
  assert result.returncode == 1
  assert "ZeroDivisionError" in result.stderr
