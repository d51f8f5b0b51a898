"""Which tokenizer a run has, and what happens with another."""

import json
import shutil

import pytest

from tests.helpers import commands, hugging_face, small_data, small_run
from tml_jax import errors
from tml_jax import workdir as workdir_lib
from tml_jax.streams import tokenizer
from tml_jax.training import run_tokenizer


@pytest.fixture(name="place")
def _place(tmp_path):
  """Prepared data and two tokenizers that are not theirs."""
  config = small_data.config().streams
  (tmp_path / "data").mkdir()
  for name, text in (("data/tokenizer", "one"), ("other", "two words")):
    tokenizer.train([text], path=str(tmp_path / f"{name}.model"), config=config)
  hugging_face.write(tmp_path / "theirs.json")
  (tmp_path / "run").mkdir()
  return tmp_path


def _keep(place, name):
  run_tokenizer.keep((place / name).read_bytes(), run=place / "run")


def _of_run(place, given=""):
  return run_tokenizer.of_run(
    str(place / "run"), given=given, data_dir=str(place / "data")
  )


def test_a_run_has_its_own(place):
  assert _of_run(place) == str(place / "data" / "tokenizer.model")
  assert _of_run(place, given="x") == "x"
  _keep(place, "other.model")
  own = str(place / "run" / "tokenizer.model")
  assert _of_run(place) == own
  assert _of_run(place, given=str(place / "other.model")) == own  # the same
  theirs = str(place / "theirs.json")
  with pytest.raises(errors.UserError) as error:
    _of_run(place, given=theirs)
  for file in (own, theirs):
    assert tokenizer.described(file) in str(error.value)
  with pytest.raises(errors.UserError, match="no tokenizer at"):
    _of_run(place, given=str(place / "none"))


def test_one_at_a_time(place):
  _keep(place, "other.model")
  _keep(place, "theirs.json")  # a run without checkpoints was started anew
  assert _of_run(place) == str(place / "run" / "tokenizer.json")
  stamp = (place / "run" / "tokenizer.json").stat().st_mtime_ns
  _keep(place, "theirs.json")
  assert (place / "run" / "tokenizer.json").stat().st_mtime_ns == stamp
  shutil.copy(place / "other.model", place / "run" / "tokenizer.model")
  with pytest.raises(errors.UserError, match="has one tokenizer: move"):
    _of_run(place)


def test_a_new_run_takes_what_is_given_then_that_of_its_weights(place, caplog):
  def to_train(given="", init_from="", is_begun=False):
    return run_tokenizer.to_train(
      str(place / "new"),
      is_begun=is_begun,
      init_from=init_from,
      given=given,
      data_dir=str(place / "data"),
    )

  data, other = place / "data" / "tokenizer.model", str(place / "other.model")
  assert to_train() == str(data) and to_train(given=other) == other
  assert to_train(init_from=str(place / "run")) == str(data)
  assert not caplog.records
  (place / "run" / "checkpoints" / "0").mkdir(parents=True)
  assert to_train(init_from=str(place / "run")) == str(data)
  assert "came without a tokenizer" in caplog.text
  _keep(place, "theirs.json")
  own = str(place / "run" / "tokenizer.json")
  for path in (place / "run", place / "run" / "checkpoints" / "0"):
    assert to_train(init_from=str(path)) == own
  caplog.clear()
  assert to_train(init_from=str(place / "run"), given=other) == other
  assert "their text rows mean other text" in caplog.text
  # What was left by a start that saved nothing does not count.
  shutil.copytree(place / "run", place / "new")
  assert to_train() == str(data)
  assert to_train(is_begun=True) == str(place / "new" / "tokenizer.json")


@pytest.mark.slow
def test_trained_resumed_and_sampled_with_a_file_of_others(data_dir, tmp_path):
  theirs = tmp_path / "theirs.json"
  hugging_face.write(theirs)
  run = tmp_path / "run"
  places = (f"--workdir={run}", f"--data_dir={data_dir}")
  train = ("-m", "tml_jax.train", *small_run.FLAGS, *places)
  train += ("--config.train.checkpoint_every=2",)
  small = ("--config.streams.text_vocab_size=200", "--config.train.steps=2")
  refused = commands.run(*train, *small, f"--tokenizer={theirs}")
  assert refused.returncode == 2
  assert "more than streams.text_vocab_size = 200" in refused.stderr
  assert len(refused.stderr.splitlines()) == 1 and not run.exists()

  given = (*train, f"--tokenizer={theirs}")
  first = commands.run(*given, "--config.train.steps=2", timeout=600)
  assert first.returncode == 0, first.stderr
  assert (run / "tokenizer.json").read_bytes() == theirs.read_bytes()
  state = run / "checkpoints" / "2" / workdir_lib.LOADER_STATE
  identity = json.loads(state.read_text())["identity"]
  assert identity["tokenizer"] == tokenizer.digest(str(theirs))
  theirs.rename(tmp_path / "moved.json")  # the run needs it no longer
  resumed = commands.run(*train, "--config.train.steps=3", timeout=600)
  assert resumed.returncode == 0 and "resumed from step 2" in resumed.stderr
  other = commands.run(
    *(*train, "--config.train.steps=4"),
    f"--tokenizer={data_dir}/tokenizer.model",
  )
  assert other.returncode == 2 and "is not the tokenizer of" in other.stderr
  for kind in ("Hugging Face", "sentencepiece"):
    assert kind in other.stderr

  sample = ("-m", "tml_jax.sample", *places, "--scenario=heldout:0")
  sampled = commands.run(*sample, f"--out={tmp_path}/out", timeout=600)
  assert sampled.returncode == 0, sampled.stderr
  # A copy that was exchanged is found by what the checkpoint says.
  (run / "tokenizer.json").unlink()
  shutil.copy(data_dir / "tokenizer.model", run)
  refused = commands.run(*sample, f"--out={tmp_path}/again", timeout=600)
  assert refused.returncode == 2
  assert "was not trained with sentencepiece" in refused.stderr
