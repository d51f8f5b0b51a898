"""Full-Duplex-Bench as a suite: every clip is held, its outputs are written.

For: `--suite=fdb`. Not for: the layout (`folders`) or the numbers (`scores`).
Start reading at `FullDuplexBench`. Nothing here imports jax.
"""

import os
import pathlib
from typing import Any

import numpy as np

from tml_jax import files
from tml_jax.evals import agents as agents_lib
from tml_jax.evals import suites
from tml_jax.evals.full_duplex_bench import folders as bench
from tml_jax.evals.full_duplex_bench import scores
from tml_jax.evals.metrics import panel
from tml_jax.evals.metrics.floor import Series
from tml_jax.logs import report, ticks
from tml_jax.logs import sound as sound_lib
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import Timeline, Word

_HEADER_BYTES = 44  # of a WAV file
_RECORDED = ("recorded", "recorded_late")  # nobody is, in a clip


class FullDuplexBench(suites.Suite):
  """Clips of the benchmark.

  `output.wav` and `output.json` go beside `input.wav`, where the benchmark's
  scripts look for them, or into the same folders below another directory. An
  older output is replaced.
  """

  metrics = scores.TABLE
  agents = {
    "oracle": agents_lib.oracle,
    **{k: v for k, v in agents_lib.AGENTS.items() if k not in _RECORDED},
  }

  def __init__(
    self,
    root: str,
    *,
    out: str = "",
    tasks: tuple[str, ...] = (),
    count: int | None = None,
    render: report.Render,
  ):
    """Reads all of the benchmark and proves that outputs can be written.

    Args:
      root: directory of the benchmark.
      out: directory for outputs; "" writes them beside the inputs.
      tasks: names of folders; none for all.
      count: of clips of each task, at most.
      render: sound of mel.

    Raises:
      errors.UserError: see `bench.open_root`; or it cannot be written.
    """
    found = bench.open_root(root, tasks=tasks)
    self._human = found.human
    self.left_out = found.left_out
    self._top = pathlib.Path(out or root)
    self._render = render
    self._clips = suites.by_name(found.clips, count=count)
    self._what = f"--out={out}" if out else f"--fdb_root={root}"
    if out:
      files.make(self._top, what=self._what)
    for clip in self._clips.values():
      folder = self._folder(clip)
      if not out:
        files.check(
          folder,
          what=f"--fdb_root={root}: {folder}",
          fix="give --out=DIR for the outputs",
        )

  def items(self) -> list[suites.Item]:
    return [
      suites.Item(str(clip.task), seed=i, load=clip.load, digest=clip.digest)
      for i, clip in enumerate(self._clips.values())
    ]

  def asks(self, timeline: Timeline) -> bool:
    return True  # clips of backchannels ask for nothing by a time

  def measure(self, log: ticks.Log) -> Series:
    clip = self._clips[log.id]
    human = None
    if clip.task == bench.Task.BACKCHANNEL:
      human = self._human.get(clip.id)
    return panel.measure(log) | scores.measure(log, clip=clip, human=human)

  def keep(
    self,
    timeline: Timeline,
    *,
    frames: list[Frame],
    log: ticks.Log,
    family: str,
  ) -> None:
    """Writes the outputs; `output.json`, the last, says that all are there."""
    clip = self._clips[timeline.id]
    sound = report.agent_audio(frames, render=self._render)[: clip.num_samples]
    write_outputs(
      self._folder(clip),
      clip=clip,
      sound=sound,
      words=scores.words(log),
      provenance=log.provenance,
    )

  def is_kept(self, log: ticks.Log, *, family: str) -> bool:
    """Whether both outputs are there, whole and of this log."""
    clip = self._clips[log.id]
    folder = self._folder(clip)
    if any((folder / n).is_symlink() for n in (bench.WORDS, bench.OUTPUT)):
      return False  # not written by `keep`
    try:
      found = files.load_json(folder / bench.WORDS)
      size = os.path.getsize(folder / bench.OUTPUT)
    except (OSError, ValueError):
      return False
    if not isinstance(found, dict):
      return False
    is_whole = size == _HEADER_BYTES + 2 * clip.num_samples
    return is_whole and found.get("provenance") == log.provenance

  def _folder(self, clip: bench.Clip) -> pathlib.Path:
    """Where a clip's outputs are.

    Raises:
      errors.UserError: links lead out of the directory for outputs.
    """
    folder = self._top / clip.folder
    files.check_inside(folder, root=self._top, what=self._what)
    return folder


def write_outputs(
  folder: pathlib.Path,
  *,
  clip: bench.Clip,
  sound: np.ndarray,
  words: list[Word],
  provenance: dict[str, Any],
) -> None:
  """Writes `output.wav`, then `output.json`, of [samples] at 16 kHz."""
  folder.mkdir(parents=True, exist_ok=True)
  names = folder / bench.WORDS
  names.unlink(missing_ok=True)
  partial = folder / f"{bench.OUTPUT}.partial"
  partial.unlink(missing_ok=True)  # a link would be written through
  sound_lib.write_wav(partial, channels=[sound])
  os.replace(partial, folder / bench.OUTPUT)
  files.write_atomically(
    names, content=bench.to_json(words, clip=clip, provenance=provenance)
  )
