"""Inkling in and out, with transformers as the oracle on both sides."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.models import test_inkling_oracle as oracle
from tests.training import small
from tml_jax import config_text, errors, trained
from tml_jax import workdir as workdir_lib
from tml_jax.config import Dtype
from tml_jax.interop import (
  destination,
  inkling_export,
  inkling_import,
  inkling_model,
  safetensors_files,
)
from tml_jax.training import checkpoint
from tml_jax.training import state as state_lib

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from tests.interop import hf  # noqa: E402

TOLERANCE = 1e-4
TEXT_ROWS = hf.VOCAB["unpadded_vocab_size"]


def import_(src, workdir, **mesh):
  """Imports on the first devices; returns the plan."""
  planned = inkling_import.plan(
    small.config(**mesh), src=str(src), model_from_src=True
  )
  directory = destination.check(str(workdir), flag="--workdir")
  inkling_import.run(planned, directory=directory)
  return planned


def variables_of(workdir):
  """All weights, by path, as numpy arrays."""
  weights = checkpoint.Weights(str(workdir))
  wanted = {
    path: jax.ShapeDtypeStruct(shape, np.float32)
    for path, shape in weights.shapes.items()
  }
  tree = weights.restore(traverse_util.unflatten_dict(wanted))
  weights.close()
  return {"router": {}} | tree


def one_device(monkeypatch):
  """Meshes of one device in a process that has eight."""
  device = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: device)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
  """A text-only checkpoint: directory and transformers' model."""
  path = tmp_path_factory.mktemp("text")
  return path, hf.save_text(path)


@pytest.fixture(scope="module")
def imported(text, tmp_path_factory):
  """The text-only checkpoint imported on eight devices."""
  workdir = tmp_path_factory.mktemp("imported") / "run"
  planned = import_(text[0], workdir, data=2, fsdp=4)
  return workdir, planned


@pytest.mark.slow
def test_logits_equal_those_of_transformers(text, imported):
  _, model = text
  workdir, planned = imported
  tokens = np.random.default_rng(0).integers(9, TEXT_ROWS, (2, 29))
  expected = oracle.logits_of(model, tokens)
  assert expected.shape[-1] == TEXT_ROWS
  model_config = planned.config.model
  actual = inkling_model.text_logits(
    model_config, variables_of(workdir), tokens
  )
  assert expected.std() > 0.3
  np.testing.assert_allclose(
    actual[..., :TEXT_ROWS], expected, atol=TOLERANCE, rtol=0
  )


@pytest.mark.slow
def test_what_inkling_lacks_begins_as_in_a_fresh_run(imported):
  workdir, planned = imported
  config = planned.config
  assert config == workdir_lib.load_config(str(workdir))
  state = fresh_state(config)
  expected = traverse_util.flatten_dict({"params": state.params})
  actual = traverse_util.flatten_dict(variables_of(workdir))
  missing = [path for path in expected if path not in planned.rules]
  assert {path[1] for path in missing} == {"embed", "flow_head"}
  for path in missing:
    np.testing.assert_array_equal(actual[path], expected[path], str(path))
  for path in (("params", "embed", "table"), ("params", "unembedding")):
    axis = int(path[-1] == "unembedding")
    rows = [
      np.split(np.asarray(tree[path]), [TEXT_ROWS], axis)[1]
      for tree in (actual, expected)
    ]
    np.testing.assert_array_equal(*rows)


def fresh_state(config):
  from tml_jax.parallel import mesh as mesh_lib
  from tml_jax.training import optim

  abstract = state_lib.abstract(
    config,
    model=state_lib.create_model(config),
    optimizer=optim.create(config.train.optim, steps=config.train.steps),
    mesh=mesh_lib.create(config.mesh),
  )
  return state_lib.create(abstract, seed=config.train.seed)


@pytest.mark.slow
@pytest.mark.parametrize(
  "mesh", [dict(fsdp=2, expert=4), dict(tensor=2, expert=2, fsdp=2)]
)
def test_every_mesh_gives_the_same_weights(
  text, imported, tmp_path, monkeypatch, mesh
):
  import_(text[0], tmp_path / "eight", **mesh)
  one_device(monkeypatch)
  import_(text[0], tmp_path / "one")
  expected = variables_of(tmp_path / "one")
  for other in (variables_of(tmp_path / "eight"), variables_of(imported[0])):
    jax.tree.map(np.testing.assert_array_equal, other, expected)


