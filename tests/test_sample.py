"""`sample` and `evaluate` as commands: bad input, and a whole run."""

import dataclasses
import json
import shutil
import wave

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import interaction
from tests.helpers import commands, small_session
from tml_jax import errors, evaluate, prepare, sample
from tml_jax.config import text as config_text
from tml_jax.data import mixture
from tml_jax.logs import ticks


def _config():
  """Two procedural voices and the small model, with room for their text."""
  tiny = interaction.get_config("tiny_procedural")
  model = small_session.config().model
  return dataclasses.replace(
    tiny,
    model=dataclasses.replace(model, vocab_size=tiny.model.vocab_size),
    data=dataclasses.replace(
      tiny.data, voices=("procedural:low", "procedural:high")
    ),
  )


@pytest.fixture(name="workdir")
def _workdir(tmp_path):
  """A run that has a checkpoint, as far as can be seen from outside."""
  path = tmp_path / "run"
  (path / "checkpoints" / "1").mkdir(parents=True)
  (path / config_text.FILE_NAME).write_text(config_text.to_text(_config()))
  return path


@pytest.mark.parametrize(
  "given, words",
  [
    ({"workdir": ""}, "--workdir is missing"),
    ({"workdir": "/nowhere"}, "no such directory"),
    ({"data_dir": ""}, "--data_dir is missing"),
    ({"input": ""}, "either --input=user.wav or --scenario"),
    ({"scenario": "heldout:1"}, "either --input=user.wav or --scenario"),
    (
      {"input": "", "scenario": "heldout:1", "text": ["1:a"]},
      "go with --input",
    ),
    ({"tail": float("inf")}, "--tail=inf: give a finite number"),
    ({"video_fps": float("nan")}, "--video_fps=nan: give a finite number"),
    ({"data_dir": "/nowhere"}, "no tokenizer at"),
    ({"tools": ["calculate"]}, "--tools=calculate: no such tool"),
    ({"tools": ["search"]}, "--tools=search needs --corpus"),
    ({"tools": ["search"], "corpus": "/nowhere"}, "no such directory"),
    ({"corpus": "/tmp"}, "add it to --tools"),
    ({"tools": ["chat"]}, "needs --chat_url and --chat_model"),
    (
      {"tools": ["chat"], "chat_url": "here", "chat_model": "m"},
      "write the base of the API",
    ),
    (
      {
        "tools": ["chat"],
        "chat_url": "http://localhost/v1",
        "chat_model": "m",
        "chat_key_env": "TML_JAX_NO_SUCH_VARIABLE",
      },
      "the variable is empty",
    ),
    ({"session": "/nowhere"}, "either --input=user.wav or --scenario"),
    (
      {"input": "", "session": "s", "tools": ["clock"]},
      "has the results of its own tools",
    ),
    ({"vocoder": "/nowhere"}, "--vocoder=/nowhere: there is no such"),
    (
      {"vocoder": "griffin_lim", "realtime": True},
      "makes its sound after the session",
    ),
  ],
)
def test_bad_flags(given, words, workdir, tmp_path):
  values = {
    "workdir": str(workdir),
    "data_dir": str(tmp_path),
    "input": "user.wav",
    "out": str(tmp_path / "out"),
  }
  flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(**(values | given)):
    with pytest.raises(errors.UserError, match=words):
      sample.main(_config())
  assert not (tmp_path / "out").exists()


def test_full_duplex_bench_that_is_not_there(workdir, tmp_path):
  values = {"workdir": str(workdir), "data_dir": str(tmp_path)}
  flags.FLAGS.mark_as_parsed()
  for given, words in (
    ({"suite": "fdp"}, "--suite=fdp: no such suite; did you mean 'fdb'"),
    ({"suite": "fdb"}, "no tokenizer at"),
  ):
    with flagsaver.flagsaver(**(values | given)):
      with pytest.raises(errors.UserError, match=words):
        evaluate.main(_config())
  for root, words in (("", "--fdb_root=: there is no"), ("/proc", "be read")):
    with flagsaver.flagsaver(**(values | {"suite": "fdb", "fdb_root": root})):
      with pytest.raises(errors.UserError, match=words):
        evaluate._suite(_config(), data_dir=str(tmp_path))


def test_bad_output_directory():
  for path, words in (("", "--out is missing"), ("/proc/out", "be written")):
    with pytest.raises(errors.UserError, match=words):
      sample._check_out(path)


def test_bad_output_file(tmp_path):
  (tmp_path / "dir.json").mkdir()
  for path, words in (
    (tmp_path / "dir.json", "ends with .json"),
    (tmp_path / "numbers.png", "ends with .json"),
    (tmp_path / "none" / "numbers.json", "cannot be written"),
  ):
    with pytest.raises(errors.UserError, match=words):
      evaluate._check_output(str(path))


