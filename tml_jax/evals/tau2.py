"""Tick logs as trajectories of tau2-bench, for that benchmark's own metrics.

`python -m tml_jax.evals.tau2 --ticks=RUN/evaluation/ticks --out=DIR` writes
DIR/FAMILY/results.json and DIR/FAMILY/simulations/ID.json, a family as a
domain. Where tau2-bench is installed (Python 3.12), `tau2 submit
interaction-metrics DIR` computes its panel from them. Not for: reading such
trajectories (`data/importers/tau2.py`). Start at `simulation`.

Format and meaning: `Results`, `SimulationRun` and `Tick` of tau2-bench 1.0.1.
What its user says beside a turn is told apart as it does: a backchannel by the
user's action, a vocal tic or side talk as a speech insert while the user
`contains_speech` no more. What is in a video or due at a time has no place
there, nor have pauses within a turn.
"""

import json
import pathlib
import re
import shutil
from typing import Any

from absl import app, flags

from tml_jax import errors, files
from tml_jax import workdir as workdir_lib
from tml_jax.config import flags as config_flags
from tml_jax.logs import ticks
from tml_jax.streams import calls, clock
from tml_jax.streams.annotation import Kind

_TICKS = flags.DEFINE_string(
  "ticks", "", "Folder of tick logs, FAMILY/ID.jsonl, as evaluate writes it."
)

_INSERTS = {Kind.VOCAL_TIC: "vocal_tic", Kind.SIDE_TALK: "non_directed_phrase"}


def simulation(log: ticks.Log) -> dict[str, Any]:
  """One session as a `SimulationRun`, JSON values."""
  return {
    "id": _name(log),
    "task_id": log.id,
    "timestamp": "0",
    "start_time": "0",
    "end_time": f"{log.duration:.1f}",
    "duration": log.duration,
    "termination_reason": "user_stop",
    "mode": "full_duplex",
    "ticks": [_tick(log, k) for k in range(len(log.ticks))],
  }


def results(logs: list[ticks.Log]) -> dict[str, Any]:
  """What `Results` has beside the simulations; logs of one family."""
  agents = {str(log.provenance.get("agent", "unknown")) for log in logs}
  return {
    "timestamp": "0",
    "info": {
      "git_commit": workdir_lib.git_hash(),
      "num_trials": 1,
      "max_steps": max(len(log.ticks) for log in logs),
      "max_errors": 0,
      "user_info": {"implementation": "tml_jax scenario"},
      "agent_info": {"implementation": ", ".join(sorted(agents))},
      "environment_info": {"domain_name": logs[0].family, "policy": ""},
    },
    "tasks": [],
  }


def _name(log: ticks.Log) -> str:
  return re.sub(r"[^\w.-]+", "-", log.id)


def _tick(log: ticks.Log, k: int) -> dict[str, Any]:
  tick, start = log.ticks[k], k * clock.TICKS.seconds
  kinds = {
    a.kind
    for a in log.annotations
    if clock.TICKS.window_of(a.start) <= k < clock.TICKS.num_windows(a.end)
  }
  insert = next((_INSERTS[kind] for kind in _INSERTS if kind in kinds), None)
  is_beside = insert is not None or Kind.BACKGROUND in kinds
  user: dict[str, Any] = {
    "role": "user",
    "content": tick.user_text or None,
    "timestamp": f"{start:.1f}",
    "is_audio": True,
    "contains_speech": tick.user and not is_beside,
  }
  if Kind.BACKCHANNEL in kinds:
    user["turn_taking_action"] = {"action": "backchannel"}
  if insert is not None:  # side talk may be another person's
    user["speech_effects"] = {
      "speech_insert": {"text": tick.user_text, "type": insert}
    }
  requests = [(each.number, calls.parse_call(each.text)) for each in tick.calls]
  return {
    "tick_id": k,
    "timestamp": f"{start:.1f}",
    "tick_duration_seconds": clock.TICKS.seconds,
    "wall_clock_duration_seconds": tick.seconds,
    "agent_chunk": {
      "role": "assistant",
      "content": tick.agent_text or None,
      "timestamp": f"{start:.1f}",
      "is_audio": True,
      "contains_speech": tick.agent,
    },
    "user_chunk": user,
    "agent_tool_calls": [
      {
        "id": str(number),
        "name": request.name,
        "arguments": {"text": request.arguments},
        "requestor": "assistant",
      }
      for number, request in requests
    ],
    "agent_tool_results": [
      {
        "id": str(each.number),
        "role": "tool",
        "content": each.text,
        "requestor": "assistant",
        "timestamp": f"{start:.1f}",
      }
      for each in tick.results
    ],
  }


def export(source: pathlib.Path, out: pathlib.Path) -> dict[str, int]:
  """Writes all logs below `source`; returns how many by family.

  Raises:
    errors.UserError: no logs, a broken one, or `out` is there already.
  """
  if out.exists():
    raise errors.UserError(f"--out={out} is there already: name a new folder")
  families: dict[str, list[ticks.Log]] = {}
  for path in sorted(source.glob("*/*.jsonl")):
    families.setdefault(path.parent.name, []).append(ticks.read(path))
  if not families:
    raise errors.UserError(
      f"--ticks={source} has no FAMILY/ID.jsonl: name the folder `ticks` of an"
      " evaluation"
    )
  part = out.with_name(f"{out.name}.part")
  shutil.rmtree(part, ignore_errors=True)
  for family, logs in families.items():
    folder = part / family / "simulations"
    folder.mkdir(parents=True)
    for log in logs:
      text = json.dumps(simulation(log), ensure_ascii=False)
      (folder / f"{_name(log)}.json").write_text(text, encoding="utf-8")
    files.write_atomically(
      part / family / "results.json", content=json.dumps(results(logs)) + "\n"
    )
  part.rename(out)
  return {family: len(logs) for family, logs in families.items()}


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}")
  for flag in (_TICKS, config_flags.OUT):
    if not flag.value:
      raise app.UsageError(f"--{flag.name} is missing")
  try:
    found = export(
      pathlib.Path(_TICKS.value), pathlib.Path(config_flags.OUT.value)
    )
  except errors.UserError as error:
    raise app.UsageError(str(error)) from error
  for family, count in found.items():
    print(f"{family}: {count} conversations")


if __name__ == "__main__":
  app.run(main)
