"""Our scores beside the scripts of Full-Duplex-Bench v1.0, on the same clips.

`python -m benchmarks.fdb_outside --scripts=CHECKOUT/v1_v1.5/evaluation
--fdb_root=DIR --data_dir=DATA --dir=OUT` lets agents without a model hold clips
that `tml_jax.evals.full_duplex_bench.unheard` has written, scores them by
`scores`, by `published`, and by the benchmark's own scripts, and writes
benchmarks/fdb_outside.md. The scripts are no part of this project: check them
out, and unpack the wheel silero-vad into --site.

Two things stand in for what cannot be had here. `torchaudio.load` is soundfile,
which reads the same samples. The judge of interruptions answers 0 to all: its
rating is thrown away, take-over and latency are the script's own.
"""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from absl import flags

from benchmarks import timing
from tml_jax import errors
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.evals.full_duplex_bench import flags as fdb_flags
from tml_jax.evals.full_duplex_bench import folders as bench
from tml_jax.evals.full_duplex_bench import mouth, published, scores, unheard
from tml_jax.evals.full_duplex_bench.folders import Task
from tml_jax.evals.metrics import statistics

_SCRIPTS = flags.DEFINE_string("scripts", "", "evaluation/ of the benchmark.")
_SITE = flags.DEFINE_string("site", "", "Folder that holds silero_vad.")
_DIR = flags.DEFINE_string("dir", "", "Where outputs go.")
_AGENTS = flags.DEFINE_list(
  "agents",
  ["oracle", "silent", "always_talking", "blink_1_3", "echo"],
  "Without a model.",
)
_DOCUMENT = "docs/full_duplex_bench.md"
# The scripts print means, or divide by the number of take-overs, which is 0.
_DRIVER = """
import sys, types
def load(path):
  import soundfile, torch
  samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
  return torch.from_numpy(samples.T.copy()), rate
sys.modules["torchaudio"] = types.SimpleNamespace(load=load)
sys.path[:0] = sys.argv[3:]
task, root = sys.argv[1:3]
if task == "user_interruption":
  import eval_user_interruption as script
  say = types.SimpleNamespace
  text = "Analysis: none.\\nI would rate the AI's response as 0"
  answer = say(choices=[say(message=say(content=text))])
  chat = say(completions=say(create=lambda **kwargs: answer))
  script.eval_user_interruption(root, say(chat=chat))
else:
  module = __import__("eval_" + task)
  getattr(module, "eval_" + task)(root)
"""
_SCRIPT_OF = {
  Task.SYNTHETIC_PAUSE: "pause_handling",
  Task.TURN: "smooth_turn_taking",
  Task.BACKCHANNEL: "backchannel",
  Task.INTERRUPTION: "user_interruption",
}
_PRINTED = {
  "tor": r"(?:Average take turn:\s+|TOR - Mean: )([\d.]+)",
  "latency": r"Average latency:\s+([\d.]+)",
  "rate": r"Frequency - Mean: ([\d.]+)",
  "jsd": r"JSD - Mean: ([\d.]+)",
}


@dataclasses.dataclass(frozen=True)
class Line:
  """A row of the table.

  Attributes:
    title: for people.
    task: whose it is.
    ours: metric of `scores` of which we think most.
    theirs: attribute of `published.Row`.
  """

  title: str
  task: Task
  ours: str
  theirs: str


LINES = (
  Line(
    "pauses: takes over", Task.SYNTHETIC_PAUSE, "fdb_pause_tor_inside", "tor"
  ),
  Line("turn: takes over", Task.TURN, "fdb_turn_tor", "tor"),
  Line("turn: latency, s", Task.TURN, "fdb_turn_latency", "latency"),
  Line(
    "backchannel: takes over", Task.BACKCHANNEL, "fdb_backchannel_tor", "tor"
  ),
  Line(
    "backchannel: per second", Task.BACKCHANNEL, "fdb_backchannel_rate", "rate"
  ),
  Line("backchannel: distance", Task.BACKCHANNEL, "fdb_backchannel_jsd", "jsd"),
  Line(
    "interruption: takes over",
    Task.INTERRUPTION,
    "fdb_interruption_tor",
    "tor",
  ),
  Line(
    "interruption: latency, s",
    Task.INTERRUPTION,
    "fdb_interruption_latency",
    "latency",
  ),
)


