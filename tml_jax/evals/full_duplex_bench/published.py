"""Full-Duplex-Bench v1.0 by its published definitions, from output files.

For: what the benchmark's own scripts would print of `output.json` and
`output.wav`, traps included, whoever wrote them: `python -m
tml_jax.evals.full_duplex_bench.published --fdb_root=DIR [--out=DIR]`. Not for:
numbers that are worth more (`scores`; docs/full_duplex_bench.md says why), or
ratings, which need a judge. Start at `measure`.

Definitions: arXiv 2503.04721 and the code published with it (d7336bd), written
anew. W are the chunks of `output.json`, D is from the first start to the last
end of them.

  tor        of pauses, turns and interruptions: 0 if there is no W, or D < 1 s
             and |W| <= 3; else 1; mean of clips.
  latency    of turns and interruptions: first start - the end of the user's
             turn, not below 0, mean of clips with TOR 1.
  backchannel: segments are those of Silero's detector in `output.wav`. They are
             gone through in order; one of more than 3 s makes TOR 1 and ends
             that. Of the others each counts as a backchannel, and sets TOR: 1
             if more than 3 W touch it, or it lasts 1 s, or has 3 W; else 0. So
             the last one decides.
  rate       backchannels a second of `output.wav`, mean of clips.
  jsd        square root of the Jensen-Shannon divergence in nats between their
             bins of 200 ms and those of `icc_gt_distribution.json`; 1 where
             there is none.

Where nothing takes over, the scripts divide by zero; here is no number then.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app

from tml_jax import errors, files
from tml_jax.config import flags as config_flags
from tml_jax.data import silero, source
from tml_jax.evals.full_duplex_bench import flags as fdb_flags
from tml_jax.evals.full_duplex_bench import folders as bench
from tml_jax.evals.full_duplex_bench import scores
from tml_jax.evals.full_duplex_bench.folders import Clip, Task
from tml_jax.streams import clock
from tml_jax.streams.timeline import Span, Word

# Silero's own defaults for segments, in seconds.
_SHORTEST, _SILENCE, _PAD = 0.25, 0.1, 0.03
_BIN = 0.2


@dataclasses.dataclass(frozen=True)
class Row:
  """A task.

  Attributes:
    task: whose it is.
    clips: with outputs.
    tor: see the module.
    latency: seconds; None where nothing takes over, or the task has none.
    rate: backchannels a second; None of other tasks.
    jsd: as said; None of other tasks, or without the file.
  """

  task: Task
  clips: int
  tor: float
  latency: float | None = None
  rate: float | None = None
  jsd: float | None = None


def measure(root: str, *, out: str = "") -> list[Row]:
  """A row of each task of v1.0 that is there.

  Args:
    root: of the benchmark; see `folders.open_root`.
    out: where outputs are, "" for beside the inputs.

  Raises:
    errors.UserError: an output is missing or broken.
  """
  found = bench.open_root(root)
  top, result = pathlib.Path(out or root), []
  for task in (t for t in Task if t not in bench.OVERLAP):
    clips = [clip for clip in found.clips if clip.task == task]
    if not clips:
      continue
    if task == Task.BACKCHANNEL:
      result.append(_backchannel(clips, top=top, human=found.human))
      continue
    taken, latency = [], []
    for clip in clips:
      words = _words(top / clip.folder / bench.WORDS)
      taken.append(takes_over(words))
      if taken[-1] and task not in bench.PAUSES:
        (event,) = clip.events
        at = event.start if task == Task.TURN else event.end
        latency.append(max(0.0, words[0].start - at))
    result.append(
      Row(task, len(clips), float(np.mean(taken)), latency=_mean(latency))
    )
  return result


def _mean(values: Sequence[float]) -> float | None:
  return float(np.mean(values)) if values else None


def takes_over(words: Sequence[Word]) -> bool:
  """TOR of the chunks of a clip."""
  if not words:
    return False
  lasts = words[-1].end - words[0].start
  return lasts >= scores.TURN_SECONDS or len(words) > scores.TURN_WORDS


def _words(path: pathlib.Path) -> list[Word]:
  """Chunks of a file; one without an end has none but its start.

  Raises:
    errors.UserError: it is not there, or broken.
  """
  try:
    found = []
    for chunk in files.load_json(path)["chunks"]:
      start, end = chunk["timestamp"]
      end = start if end is None else end
      found.append(Word(float(start), float(end), str(chunk["text"])))
    return found
  except FileNotFoundError as error:
    raise errors.UserError(
      f"{path} is missing: hold the clips first, with evaluate --suite=fdb"
    ) from error
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f"{path} has no chunks with timestamps ({error!r}); make it again"
    ) from error


def _backchannel(
  clips: list[Clip], *, top: pathlib.Path, human: dict[str, np.ndarray]
) -> Row:
  taken, rates, distances = [], [], []
  network = silero.Network(
    flag="the backchannel task", instead="leave its folder out"
  )
  for clip in clips:
    folder = top / clip.folder
    try:
      sound = bench.read(folder / bench.OUTPUT)
    except source.BadRecording as error:
      raise errors.UserError(f"{error}; make it again") from error
    words, lasts = _words(folder / bench.WORDS), len(sound) / clock.SAMPLE_RATE
    short, takes = [], False
    for segment in segments(sound, network=network):
      if segment.end - segment.start > scores.BACKCHANNEL_SECONDS:
        takes = True
        break
      takes = _is_turn(segment, words)
      short.append(segment)
    taken.append(takes)
    rates.append(len(short) / lasts)
    if clip.id in human:
      distances.append(_distance(short, lasts=lasts, human=human[clip.id]))
  return Row(
    Task.BACKCHANNEL,
    len(clips),
    float(np.mean(taken)),
    rate=_mean(rates),
    jsd=_mean(distances),
  )


def _is_turn(segment: Span, words: list[Word]) -> bool:
  """Whether a segment of at most 3 s sets TOR to 1."""
  touching = sum(
    w.start >= segment.start
    and w.end <= segment.end
    or w.start <= segment.end < w.end
    or w.start <= segment.start < w.end
    for w in words
  )
  is_long = segment.end - segment.start >= scores.TURN_SECONDS
  return is_long or touching > scores.BACKCHANNEL_WORDS


def _distance(short: list[Span], *, lasts: float, human: np.ndarray) -> float:
  if not short:
    return 1.0
  counts = np.zeros(int(lasts / _BIN) + 1)
  for span in short:
    counts[int(span.start / _BIN) : int(span.end / _BIN) + 1] += 1
  return scores.jsd(counts, human)


def segments(sound: np.ndarray, *, network: silero.Network) -> list[Span]:
  """Where [n] samples at 16 kHz are speech, as Silero's own tool has it.

  It ends where 0.1 s are none, lasts 0.25 s at least, and has 30 ms around it,
  or half of a gap that is narrower than two of these. Times are rounded to 0.1
  s, as that tool rounds them where it is asked for seconds.
  """
  network.reset()
  padded = np.pad(sound, (0, -len(sound) % silero.HOP)).astype(np.float32)
  step = silero.HOP / clock.SAMPLE_RATE
  lasts = len(sound) / clock.SAMPLE_RATE
  found: list[list[float]] = []
  start, quiet = None, None
  for k, frame in enumerate(padded.reshape(-1, silero.HOP)):
    now = k * step
    if network.push(frame):
      start, quiet = now if start is None else start, None
      continue
    if start is None:
      continue
    quiet = now if quiet is None else quiet
    if now - quiet >= _SILENCE:
      found.append([start, quiet])
      start, quiet = None, None
  if start is not None:
    found.append([start, lasts])
  found = [each for each in found if each[1] - each[0] > _SHORTEST]
  result = []
  for k, (first, last) in enumerate(found):
    before = first - found[k - 1][1] if k else 2 * min(first, _PAD)
    after = found[k + 1][0] - last if k + 1 < len(found) else 2 * _PAD
    start = first - min(before / 2, _PAD)
    end = min(last + min(after / 2, _PAD), lasts)
    result.append(Span(round(start, 1), min(round(end, 1), lasts)))
  return result


def table(rows: list[Row]) -> str:
  """As text."""
  lines = [f"{'':28}  clips     TOR  latency, s  per second    JSD"]
  for row in rows:
    lines.append(
      f"{row.task:28}  {row.clips:5}  {row.tor:6.3f}  {_cell(row.latency):>10}"
      f"  {_cell(row.rate):>10}  {_cell(row.jsd):>5}"
    )
  return "\n".join(lines)


def _cell(value: float | None) -> str:
  return "-" if value is None else f"{value:.3f}"


def as_json(rows: list[Row]) -> dict[str, Any]:
  """JSON values by task."""
  return {
    str(row.task): {
      name: value
      for name, value in dataclasses.asdict(row).items()
      if name != "task" and value is not None
    }
    for row in rows
  }


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}")
  try:
    rows = measure(fdb_flags.ROOT.value, out=config_flags.OUT.value)
  except errors.UserError as error:
    raise app.UsageError(str(error)) from error
  print(table(rows))
  if config_flags.JSON.value:
    text = json.dumps(as_json(rows), indent=1) + "\n"
    files.write_atomically(pathlib.Path(config_flags.JSON.value), content=text)


if __name__ == "__main__":
  app.run(main)
