"""How far a run is and how its evaluations went, from its metrics.jsonl.

For: `python -m tml_jax.ablate`. Not for: writing it (`training.metrics`).
Start at `read`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from tml_jax import files
from tml_jax import workdir as workdir_lib
from tml_jax.evals import ablation


@dataclasses.dataclass(frozen=True)
class Curve:
  """Evaluations inside training (`train.evaluate_every`) of one run.

  Attributes:
    tokens: [points] positions trained on until then, padding excluded.
    values: [points] of each metric in the units of `ablation.known_metrics`,
      NaN where nothing was measured.
  """

  tokens: np.ndarray
  values: dict[str, np.ndarray]


def _lines(workdir: pathlib.Path) -> list[dict[str, float]]:
  """The last line of a step counts; one cut by a kill is left out."""
  lines = files.read_json_lines(workdir / workdir_lib.METRICS)
  return [line for line in lines if type(line.get("step")) is int]


def last_step(workdir: pathlib.Path) -> int:
  """The last step that was logged; 0 before the first."""
  lines = _lines(workdir)
  return int(lines[-1]["step"]) if lines else 0


def read(workdir: pathlib.Path, *, metrics: Sequence[str]) -> Curve:
  """The evaluations `eval/METRIC` of a run.

  Tokens seen are the mean of the logged steps times the steps: sequences are
  packed, and steps differ by little.
  """
  tokens, points = {}, {}
  for line in _lines(workdir):
    if "tokens" in line:
      tokens[line["step"]] = line["tokens"]
    found = {
      m: ablation.known_metrics()[m].factor * line[f"eval/{m}"]
      for m in metrics
      if f"eval/{m}" in line
    }
    if found:
      points[line["step"]] = found
  steps = np.array(sorted(points))
  mean = np.mean(list(tokens.values())) if tokens else np.nan
  return Curve(
    tokens=steps * mean,
    values={
      m: np.array([points[s].get(m, np.nan) for s in steps]) for m in metrics
    },
  )