def scripts(root: pathlib.Path) -> dict[Task, dict[str, float]]:
  """What the benchmark's scripts print of outputs beside their inputs."""
  result: dict[Task, dict[str, float]] = {}
  more = (_SCRIPTS.value, _SITE.value)
  for task, script in _SCRIPT_OF.items():
    made = subprocess.run(
      [
        *(sys.executable, "-c", _DRIVER, script),
        *(str((root / "v1.0" / task).resolve()), *map(os.path.abspath, more)),
      ],
      cwd=root,  # where they look for the distribution of backchannels
      env=os.environ | {"PYTHONPATH": ""},
      capture_output=True,
      text=True,
    )
    divided = "ZeroDivisionError" in made.stderr
    if made.returncode and not divided:
      raise RuntimeError(f"{script}: {made.stderr[-2000:]}")
    _, _, printed = made.stdout.rpartition("[Result]")
    found = {k: re.search(each, printed) for k, each in _PRINTED.items()}
    result[task] = {k: float(m[1]) for k, m in found.items() if m}
    if divided:
      result[task]["divided"] = 1.0
  return result


def ours(logs: dict, *, clips: dict[str, bench.Clip], human: dict) -> dict:
  """The rows of `scores`, by name."""
  series = [
    scores.measure(log, clip=clips[name], human=human.get(clips[name].id))
    for name, log in logs.items()
  ]
  values = statistics.summarise(series, metrics=scores.METRICS, resamples=0)
  return {k: v.value for k, v in values.items() if v.events}


def table(found: dict[str, tuple]) -> list[str]:
  """Three judges of each agent."""
  head = "| | judge | " + " | ".join(f"`{name}`" for name in found) + " |"
  lines = [head, "|---|---|" + "--:|" * len(found)]
  for line in LINES:
    mine, anew, own = [], [], []
    for rows, defined, printed in found.values():
      mine.append(rows.get(line.ours))
      anew.append(defined[line.task].get(line.theirs))
      of_task = printed[line.task]
      own.append("÷0" if "divided" in of_task else of_task.get(line.theirs))
    for judge, cells in (
      ("ours", mine),
      ("as published", anew),
      ("their scripts", own),
    ):
      shown = " | ".join(
        c if isinstance(c, str) else "-" if c is None else f"{c:.3f}"
        for c in cells
      )
      lines.append(f"| {line.title} | {judge} | {shown} |")
  return lines


def main(config: Config) -> None:
  for flag in (_SCRIPTS, _DIR, fdb_flags.ROOT):
    if not flag.value:
      raise errors.UserError(f"--{flag.name} is missing")
  root, found = pathlib.Path(fdb_flags.ROOT.value), {}
  opened = bench.open_root(str(root))
  clips = {clip.name: clip for clip in opened.clips}
  voices = unheard.open_voices(
    config_flags.data_dir(),
    share=config.data.heldout_share,
    names=(mouth.VOICE,),
  )
  for agent in _AGENTS.value:
    # Beside the inputs, where the scripts look for outputs: a copy of them all.
    out = pathlib.Path(_DIR.value) / agent
    if not out.exists():
      subprocess.run(["cp", "-r", str(root), str(out)], check=True)
    logs = mouth.write(
      str(out), agent=agent, sentences=voices[mouth.VOICE], out=str(out)
    )
    rows = ours(logs, clips=clips, human=opened.human)
    defined = published.as_json(published.measure(str(out)))
    found[agent] = rows, defined, scripts(out)
    print(agent, json.dumps(found[agent], default=str), flush=True)
  made = json.loads((root / unheard.MADE).read_text())
  lines = [
    "# Our scores beside the scripts of Full-Duplex-Bench v1.0",
    "",
    timing.made(),
    "",
    f"`python -m benchmarks.fdb_outside`: {made['clips']} clips of each layout,"
    f" spoken by {', '.join(made['voices'])}, held by agents without a model"
    " whose sound is a recorded voice. *Ours* is `scores` on tick logs, *as"
    " published* is `published` on the output files, *their scripts* are the"
    " benchmark's own (d7336bd), run on the same files; ÷0: the script ends"
    " with a division by zero. What the differences come from:"
    f" [{_DOCUMENT}](../{_DOCUMENT}#beside-its-own-scripts).",
    "",
    *table(found),
  ]
  text = "\n".join(lines) + "\n"
  path = pathlib.Path(__file__).with_suffix(".md")
  path.write_text(text, encoding="utf-8")
  print(text)


if __name__ == "__main__":
  config_flags.run(main, default="experiments/interaction.py:interactive")
