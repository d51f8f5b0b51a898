"""What a session leaves behind: sound, transcript, picture.

For: writing a finished session to a directory. Not for: holding it
(`live.conversation`) or its tick log (`ticks`). Start reading at `write`.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tml_jax.logs import picture, transcript
from tml_jax.logs import sound as sound_lib
from tml_jax.streams import clock
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import Timeline
from tml_jax.streams.tokenizer import Tokenizer

AGENT, BOTH = "agent.wav", "conversation.wav"
TRANSCRIPT, PICTURE = "transcript.txt", "session.png"

# The mel of each window, None where quiet, to the samples of all.
Render = Callable[[list[np.ndarray | None]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Held:
  """A session that is over.

  Attributes:
    timeline: whose user was talked to.
    frames: one per window.
    microphone: [samples] of all that was heard.
    agent: [samples] of what the agent said.
    tick_seconds: [windows] wall-clock time of each decision.
    title: for the picture.
    grid: of the windows.
    files: more to write, by name.
  """

  timeline: Timeline
  frames: list[Frame]
  microphone: np.ndarray
  agent: np.ndarray
  tick_seconds: np.ndarray
  title: str
  grid: clock.Grid
  files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def write(held: Held, *, directory: pathlib.Path, tokenizer: Tokenizer) -> str:
  """Writes the files; returns a summary.

  Each is there whole or, when this is killed, not at all: `held.files` first,
  what can be made of them again last.
  """
  lines = transcript.lines(
    held.frames, timeline=held.timeline, tokenizer=tokenizer, grid=held.grid
  )
  directory.mkdir(parents=True, exist_ok=True)
  partial = directory / f".partial-{os.getpid()}"
  partial.mkdir()
  try:
    for name in _files(held, lines=lines, directory=partial):
      os.replace(partial / name, directory / name)
  finally:
    shutil.rmtree(partial)
  return "\n".join(
    [
      "  from      to  who            what (seconds)",
      *map(str, lines),
      "",
      f"user   {levels(held.microphone, grid=held.grid)}",
      f"agent  {levels(held.agent, grid=held.grid)}",
      speed(held.tick_seconds, grid=held.grid),
      *(
        f"wrote {directory / name}"
        for name in (AGENT, BOTH, TRANSCRIPT, PICTURE, *held.files)
      ),
    ]
  )


def _files(
  held: Held, *, lines: list[transcript.Line], directory: pathlib.Path
) -> Iterator[str]:
  """Writes the next file; gives its name."""
  for name, content in held.files.items():
    (directory / name).write_bytes(content)
    yield name
  for name, channels in (
    (AGENT, [held.agent]),
    (BOTH, [held.microphone, held.agent]),
  ):
    sound_lib.write_wav(directory / name, channels=channels)
    yield name
  text = "".join(f"{line}\n" for line in lines)
  (directory / TRANSCRIPT).write_text(text, encoding="utf-8")
  yield TRANSCRIPT
  picture.draw(
    held.frames,
    timeline=held.timeline,
    microphone=held.microphone,
    lines=lines,
    title=held.title,
    grid=held.grid,
    path=directory / PICTURE,
  )
  yield PICTURE


def agent_audio(frames: list[Frame], *, render: Render) -> np.ndarray:
  """[samples] float32: what the agent said, by the vocoder."""
  decided = [frame.target_mel if frame.speak else None for frame in frames]
  return render([None, *decided[:-1]])  # a decision sounds in the next window


def levels(audio: np.ndarray, *, grid: clock.Grid) -> str:
  """Duration, peak and RMS of the windows that sound."""
  by_window = audio.reshape(-1, grid.samples)
  sounding = by_window[np.abs(by_window).max(axis=1) > 0]
  line = f"{len(audio) / clock.SAMPLE_RATE:6.1f} s, sound in "
  line += f"{len(sounding) * grid.seconds:5.1f} s"
  if not len(sounding):
    return line
  peak = _decibels(float(np.abs(audio).max()) ** 2)
  rms = _decibels(float(np.square(sounding).mean()))
  return f"{line}: {rms:6.1f} dBFS RMS, peak {peak:6.1f} dBFS"


def speed(seconds: np.ndarray, *, grid: clock.Grid) -> str:
  """How fast the session ran."""
  median, worst = np.median(seconds), seconds.max()
  factor = grid.seconds / median
  return (
    f"a {grid.ms} ms window took {1000 * median:.1f} ms (median), at most "
    f"{1000 * worst:.1f} ms: {factor:.1f} times real time"
  )


def clear(directory: pathlib.Path) -> None:
  """Removes the files of an earlier session."""
  for name in (AGENT, BOTH, TRANSCRIPT, PICTURE):
    (directory / name).unlink(missing_ok=True)


def _decibels(power: float) -> float:
  return 10 * float(np.log10(max(power, 1e-12)))
