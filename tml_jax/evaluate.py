"""Evaluation: `python -m tml_jax.evaluate --workdir=RUN --data_dir=DIR`.

For: the numbers of a trained run on conversations it never saw, beside those
of agents without a model. Not for: listening to it (`sample`). Definitions
are in `evals/reply.py`; the config is the run's own. Prints a table, writes
evaluation.json and evaluation.png into the run.
"""

import json
import math
import pathlib
import time
from typing import Any

from absl import flags

from tml_jax import config_flags, errors, trained, writable
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.data import flags as data_flags

_COUNT = flags.DEFINE_integer(
  "count", 64, "Conversations of each split.", lower_bound=1
)


def main(config: Config) -> None:
  start = time.time()
  workdir = config_flags.WORKDIR.value
  trained.check(workdir)
  data_dir = data_flags.data_dir()
  output = _check_output(
    config_flags.JSON.value or f"{workdir}/evaluation.json"
  )
  # jax starts here.
  from tml_jax.data import mixture, splits
  from tml_jax.evals import dummies, run, show

  mixture.check(config, data_dir=data_dir)
  agent = trained.load(config, path=workdir, data_dir=data_dir)
  reports = [
    run.evaluate(
      config,
      model=agent.model,
      variables=agent.variables,
      data_dir=data_dir,
      split=split,
      count=_COUNT.value,
    )
    for split in (splits.Split.HELDOUT, splits.Split.FRESH)
  ]
  columns = {str(report.split): report.scalars for report in reports}
  columns |= dummies.summaries(
    run.scenarios(
      config,
      data_dir=data_dir,
      split=splits.Split.HELDOUT,
      count=_COUNT.value,
    )
  )
  print(
    f"{config.name}, step {agent.step}, {_COUNT.value} conversations a split;"
    " the last three columns are the held-out conversations as recorded and"
    " agents without a model\n"
  )
  print(show.table(columns))
  ticks = sorted(s for report in reports for s in report.tick_seconds)
  median_ms = 1000 * ticks[len(ticks) // 2]
  print(
    f"\na window of {reports[0].sessions} sessions took {median_ms:.0f} ms"
    f" (median); all took {time.time() - start:.0f} s"
  )
  numbers = {
    "config": config.name,
    "step": agent.step,
    "git": workdir_lib.git_hash(),
    "count": _COUNT.value,
    "metrics": columns,
    "tick_ms_median": median_ms,
    "sessions_per_tick": reports[0].sessions,
    "conversations": {
      str(report.split): [_score(score) for score in report.scores]
      for report in reports
    },
  }
  text = json.dumps(_without_nan(numbers), indent=1, allow_nan=False)
  workdir_lib.write_atomically(output, text=text + "\n")
  image = output.with_suffix(".png")
  show.picture(reports, path=image)
  print(f"wrote {output} and {image}")


def _check_output(path: str) -> pathlib.Path:
  """The JSON file, proved writable; the picture goes beside it."""
  output = pathlib.Path(path)
  if output.suffix != ".json" or output.is_dir():
    raise errors.UserError(f"--json={path}: name a file that ends with .json")
  writable.check(
    output.parent,
    what=f"--json={path}: {output.parent}",
    fix="name a file in a directory that can",
  )
  return output


def _score(score) -> dict[str, Any]:
  """One conversation for the JSON file."""
  return {
    "windows": score.windows,
    "false_starts": score.false_starts,
    "overlap_windows": score.overlap_windows,
    "exchanges": [
      {
        "instructed": e.instructed,
        "asked_window": e.asked_window,
        "reply_window": e.reply_window,
        "latency": e.latency,
      }
      for e in score.exchanges
    ],
  }


def _without_nan(value: Any) -> Any:
  """NaN, which JSON lacks, as null."""
  if isinstance(value, dict):
    return {key: _without_nan(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_without_nan(item) for item in value]
  if isinstance(value, float) and math.isnan(value):
    return None
  return value


if __name__ == "__main__":
  config_flags.run(main, config_from=config_flags.ConfigFrom.WORKDIR)
