"""Sources that no import takes: one error, and nothing is written."""

import json
import pathlib
import shutil

import pytest

from tests.helpers import hugging_face, importing, small_run
from tml_jax import errors
from tml_jax.interop.inkling import importing as importing_lib
from tml_jax.interop.inkling import safetensors_files

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from tests.helpers import hf  # noqa: E402


@pytest.fixture(scope="module")
def text(tmp_path_factory):
  """A text-only checkpoint: its directory."""
  path = tmp_path_factory.mktemp("text")
  hf.save_text(path)
  return path


@pytest.fixture
def broken(text, tmp_path):
  """A copy of the text-only checkpoint, to break."""
  return pathlib.Path(shutil.copytree(text, tmp_path / "broken"))


def refused(src, tmp_path):
  """The message; nothing was written."""
  workdir = tmp_path / "new" / "run"
  with pytest.raises(errors.UserError) as error:
    importing.import_(src, workdir, data=8)
  assert not workdir.parent.exists()
  return str(error.value)


def edit(path, change):
  values = json.loads(path.read_text())
  change(values)
  path.write_text(json.dumps(values))


def test_missing_extra_and_wrong_tensors_are_one_error(broken, tmp_path):
  from safetensors.torch import load_file, save_file

  index = broken / safetensors_files.INDEX
  weight_map = json.loads(index.read_text())["weight_map"]
  gone = "model.layers.1.self_attn.k_proj.weight"
  wrong = "model.layers.2.mlp.gate.weight"
  for name in (gone, wrong):
    path = broken / weight_map[name]
    tensors = load_file(path)
    if name == gone:
      del tensors[name], weight_map[name]
    else:
      tensors[name] = torch.zeros(3, 4)
      tensors["model.layers.2.extra"] = torch.zeros(5)
      weight_map["model.layers.2.extra"] = weight_map[wrong]
    save_file(tensors, path)
  edit(index, lambda values: values.update(weight_map=weight_map))
  message = refused(broken, tmp_path)
  assert f"missing tensors: {gone}" in message
  assert "unexpected tensors: model.layers.2.extra" in message
  assert f"{wrong} is (3, 4), config.json gives (10, 48)" in message


def test_a_truncated_file_is_refused(broken, tmp_path):
  path = sorted(broken.glob("model-*"))[1]
  path.write_bytes(path.read_bytes()[:-1])
  assert f"{path.name} is truncated" in refused(broken, tmp_path)


def test_missing_index_entries_are_listed(broken, tmp_path):
  index = broken / safetensors_files.INDEX
  names = ("lm_head.weight", "model.norm.weight")

  def change(values):
    for name in names:
      del values["weight_map"][name]

  edit(index, change)
  message = refused(broken, tmp_path)
  assert f"missing tensors: {', '.join(names)}" in message
  # And where it is, in a file that holds listed tensors too.
  assert f"not in {safetensors_files.INDEX}: model.norm.weight" in message


@pytest.mark.parametrize(
  "change, shown",
  [
    (dict(hidden_act="gelu"), "hidden_act = 'gelu' (supported: 'silu')"),
    (dict(quantization_config={"bits": 4}), "quantization_config"),
    (dict(hidden_size=64), "is (48,), config.json gives (64,)"),
    (dict(num_attention_heads=None), "num_attention_heads is missing"),
  ],
)
def test_settings_that_do_not_fit_are_named(broken, tmp_path, change, shown):
  def apply(values):
    values.update(change)
    for name in [key for key, value in change.items() if value is None]:
      del values[name]

  edit(broken / "config.json", apply)
  assert shown in refused(broken, tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "7", '{"a": '])
def test_a_config_that_is_none_is_refused(broken, tmp_path, content):
  (broken / "config.json").write_text(content)
  assert "config.json is broken" in refused(broken, tmp_path)


def test_a_type_that_config_does_not_name_is_refused(broken, tmp_path):
  """float16 has as many bytes as bfloat16 and other numbers."""
  from safetensors.torch import load_file, save_file

  path = sorted(broken.glob("model-*"))[0]
  tensors = load_file(path)
  name = next(iter(tensors))
  tensors[name] = tensors[name].to(torch.float16)
  save_file(tensors, path)
  message = refused(broken, tmp_path)
  assert "config.json names" in message
  assert f"and {name} is float16 (1 tensors)" in message


def test_a_tokenizer_comes_along_and_is_checked(broken, tmp_path, caplog):
  def plan(**given):
    return importing_lib.plan(
      small_run.config(data=8), src=str(broken), model_from_src=True, **given
    )

  assert plan().tokenizer is None
  assert "has no tokenizer.json nor tokenizer.model" in caplog.text
  file = broken / "tokenizer.json"
  made = hugging_face.write(file)
  message = refused(broken, tmp_path)  # 96 rows of text
  rows = made.get_vocab_size()
  assert f"{file} has {rows} tokens, more than" in message
  assert "text_vocab_size = 96" in message
  words = {f"word{i}": i for i in range(96)}
  content = {
    "model": {"type": "WordLevel", "vocab": words, "unk_token": "word0"}
  }
  content |= {"pre_tokenizer": {"type": "Whitespace"}, "version": "1.0"}
  file.write_text(json.dumps(content))
  assert plan().tokenizer == file.read_bytes()
  file.write_text(json.dumps(content)[:-9])
  assert "is not a tokenizer.json of Hugging Face" in refused(broken, tmp_path)
  other = tmp_path / "other.json"
  other.write_text(json.dumps(content))
  assert plan(tokenizer_file=str(other)).tokenizer == other.read_bytes()


def test_places_that_cannot_be_written_are_refused(text, tmp_path):
  for make, shown in (
    (lambda path: (path / "checkpoints" / "3").mkdir(parents=True), "holds"),
    (lambda path: (path.mkdir(), (path / "x").touch()), "is not empty"),
    (lambda path: path.touch(), "is a file"),
  ):
    workdir = tmp_path / shown.replace(" ", "")
    make(workdir)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(errors.UserError, match=shown):
      importing.import_(text, workdir, data=8)
    assert sorted(tmp_path.rglob("*")) == before
  with pytest.raises(errors.UserError, match="cannot be written"):
    importing.import_(text, "/proc/nowhere/run", data=8)


def test_a_config_of_another_model_is_refused_with_every_difference(text):
  with pytest.raises(errors.UserError) as error:
    importing_lib.plan(small_run.config(), src=str(text), model_from_src=False)
  message = str(error.value)
  for shown in ("d_model is 32", "num_layers is 2", "text_vocab_size is 64"):
    assert shown in message
