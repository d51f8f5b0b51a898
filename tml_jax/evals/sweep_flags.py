"""Flags of `evaluate` that meet the same users with several settings.

For: `--sweep`, `--by`, `--beside`. Not for: the grid and the choice (`sweep`).
Start at `run`. Only `evaluate` imports this: a flag is defined once.
"""

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from tml_jax import files
from tml_jax.config import Config
from tml_jax.config import text as config_text
from tml_jax.evals import harness_flags

SWEEP = flags.DEFINE_multi_string(
  "sweep",
  [],
  "FIELD=VALUE,VALUE,... of config.turns or config.sample; several make a grid."
  " The users are met with each, and the best is named in WORKDIR/sweep.json,"
  " or --json: on --split=dev to choose it (--tuned). A picture beside it shows"
  " what is traded.",
)
_BY = flags.DEFINE_string(
  "by",
  "summary_score",
  "Row of the panel by which --sweep chooses; of equal ones the lower median"
  " response latency, then the first.",
)
_BESIDE = flags.DEFINE_list(
  "beside", [], "Files of other sweeps that its picture shows, too."
)


def run(
  config: Config,
  *,
  suite,
  output: pathlib.Path,
  load: Callable[[Config], Any],
  tokenizer,
  agent: str,
  provenance: Mapping[str, Any],
  source: Mapping[str, Any],
) -> None:
  """Meets the users with each setting; writes the table and the choice.

  Args:
    config: of the run.
    suite: whose users.
    output: the JSON file, written last; the picture, the archive and logs go
      beside it.
    load: opens the run.
    tokenizer: of the run.
    agent: `harness_flags.agent_of`.
    provenance: of the run, for its logs.
    source: what was evaluated, for the file.

  Raises:
    errors.UserError: a setting that cannot be, or broken data.
  """
  from tml_jax.evals import archive, as_json, sweep, sweep_picture
  from tml_jax.evals.metrics import panel

  start = time.monotonic()
  sweep.check_by(_BY.value)
  beside = [
    sweep.read(files.path(path), flag="beside") for path in _BESIDE.value
  ]
  points = sweep.points(config, grid=SWEEP.value)
  harness_flags.refuse(points[0].changes, agent=agent)
  trained, parts = load(config), {}
  for point in points:
    how, connect = harness_flags.connect(point.config, agent=agent)
    of = {
      "config": config_text.digest(point.config),
      "step": trained.step,
      "agent": how,
    }
    report = sweep.hold(
      suite,
      config=point.config,
      program=sweep.program_of(point, run_config=config),
      connect=connect(point.config),
      model=trained.model,
      variables=trained.variables,
      tokenizer=tokenizer,
      kept=sweep.kept_at(
        output.with_suffix(""), point, provenance={**provenance, **of}
      ),
    )
    parts[point.name] = archive.Part(
      report, left_out=suite.left_out, changes=point.changes
    )
  source = {
    "config": config.name,
    "step": trained.step,
    "agent": agent,
    **source,
  }
  found = [part.report.summary(panel.ALL) for part in parts.values()]
  best = sweep.choose(found, by=_BY.value)
  numbers = as_json.without_nan(
    {
      **source,
      "by": _BY.value,
      "points": [
        {"changes": dict(point.changes), "rows": as_json.rows(values)}
        for point, values in zip(points, found, strict=True)
      ],
      "choice": dict(points[best].changes),
    }
  )
  text = json.dumps(numbers, indent=1, allow_nan=False)
  output.unlink(missing_ok=True)  # which says that all is there
  packed = output.with_suffix(archive.SUFFIX)
  archive.write(packed, head=archive.head(config, numbers=source), parts=parts)
  picture = output.with_suffix(".png")
  sweep_picture.draw(
    [sweep_picture.Arm.of(each) for each in (numbers, *beside)], path=picture
  )
  files.write_atomically(output, content=text + "\n")
  print(sweep.table(found, names=[p.name for p in points], best=best))
  print(f"* best {_BY.value}; all took {time.monotonic() - start:.0f} s")
  print(f"wrote {output}, {packed} and {picture}")
