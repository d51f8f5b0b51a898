"""Import, train from it, export: as a user does, each in a process."""

import json
import pathlib

import pytest

from tests.helpers import commands, hugging_face, small_run
from tests.helpers.inkling_runs import (
  INKLING,
  losses,
  run,
  save_text_model,
  tiny_model,
)

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")


@pytest.mark.slow
def test_import_train_and_export(tmp_path, data_dir):
  source, imported = str(tmp_path / "hf"), str(tmp_path / "imported")
  model = save_text_model(source, tiny_model())
  hugging_face.write(pathlib.Path(source) / "tokenizer.json", rows=310)
  theirs = (pathlib.Path(source) / "tokenizer.json").read_bytes()
  result = run(
    *INKLING,
    "--import",
    f"--src={source}",
    f"--workdir={imported}",
    *small_run.FLAGS,
  )
  assert "tensors read into" in result.stdout
  assert "flow_head" in result.stdout and "rows 960 to 1023" in result.stdout
  assert "the tokenizer came along as tokenizer.json" in result.stdout
  assert (tmp_path / "imported" / "tokenizer.json").read_bytes() == theirs

  # The first loss is the imported model's, not a fresh one's.
  train = ("-m", "tml_jax.train", *small_run.FLAGS, f"--data_dir={data_dir}")
  train += ("--config.train.checkpoint_every=2",)
  fresh = run(*train, "--config.train.steps=2", f"--workdir={tmp_path}/a")
  first = (
    *train,
    f"--init_from={imported}",
    f"--workdir={tmp_path}/b",
  )
  begun = run(*first, "--config.train.steps=2")
  assert "weights of step 0" in begun.stderr
  assert losses(begun)[0] != losses(fresh)[0]
  assert (tmp_path / "b" / "tokenizer.json").read_bytes() == theirs
  assert not (tmp_path / "b" / "tokenizer.model").exists()
  assert (tmp_path / "a" / "tokenizer.model").exists()
  # The same command goes on with the run's own weights.
  resumed = run(*first, "--config.train.steps=3")
  assert "resumed from step 2" in resumed.stderr

  refused = commands.run(
    *first[:-1], f"--workdir={tmp_path}/c", "--config.model.expert_d_ff=64"
  )
  assert refused.returncode == 2
  assert "(model.expert_d_ff 32 -> 64)" in refused.stderr
  assert not (tmp_path / "c").exists()

  # transformers knows one vision tower only.
  out = tmp_path / "out"
  export = (*INKLING, "--export", f"--out={out}", "--dtype=float32")
  refused = commands.run(*export, f"--workdir={imported}")
  assert refused.returncode == 2 and "model.hmlp_widths" in refused.stderr
  assert not out.exists()
  run(
    *INKLING,
    "--import",
    f"--src={source}",
    f"--workdir={tmp_path}/towers",
    *small_run.FLAGS,
    "--config.model.hmlp_widths=128,320,4800",
  )
  run(*export, f"--workdir={tmp_path}/towers", "--max_shard_gb=0.05")
  loaded = transformers.InklingForConditionalGeneration.from_pretrained(out)
  name = "layers.0.mlp.experts.gate_up_proj"
  expected = model.state_dict()[f"model.{name}"]
  found = loaded.state_dict()[f"model.language_model.{name}"]
  assert torch.equal(found, expected)
  assert len(list(out.glob("*.safetensors"))) > 1
  assert (out / "tokenizer.json").read_bytes() == theirs
  for tail in ("config.json", "model.safetensors.index.json"):
    assert json.loads((out / tail).read_text())


@pytest.mark.slow
def test_without_a_config_the_model_is_the_sources(tmp_path):
  source, imported = str(tmp_path / "hf"), str(tmp_path / "imported")
  save_text_model(source, tiny_model())
  command = (
    *INKLING,
    "--import",
    f"--src={source}",
    f"--workdir={imported}",
  )
  result = commands.run(*command)
  assert result.returncode == 2
  assert "need 512 devices and there are 1" in result.stderr
  assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
  "flags, shown",
  [
    ((), "give either --import or --export"),
    (("--import",), "--workdir is missing"),
    (("--import", "--workdir=NEW"), "--src is missing"),
    (("--import", "--workdir=NEW", "--src=nowhere"), "no such directory"),
    (
      ("--import", "--workdir=tests", "--src=x"),
      "--workdir=tests is not empty",
    ),
    (
      ("--import", "--workdir=gs://bucket/new", "--src=x"),
      "--workdir=gs://bucket/new is a URL, and this is made on a disk",
    ),
    (("--export", "--out=NEW"), "--workdir is missing"),
    (
      ("--export", "--workdir=tests", "--out=NEW"),
      "--workdir=tests has no config.txt",
    ),
  ],
)
def test_bad_flags_are_one_line(tmp_path, flags, shown):
  flags = [flag.replace("NEW", str(tmp_path / "new")) for flag in flags]
  result = commands.run(*INKLING, *flags)
  assert result.returncode == 2
  assert shown in result.stderr
  assert result.stderr.count("\n") == 1
  assert not list(tmp_path.iterdir())
