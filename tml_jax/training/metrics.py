"""What a step did, as named numbers; written to JSONL and TensorBoard.

For: turning the sums of pretraining into scalars, and keeping the scalars of
any training. Not for: metrics of a conversation (`evals`). Start reading at
`summarise`.
"""

import json
import math
import time
from typing import Any

import numpy as np
import tensorboardX
from absl import logging

from tml_jax import buckets, files
from tml_jax import workdir as workdir_lib
from tml_jax.models import embed
from tml_jax.streams import frame
from tml_jax.training import objective as objective_lib

_PUSH_SECONDS = 300.0  # all of a start's file is copied again
EVALUATION = "eval/"  # what names of an evaluation inside training begin with


def summarise(sums: Any) -> dict[str, float]:
  """Scalars of `losses.Sums` of one step, fetched to the host.

  Names: loss/*, accuracy/*, router/*. `loss/say` is of one kind of target
  (`frame.Kind`), `loss/source/NAME` of all targets of one entry of the mixture,
  `loss/source/NAME/flow` of its speech; both unweighted.
  `router/<kind>/max_over_mean` is the largest share of an expert over the equal
  share, worst layer, among tokens of one kind; 1 is perfect balance.
  `router/<kind>/unused_experts` is the share of experts, all layers, that no
  token of the kind chose. `loss/mtp_D` and `accuracy/mtp_D` are of the layer
  that predicts D tokens further than the model itself.
  """
  result = {
    "loss/flow": float(sums.flow / max(1.0, float(sums.flow_count))),
    "tokens": float(sums.tokens),
  }
  for kind in frame.Kind:
    count = float(sums.count[kind])
    if count:
      name = kind.name.lower()
      result[f"loss/{name}"] = float(sums.cross_entropy[kind]) / count
      result[f"accuracy/{name}"] = float(sums.correct[kind]) / count
  sources = sums.by_source
  for i, name in enumerate(sources.names):
    if count := float(sources.count[i]):
      loss = float(sources.cross_entropy[i]) / count
      result[f"loss/source/{name}"] = loss
      result[f"accuracy/source/{name}"] = float(sources.correct[i]) / count
    if count := float(sources.flow_count[i]):
      result[f"loss/source/{name}/flow"] = float(sources.flow[i]) / count
  further = sums.further
  for i, count in enumerate(np.asarray(further.count)):
    if count:
      loss = float(further.cross_entropy[i] / count)
      result[f"loss/mtp_{i + 1}"] = loss
      result[f"accuracy/mtp_{i + 1}"] = float(further.correct[i] / count)
  load = np.asarray(sums.load_KLE)
  if load.shape[1]:
    result["router/all/max_over_mean"] = _imbalance(load.sum(axis=0))
    for kind in embed.Kind:
      if load[kind].sum():
        name = f"router/{kind.name.lower()}"
        result[f"{name}/max_over_mean"] = _imbalance(load[kind])
        result[f"{name}/unused_experts"] = float((load[kind] == 0).mean())
    dead = (load.sum(axis=0) == 0).mean()
    result["router/unused_experts"] = float(dead)
    if sums.balance:
      result["loss/load_balance"] = float(sums.balance)
  return result


def _imbalance(load_LE: np.ndarray) -> float:
  mean = np.maximum(load_LE.mean(axis=-1), 1e-9)
  return float((load_LE.max(axis=-1) / mean).max())


class Writer:
  """Appends scalars to WORKDIR/metrics.jsonl and to TensorBoard files.

  After a resume the file may hold steps that ran again; the last line of a
  step counts. It is closed after every line: a mounted bucket has a file only
  when it is closed. TensorBoard's files come into a bucket every
  `_PUSH_SECONDS`, and when this is closed.
  """

  def __init__(self, workdir: str):
    directory = files.path(workdir)
    self._path = directory / workdir_lib.METRICS
    self._mirror = buckets.Mirror(directory / workdir_lib.TENSORBOARD)
    self._pushed = time.monotonic()
    self._board = tensorboardX.SummaryWriter(str(self._mirror.folder))

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Adds a line without what was not measured: JSON has no NaN."""
    scalars = {k: v for k, v in scalars.items() if not math.isnan(v)}
    line = {"step": step, **scalars}
    files.append_line(self._path, line=json.dumps(line))
    for name, value in scalars.items():
      self._board.add_scalar(name, value, step)
    if time.monotonic() - self._pushed > _PUSH_SECONDS:
      self._board.flush()
      self._mirror.push()
      self._pushed = time.monotonic()

  def image(self, step: int, *, name: str, image: np.ndarray) -> None:
    """Adds an RGB picture [height, width, 3] to TensorBoard."""
    self._board.add_image(name, image, step, dataformats="HWC")

  def close(self) -> None:
    self._board.close()
    self._mirror.close()


def is_evaluated(workdir: str, *, step: int) -> bool:
  """Whether the evaluation after `step` has come into the metrics."""
  lines = files.read_json_lines(files.path(workdir) / workdir_lib.METRICS)
  return any(
    line.get("step") == step
    and any(name.startswith(EVALUATION) for name in line)
    for line in lines
  )


def log_line(
  step: int,
  *,
  steps: int,
  scalars: dict[str, float],
  objective: objective_lib.Objective,
) -> None:
  """One line for whoever watches the run."""
  shown = [f"step {step}/{steps}", f"loss {scalars['loss']:.3f}"]
  for name in objective.shown:
    if f"loss/{name}" in scalars:
      shown.append(f"{name} {scalars[f'loss/{name}']:.3f}")
  for name, short in objective.counted.items():
    shown.append(f"{scalars[f'{name}_per_second']:.0f} {short}/s")
  shown.append(f"mfu {scalars['mfu']:.2f}")
  shown.append(f"{scalars['minutes_left']:.1f} min left")
  logging.info("  ".join(shown))
