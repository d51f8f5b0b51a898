"""Multi-token prediction against transformers' `MtpModel`, layer by layer."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from tml_jax.interop.inkling import model as model_lib
from tml_jax.interop.inkling import names, safetensors_files

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from transformers import (  # noqa: E402
  cache_utils,
  masking_utils,
  modeling_layers,
)

from tests.helpers import hf  # noqa: E402

TOLERANCE = 1e-4
LENGTH = 29
# One local layer, one global, one local again. Log scaling from a floor within
# the sequence, so that the position of a query counts.
MTP = dict(num_mtp_layers=3, mtp_local_layer_ids=[0, 2], log_scaling_n_floor=6)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
  """By window, shorter than the sequence and longer: theirs and ours."""
  result = {}
  for window in (8, 32):
    path = tmp_path_factory.mktemp(f"window{window}")
    main = hf.save_multimodal(path, **MTP, sliding_window_size=window)
    theirs = modeling_layers.MtpModel.from_pretrained(main).eval()
    config, variables = model_lib.from_hf(main.state_dict(), main.config)
    mtp = hf.our_model(path)
    config = dataclasses.replace(
      config,
      num_mtp_layers=mtp.num_mtp_layers,
      mtp_attention_pattern=mtp.mtp_attention_pattern,
    )
    variables = with_mtp(path, config=config, variables=variables)
    result[window] = main, theirs, config, variables
  return result


def with_mtp(path, *, config, variables):
  """Our variables, MTP layers as an import reads them."""
  flat = traverse_util.flatten_dict(variables)
  reader = safetensors_files.Reader(safetensors_files.Source(str(path)))
  rules = names.rules(
    config,
    layout=names.Layout.RELEASED,
    towers=True,
    scan_layers=False,
  )
  for rule in rules:
    if ".mtp." in rule.name:
      tensor = reader.read(rule.name, box=tuple((0, n) for n in rule.shape))
      flat[rule.path] = rule.dims.view(tensor)
  return traverse_util.unflatten_dict(flat)


def both(models, window):
  """Hidden states and logits of every layer: theirs and ours [K, T, ...].

  Of layer k those at positions that have all their tokens: T - 1 - k.
  """
  main, theirs, config, variables = models[window]
  tokens = np.random.default_rng(1).integers(9, 96, (1, LENGTH))
  expected = []
  with torch.no_grad():
    out = main.model.language_model(torch.tensor(tokens))
    hidden = out.last_hidden_state
    trunk = hidden.numpy()
    cache = cache_utils.MtpCache(config=main.config.get_mtp_config())
    for k in range(len(theirs.layers)):
      # Positions without a further token are cut off below.
      ids = np.roll(tokens, -1 - k, axis=1)
      positions = torch.arange(LENGTH)[None] + 1 + k
      hidden = theirs.forward_layer(
        k, hidden, positions, cache, input_ids=torch.tensor(ids)
      )
      logits = theirs._project_to_logits(hidden)
      expected.append((hidden[0].numpy(), logits[0].numpy()))
  model = model_lib._model(config)
  batch = model_lib.whole_segments(tokens)

  @jax.jit
  def run(variables, batch):
    h_BTD, _ = model.apply(variables, batch, method="hidden")
    h_KBTD = model.apply(
      variables, batch, hidden_BTD=h_BTD, method="mtp_hidden"
    )
    return h_BTD, h_KBTD, model.apply(variables, h_KBTD, method="logits")

  with jax.default_matmul_precision("float32"):
    h_BTD, h_KBTD, logits = run(variables, batch)
  np.testing.assert_allclose(h_BTD, trunk, atol=TOLERANCE, rtol=0)
  return expected, (h_KBTD[:, 0], logits[:, 0])


def check(expected, actual, *, layers):
  h_KTD, logits_KTV = actual
  for k in layers:
    hidden, logits = expected[k]
    end = LENGTH - 1 - k
    rows = logits.shape[-1]
    assert logits.std() > 0.3
    np.testing.assert_allclose(
      h_KTD[k, :end], hidden[:end], atol=TOLERANCE, rtol=0, err_msg=str(k)
    )
    np.testing.assert_allclose(
      logits_KTV[k, :end, :rows], logits[:end], atol=TOLERANCE, rtol=0
    )


@pytest.mark.slow
def test_layers_agree_within_the_window(models):
  expected, actual = both(models, 32)
  check(expected, actual, layers=range(3))


TABLE = masking_utils.LAYER_PATTERN_TO_MASK_FUNCTION_MAPPING["hybrid_sliding"]
KEY = "sliding_attention"


@pytest.mark.slow
def test_local_layers_agree_with_the_mask_of_the_main_model(
  models, monkeypatch
):
  """The mask that the main model makes for its own local layers."""
  mask = masking_utils.create_sliding_window_causal_mask
  monkeypatch.setitem(TABLE, KEY, mask)
  expected, actual = both(models, 8)
  check(expected, actual, layers=range(3))


@pytest.mark.slow
@pytest.mark.skipif(
  TABLE[KEY] is not masking_utils.create_causal_mask,
  reason="this transformers gives local MTP layers the mask of local layers",
)
def test_local_layers_of_theirs_see_beyond_their_window(models):
  """transformers gives local MTP layers the mask of global ones.

  `MtpModel` takes its masks from a table of `masking_utils`, which has
  `create_causal_mask` for "hybrid_sliding". So local MTP layers there see all
  that came before, with a relative bias of 0 beyond the window: they equal ours
  as long as the window holds everything, and then do not.
  """
  expected, actual = both(models, 8)
  theirs, ours = expected[0][0], np.asarray(actual[0][0])
  np.testing.assert_allclose(ours[:8], theirs[:8], atol=TOLERANCE, rtol=0)
  assert np.abs(ours[8:-1] - theirs[8:-1]).max(axis=-1).min() > 1e-2
