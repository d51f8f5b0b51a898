"""Game-Time as a suite: every instruction is held, its outputs are written.

For: `--suite=game_time`. Not for: the layout (`folders`) or the numbers
(`scores`). Start at `GameTime`. Nothing here imports jax.
"""

import json
import os
import pathlib

import numpy as np

from tml_jax import files
from tml_jax.evals import agents as agents_lib
from tml_jax.evals import suites
from tml_jax.evals.full_duplex_bench import scores as words_lib
from tml_jax.evals.game_time import folders as bench
from tml_jax.evals.game_time import scores
from tml_jax.evals.metrics import panel
from tml_jax.evals.metrics.floor import Series
from tml_jax.logs import report, ticks
from tml_jax.logs import sound as sound_lib
from tml_jax.streams import clock
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import Role, Timeline, Word

_RECORDED = ("recorded", "recorded_late")  # nobody is, in a clip


class GameTime(suites.Suite):
  """Instructions of the benchmark.

  With `out`, what its judge reads is written in the layout of the published
  outputs of systems: KIND/audios/TASK/test/ID.wav, the user left and the agent
  right, and KIND/alignments/TASK/test/ID.jsonl, a line of words of each. The
  agent's words are its own, and share the time of its sound by their letters.
  KIND/provenance/TASK/test/ID.json, the last to be written, says of which log
  they are.
  """

  metrics = scores.TABLE

  def __init__(
    self,
    root: str,
    *,
    out: str = "",
    tasks: tuple[str, ...] = (),
    count: int | None = None,
    render: report.Render,
  ):
    """Reads all of the benchmark.

    Args:
      root: see `folders.open_root`.
      out: directory for outputs; "" writes none.
      tasks: TASK folders or families; none for all.
      count: of clips of each TASK, at most.
      render: sound of mel.

    Raises:
      errors.UserError: see `folders.open_root`; or `out` cannot be written.
    """
    found = bench.open_root(root, tasks=tasks)
    self.left_out = found.left_out
    self._out, self._render = pathlib.Path(out) if out else None, render
    if self._out is not None:
      files.make(self._out, what=f"--out={out}")
    self._clips = suites.by_name(found.clips, count=count)
    self.agents = {
      "ideal": self._ideal,
      **{k: v for k, v in agents_lib.AGENTS.items() if k not in _RECORDED},
    }

  def _ideal(self, timeline: Timeline) -> ticks.Log:
    return scores.ideal(timeline, clip=self._clips[timeline.id])

  def items(self) -> list[suites.Item]:
    return [
      suites.Item(
        clip.family.name.lower(), seed=i, load=clip.load, digest=clip.digest
      )
      for i, clip in enumerate(self._clips.values())
    ]

  def asks(self, timeline: Timeline) -> bool:
    return True  # whoever speaks with the user has no annotation

  def measure(self, log: ticks.Log) -> Series:
    clip = self._clips[log.id]
    return panel.measure(log) | scores.measure(log, clip=clip)

  def keep(
    self,
    timeline: Timeline,
    *,
    frames: list[Frame],
    log: ticks.Log,
    family: str,
  ) -> None:
    """Writes sound, words, then whose they are: so both are there."""
    if self._out is None:
      return
    clip = self._clips[timeline.id]
    track = timeline.track(Role.USER)
    assert track is not None  # of a clip
    samples = round(timeline.duration * clock.SAMPLE_RATE)
    agent = report.agent_audio(frames, render=self._render)[:samples]
    path, words, of = self._places(clip)
    for each in (path, words, of):
      each.parent.mkdir(parents=True, exist_ok=True)
    of.unlink(missing_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # a link would be written through
    sides = [
      np.pad(side[:samples], (0, samples - len(side[:samples])))
      for side in (track.audio, agent)
    ]
    sound_lib.write_wav(partial, channels=sides)
    os.replace(partial, path)
    lines = [
      _line(clip.words, "USER"),
      _line(words_lib.words(log), "AGENT"),
    ]
    files.write_atomically(words, content="".join(lines))
    content = json.dumps({"provenance": log.provenance}, indent=1)
    files.write_atomically(of, content=content + "\n")

  def is_kept(self, log: ticks.Log, *, family: str) -> bool:
    """Whether the outputs are there, and of this log."""
    if self._out is None:
      return True
    *outputs, of = self._places(self._clips[log.id])
    if of.is_symlink() or not all(path.is_file() for path in outputs):
      return False
    found = files.read_json(of)
    return found is not None and found.get("provenance") == log.provenance

  def _places(
    self, clip: bench.Clip
  ) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    """Of sound, words and their provenance.

    Raises:
      errors.UserError: links lead out of the directory for outputs.
    """
    assert self._out is not None
    found = tuple(
      self._out / clip.folder / kind / clip.task / "test" / f"{clip.id}.{end}"
      for kind, end in (
        ("audios", "wav"),
        ("alignments", "jsonl"),
        ("provenance", "json"),
      )
    )
    for path in found:
      files.check_inside(path, root=self._out, what=f"--out={self._out}")
    return found[0], found[1], found[2]


def _line(words: tuple[Word, ...] | list[Word], speaker: str) -> str:
  found = [
    [w.text, [round(w.start, 3), round(w.end, 3)], speaker] for w in words
  ]
  return json.dumps(found, ensure_ascii=False) + "\n"