def test_bad_scenario(tmp_path):
  for wrong in ("heldout", "heldout:x", "later:3", "heldout:-1"):
    with pytest.raises(errors.UserError, match="SPLIT:INDEX"):
      mixture.pick(
        _config(), argument=wrong, flag="scenario", data_dir=str(tmp_path)
      )


def test_no_checkpoint(workdir):
  (workdir / "checkpoints" / "1").rmdir()
  for module in ("tml_jax.sample", "tml_jax.evaluate"):
    result = commands.run("-m", module, f"--workdir={workdir}")
    assert result.returncode == 2
    assert result.stderr.startswith("error: no checkpoint in")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_run_can_be_talked_to_and_evaluated(tmp_path):
  config = dataclasses.replace(
    _config(), train=dataclasses.replace(_config().train, steps=1)
  )
  data = tmp_path / "data"
  prepare.prepare(config, data_dir=str(data), sounds_root="/", processes=2)
  run = tmp_path / "run"
  source = tmp_path / "config.txt"
  source.write_text(config_text.to_text(config))
  common = (f"--workdir={run}", f"--data_dir={data}")
  trained = commands.run(
    "-m", "tml_jax.train", f"--config={source}", *common, timeout=600
  )
  assert trained.returncode == 0, trained.stderr

  with wave.open(str(tmp_path / "user.wav"), "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(16000)
    noise = np.random.default_rng(0).normal(size=16000) * 1000
    file.writeframes(noise.astype("<i2").tobytes())
  said = commands.run(
    *("-m", "tml_jax.sample", f"--workdir={run}"),
    f"--input={tmp_path}/user.wav",
    *("--text=0.5:hello", "--tail=1", f"--out={tmp_path}/said"),
    *("--tools=calculator,clock,timer", "--tool_delay=0.4", "--realtime"),
    timeout=600,
  )
  assert said.returncode == 0, said.stderr
  assert "times real time" in said.stdout and "user types" in said.stdout
  assert "of 10 deadlines missed" in said.stdout
  with wave.open(str(tmp_path / "said" / "agent.wav")) as file:
    assert file.getnframes() == 10 * 3200
  log = ticks.read(tmp_path / "said" / "ticks.jsonl")
  assert len(log.ticks) == 10 and log.provenance["seed"] == 0
  assert log.ticks[2].typed == "hello"
  replayed = commands.run(
    *("-m", "tml_jax.sample", *common, "--scenario=fresh:3"),
    *(f"--out={tmp_path}/scenario", "--vocoder=griffin_lim"),
    timeout=600,
  )
  assert replayed.returncode == 0, replayed.stderr
  assert len(list((tmp_path / "scenario").iterdir())) == 5

  other = tmp_path / "other"
  shutil.copytree(data, other)
  with open(other / "tokenizer.model", "ab") as file:
    file.write(b"\xa0\x06\x00")  # a field that sentencepiece passes over
  assert (run / "tokenizer.model").read_bytes() == (
    data / "tokenizer.model"
  ).read_bytes()  # the run has its own, whatever is in the data
  refused = commands.run(
    *("-m", "tml_jax.sample", f"--workdir={run}", f"--data_dir={data}"),
    f"--tokenizer={other}/tokenizer.model",
    *(f"--input={tmp_path}/user.wav", f"--out={tmp_path}/refused"),
    timeout=600,
  )
  assert refused.returncode == 2
  assert "is not the tokenizer of" in refused.stderr
  assert len(refused.stderr.splitlines()) == 1

  evaluate_again = ("-m", "tml_jax.evaluate", *common, "--count=3")
  evaluated = commands.run(*evaluate_again, timeout=600)
  assert evaluated.returncode == 0, evaluated.stderr
  assert "always_talking" in evaluated.stdout
  numbers = json.loads((run / "evaluation.json").read_text())
  assert numbers["step"] == 1 and numbers["count"] == 3
  assert len(numbers["conversations"]) == 3
  recorded = numbers["metrics"]["reply"]["recorded"]
  assert recorded["timed_hit_0.2"]["value"] == 1
  page = (run / "evaluation.html").read_text()
  assert page.count("data:image/png;base64,") == 4 and "://" not in page
  # Cut in the middle: what was held before is not held again.
  logs = sorted((run / "evaluation" / "ticks" / "reply").iterdir())
  assert [log.name for log in logs] == [
    f"heldout-0-{i}.jsonl" for i in range(3)
  ]
  logs[1].unlink()
  times = [log.stat().st_mtime_ns for log in (logs[0], logs[2])]
  again = commands.run(*evaluate_again, timeout=600)
  assert again.returncode == 0, again.stderr
  assert "2 conversations were there from before" in again.stdout
  assert [log.stat().st_mtime_ns for log in (logs[0], logs[2])] == times
  renewed = json.loads((run / "evaluation.json").read_text())
  assert renewed["metrics"] == numbers["metrics"]
