"""A trained vocoder opened for use.

For: `sample` and benchmarks, which make sound with it. Not for: going on with
training (`train_vocoder`). `training/trained.py` opens a run of the interaction
model.
"""

from typing import Any

from tml_jax import workdir


def load(path: str) -> tuple[Any, dict[str, Any]]:
  """The network of the vocoder at `path`, and its newest variables.

  Raises:
    errors.UserError: no finished checkpoint, or of another model.
  """
  import jax
  from flax import linen as nn

  from tml_jax.training import checkpoint
  from tml_jax.vocoder import network as network_lib
  from tml_jax.vocoder.config import VocoderConfig

  config = workdir.load_config(path, config_type=VocoderConfig)
  network = network_lib.Vocoder(config.model)
  example = network_lib.example(config.model, batch_size=1, frames=1)
  shapes = nn.meta.unbox(
    jax.eval_shape(network.init, jax.random.key(0), *example)
  )
  weights = checkpoint.Weights(path)
  weights.check({"router": {}} | shapes, config=config)
  variables = weights.restore(
    jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes)
  )
  weights.close()
  return network, variables
