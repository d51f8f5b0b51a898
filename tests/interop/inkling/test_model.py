"""Inkling in and out, with transformers as the oracle on both sides."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from tml_jax import errors
from tml_jax import workdir as workdir_lib
from tml_jax.config import Dtype
from tml_jax.config import text as config_text
from tml_jax.interop.inkling import destination, exporting, safetensors_files
from tml_jax.interop.inkling import importing as importing_lib
from tml_jax.interop.inkling import model as model_lib
from tml_jax.training import checkpoint, trained
from tml_jax.training import state as state_lib

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from tests.helpers import hf, importing  # noqa: E402
from tests.helpers import inkling as oracle  # noqa: E402

TOLERANCE = 1e-4
TEXT_ROWS = hf.VOCAB["unpadded_vocab_size"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
  """A text-only checkpoint: directory and transformers' model."""
  path = tmp_path_factory.mktemp("text")
  return path, hf.save_text(path)


@pytest.fixture(scope="module")
def imported(text, tmp_path_factory):
  """The text-only checkpoint imported on eight devices."""
  workdir = tmp_path_factory.mktemp("imported") / "run"
  planned = importing.import_(text[0], workdir, data=2, fsdp=4)
  return workdir, planned


@pytest.mark.slow
def test_logits_equal_those_of_transformers(text, imported):
  _, model = text
  workdir, planned = imported
  tokens = np.random.default_rng(0).integers(9, TEXT_ROWS, (2, 29))
  expected = oracle.logits_of(model, tokens)
  assert expected.shape[-1] == TEXT_ROWS
  model_config = planned.config.model
  actual = model_lib.text_logits(
    model_config, importing.variables_of(workdir), tokens
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
  actual = traverse_util.flatten_dict(importing.variables_of(workdir))
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
  importing.import_(text[0], tmp_path / "eight", **mesh)
  importing.one_device(monkeypatch)
  importing.import_(text[0], tmp_path / "one")
  expected = importing.variables_of(tmp_path / "one")
  for other in (
    importing.variables_of(tmp_path / "eight"),
    importing.variables_of(imported[0]),
  ):
    jax.tree.map(np.testing.assert_array_equal, other, expected)


@pytest.mark.slow
def test_each_device_gets_its_slices_of_a_file_read_in_bits(
  text, imported, tmp_path, monkeypatch
):
  """Runs and steps of a few bytes: the joints are all exercised."""
  monkeypatch.setattr(safetensors_files, "_MIN_RUN_BYTES", 64)
  monkeypatch.setattr(safetensors_files, "CHUNK_BYTES", 512)
  monkeypatch.setattr(importing_lib, "_STEP_BYTES", 1024)
  importing.import_(text[0], tmp_path / "bits", tensor=2, expert=2, fsdp=2)
  expected = importing.variables_of(imported[0])
  found = importing.variables_of(tmp_path / "bits")
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_multimodal_round_trip(tmp_path):
  """Towers and MTP layers in, out, and into transformers again."""
  source = tmp_path / "hf"
  model = hf.save_multimodal(source)
  assert len(list(source.glob("model-*.safetensors"))) > 1
  planned = importing.import_(source, tmp_path / "run", fsdp=8)
  ours = importing.variables_of(tmp_path / "run")
  check_multimodal(
    model,
    config=planned.config.model,
    variables=state_lib.unrolled(ours, config=planned.config),
  )

  out = tmp_path / "out"
  exporting.run(
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
  importing.import_(out, tmp_path / "again", fsdp=8)
  back = importing.variables_of(tmp_path / "again")
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
  actual = model_lib.multimodal_logits(
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
  imported, tmp_path, monkeypatch
):
  workdir, planned = imported
  # The tower is not what is looked at here, and of the widths it has here.
  monkeypatch.setattr(exporting, "_WIDTHS", planned.config.model.hmlp_widths)
  out = tmp_path / "out"
  line = exporting.run(
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
  query = importing.variables_of(workdir)["params"]["trunk"]["layer_01"][
    "attention"
  ]
  expected = query["query"].reshape(48, 48).T
  np.testing.assert_array_equal(found, expected.astype(found.dtype))
  assert not list(tmp_path.glob(".*partial"))


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
      importing.import_(text[0], tmp_path / "run", data=8)
  assert not (tmp_path / "run").exists()
  importing.import_(text[0], tmp_path / "run", data=8)
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
    state_lib.unrolled(importing.variables_of(workdir), config=planned.config),
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
    weights.check(
      {"params": abstract.params, "router": abstract.router}, config=config
    )
  weights.close()
  assert "(model.expert_d_ff 24 -> 32)" in str(error.value)