@pytest.mark.slow
def test_each_device_gets_its_slices_of_a_file_read_in_bits(
  text, imported, tmp_path, monkeypatch
):
  """Runs and steps of a few bytes: the joints are all exercised."""
  monkeypatch.setattr(safetensors_files, "_MIN_RUN_BYTES", 64)
  monkeypatch.setattr(safetensors_files, "CHUNK_BYTES", 512)
  monkeypatch.setattr(inkling_import, "_STEP_BYTES", 1024)
  import_(text[0], tmp_path / "bits", tensor=2, expert=2, fsdp=2)
  expected = variables_of(imported[0])
  found = variables_of(tmp_path / "bits")
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_multimodal_round_trip(tmp_path):
  """Towers and MTP layers in, out, and into transformers again."""
  source = tmp_path / "hf"
  model = hf.save_multimodal(source)
  assert len(list(source.glob("model-*.safetensors"))) > 1
  planned = import_(source, tmp_path / "run", fsdp=8)
  ours = variables_of(tmp_path / "run")
  check_multimodal(
    model,
    config=planned.config.model,
    variables=state_lib.unrolled(ours, config=planned.config),
  )

  out = tmp_path / "out"
  inkling_export.run(
    planned.config,
    workdir=str(tmp_path / "run"),
    directory=destination.check(str(out), flag="--out"),
    dtype=Dtype.FLOAT32,
    shard_bytes=30_000_000,
  )
  assert len(list(out.glob("*.safetensors"))) > 2
  again = hf.load_multimodal(out).state_dict()
  for name, tensor in model.state_dict().items():
    if name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
      rows = tensor[:TEXT_ROWS], again[name][:TEXT_ROWS]
      assert torch.equal(*rows), name
      assert not torch.equal(tensor[TEXT_ROWS:], again[name][TEXT_ROWS:])
    else:
      assert torch.equal(tensor, again[name]), name
  first, second = (
    safetensors_files.Reader(safetensors_files.Source(str(path)))
    for path in (source, out)
  )
  assert first.entries.keys() == second.entries.keys()
  for name, entry in first.entries.items():
    box = tuple((0, n) for n in entry.shape)
    if ".mtp." in name:
      np.testing.assert_array_equal(
        first.read(name, box=box), second.read(name, box=box)
      )

  # And back: our own export keeps the control tokens.
  import_(out, tmp_path / "again", fsdp=8)
  back = variables_of(tmp_path / "again")
  for path in planned.rules:
    found, expected = back, ours
    for part in path:
      found, expected = found[part], expected[part]
    np.testing.assert_array_equal(found, expected)


def check_multimodal(model, *, config, variables):
  random = np.random.default_rng(3)
  tokens = random.integers(9, TEXT_ROWS, (2, 29))
  tokens[0, 3:9] = tokens[1, 20:22] = oracle.AUDIO
  tokens[0, 12:13] = tokens[1, 5:8] = oracle.IMAGE
  dmel = random.integers(0, 16, (8, 80))
  pixels = random.normal(size=(4, 2, 40, 40, 3)).astype(np.float32)
  expected = oracle.logits_of(
    model,
    tokens,
    audio_input_ids=torch.tensor(dmel)[None],
    pixel_values=torch.tensor(pixels),
  )
  actual = inkling_model.multimodal_logits(
    config,
    variables,
    tokens,
    dmel=dmel,
    pixel_patches=pixels,
    audio_token_id=oracle.AUDIO,
    image_token_id=oracle.IMAGE,
  )
  np.testing.assert_allclose(
    actual[..., :TEXT_ROWS], expected, atol=TOLERANCE, rtol=0
  )


