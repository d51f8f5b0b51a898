"""A run's weights as Inkling's safetensors, tensor by tensor.

For: `run`, called by `python -m tml_jax.interop.inkling --export`. Not for:
what Inkling does not have (flow head, clock, streams): it stays in the
workdir. Start at `run`.
"""

import json
import pathlib
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util

from tml_jax import errors
from tml_jax.config import Config, Dtype, Position
from tml_jax.interop.inkling import config as config_lib
from tml_jax.interop.inkling import destination, safetensors_files
from tml_jax.interop.inkling import names as names_lib
from tml_jax.training import checkpoint, run_tokenizer

# Of Inkling's hMLP: 75, 300 and 4,800 values a patch, up to a multiple of 64.
_WIDTHS = (128, 320, 4800)
_NUMPY = {
  Dtype.FLOAT32: np.dtype(np.float32),
  Dtype.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}


def run(
  config: Config,
  *,
  workdir: str,
  directory: pathlib.Path,
  dtype: Dtype,
  shard_bytes: int,
) -> str:
  """Writes files, index, config.json, tokenizer; returns a line about it.

  Args:
    config: of the run.
    workdir: of the run, or one of its checkpoints.
    directory: proved by `destination.check`; appears at the end.
    dtype: of what is not float32 in the published files.
    shard_bytes: of one file.

  Raises:
    errors.UserError: no checkpoint there, or one of another model, or what
      Inkling does not have.
  """
  if config.model.hmlp_widths != _WIDTHS:
    raise errors.UserError(
      f"model.hmlp_widths = {config.model.hmlp_widths}: transformers' vision"
      f" tower has the widths {_WIDTHS}, and no setting for others; only such"
      " a run can be exported"
    )
  if config.model.position is not Position.RELATIVE_BIAS:
    raise errors.UserError(
      f"model.position = {config.model.position}: Inkling has a relative bias;"
      " only such a run can be exported"
    )
  weights = checkpoint.Weights(workdir)
  rules = names_lib.rules(
    config.model,
    layout=names_lib.Layout.RELEASED,
    towers=True,
    scan_layers=config.train.execution.scan_layers,
  )
  by_name: dict[str, list[names_lib.Rule]] = {}
  for rule in _by_parameter(rules):
    by_name.setdefault(rule.name, []).append(rule)
  tensors = {
    name: (
      same[0].shape,
      np.dtype(np.float32)
      if name.endswith(names_lib.FLOAT32)
      else _NUMPY[dtype],
    )
    for name, same in by_name.items()
  }
  loader = _Loader(weights)

  def load(name: str) -> np.ndarray:
    shape, kind = tensors[name]
    result = np.empty(shape, kind)
    arrays = loader.load([rule.path for rule in by_name[name]])
    for rule in by_name[name]:
      rule.dims.view(result)[...] = arrays[rule.path][rule.index]
    return result

  written = destination.partial(directory)
  safetensors_files.write(
    written, tensors=tensors, load=load, limit=shard_bytes
  )
  text = json.dumps(config_lib.to_json(config, dtype=str(dtype)), indent=2)
  (written / "config.json").write_text(text + "\n", encoding="utf-8")
  kept = run_tokenizer.kept(run_tokenizer.workdir_of(workdir))
  if kept:
    run_tokenizer.keep(pathlib.Path(kept).read_bytes(), run=written)
  destination.finish(written, directory=directory)
  weights.close()
  left = set(weights.shapes) - {rule.path for rule in rules}
  names = sorted({"/".join(path[1:3]) for path in left})
  return (
    f"{directory}: {len(tensors)} tensors of step {weights.step}; not"
    f" Inkling's and left out: {', '.join(names)}"
    + ("" if kept else "; the run has no tokenizer of its own to go along")
  )


def _by_parameter(
  rules: list[names_lib.Rule],
) -> list[names_lib.Rule]:
  """The layers of one stacked parameter next to each other."""
  order: dict[tuple[str, ...], int] = {}
  for rule in rules:
    order.setdefault(rule.path, len(order))
  return sorted(rules, key=lambda rule: (order[rule.path], rule.index))


class _Loader:
  """Arrays of a checkpoint; keeps those of the last call."""

  def __init__(self, weights: checkpoint.Weights):
    self._weights = weights
    self._kept: dict[tuple[str, ...], np.ndarray] = {}

  def load(self, paths: list[tuple[str, ...]]) -> dict[Any, np.ndarray]:
    missing = [path for path in paths if path not in self._kept]
    self._kept = {p: self._kept[p] for p in paths if p in self._kept}
    if missing:
      wanted = {
        path: jax.ShapeDtypeStruct(self._weights.shapes[path], np.float32)
        for path in missing
      }
      tree = self._weights.restore(traverse_util.unflatten_dict(wanted))
      self._kept |= traverse_util.flatten_dict(tree)
    return self._kept