@pytest.mark.slow
def test_bfloat16_export_rounds_only_what_the_published_files_round(
  imported, tmp_path
):
  workdir, planned = imported
  out = tmp_path / "out"
  line = inkling_export.run(
    planned.config,
    workdir=str(workdir),
    directory=destination.check(str(out), flag="--out"),
    dtype=Dtype.BFLOAT16,
    shard_bytes=10**9,
  )
  assert "left out: embed/clock, embed/dmel, flow_head" in line
  reader = safetensors_files.Reader(safetensors_files.Source(str(out)))
  for name, entry in reader.entries.items():
    kind = (
      "float32"
      if "gate.bias" in name or "gate.global" in name
      else ("bfloat16")
    )
    assert entry.dtype == kind, name
  name = "model.llm.layers.1.attn.wq_du.weight"
  found = reader.read(name, box=((0, 48), (0, 48)))
  query = variables_of(workdir)["params"]["trunk"]["layer_01"]["attention"]
  expected = query["query"].reshape(48, 48).T
  np.testing.assert_array_equal(found, expected.astype(found.dtype))
  assert not list(tmp_path.glob(".*partial"))


# --------------------------------------------------------------- bad input


@pytest.fixture
def broken(text, tmp_path):
  """A copy of the text-only checkpoint, to break."""
  return pathlib.Path(shutil.copytree(text[0], tmp_path / "broken"))


def refused(src, tmp_path):
  """The message; nothing was written."""
  workdir = tmp_path / "new" / "run"
  with pytest.raises(errors.UserError) as error:
    import_(src, workdir, data=8)
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
      import_(text[0], workdir, data=8)
    assert sorted(tmp_path.rglob("*")) == before
  with pytest.raises(errors.UserError, match="cannot be written"):
    import_(text[0], "/proc/nowhere/run", data=8)


def test_a_config_of_another_model_is_refused_with_every_difference(text):
  with pytest.raises(errors.UserError) as error:
    inkling_import.plan(small.config(), src=str(text[0]), model_from_src=False)
  message = str(error.value)
  for shown in ("d_model is 32", "num_layers is 2", "text_vocab_size is 64"):
    assert shown in message


@pytest.mark.slow
def test_a_killed_import_leaves_nothing_and_can_be_repeated(
  text, tmp_path, monkeypatch
):
  read = safetensors_files.Reader.read

  def fail(self, name, *, box):
    if "layers.2" in name:
      raise KeyboardInterrupt
    return read(self, name, box=box)

  with monkeypatch.context() as patch:
    patch.setattr(safetensors_files.Reader, "read", fail)
    with pytest.raises(KeyboardInterrupt):
      import_(text[0], tmp_path / "run", data=8)
  assert not (tmp_path / "run").exists()
  import_(text[0], tmp_path / "run", data=8)
  assert sorted(item.name for item in (tmp_path / "run").iterdir()) == [
    "checkpoints",
    config_text.FILE_NAME,
    workdir_lib.STARTS,
  ]
  assert not list(tmp_path.glob(".*partial"))


@pytest.mark.slow
def test_imported_weights_are_no_run_to_resume(imported):
  workdir, planned = imported
  with pytest.raises(errors.UserError, match="--init_from="):
    workdir_lib.create(str(workdir), planned.config)


@pytest.mark.slow
def test_imported_weights_can_be_used_as_a_runs(imported):
  """What `sample` and `evaluate` open."""
  workdir, planned = imported
  agent = trained.load(planned.config, path=str(workdir), data_dir="")
  assert agent.step == 0
  jax.tree.map(
    np.testing.assert_array_equal,
    agent.variables,
    state_lib.unrolled(variables_of(workdir), config=planned.config),
  )


@pytest.mark.slow
def test_weights_of_another_shape_are_refused(imported):
  workdir, planned = imported
  config = dataclasses.replace(
    planned.config,
    model=dataclasses.replace(planned.config.model, expert_d_ff=32),
  )
  abstract = jax.eval_shape(lambda: fresh_state(config))
  weights = checkpoint.Weights(str(workdir / "checkpoints" / "0"))
  with pytest.raises(errors.UserError) as error:
    weights.check({"params": abstract.params, "router": abstract.router})
  weights.close()
  message = str(error.value)
  for layer in ("layer_01", "layer_02"):
    assert f"{layer}/mlp/gate: (8, 48, 24) in the checkpoint" in message
