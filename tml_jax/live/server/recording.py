"""Sessions as folders: what people and the model said, saw and did, and when.

For: `Recorder`, given every window of those who allowed it. Not for: reading
them: `tml_jax.data.importers.sessions` makes recordings of them, and
`live.replay` plays them to a model again. Start at `Recorder.begin`. Nothing is
kept of a window before the person allowed it. A thread writes, so that no disk
keeps a tick.

A folder has

- conversation.wav, the user on the left and the agent on the right, 16 kHz, in
  time with the session; whole after every window;
- inputs.jsonl, a header and a line a window: what the model was given (tokens,
  absent sound, pictures by name) and both clocks;
- video/, the pictures as the model saw them;
- ticks.jsonl and calls.jsonl, as `sample` writes them, at the end.
"""

import concurrent.futures
import dataclasses
import json
import pathlib
import pickle
import struct
import tempfile
from typing import IO, Any

import numpy as np
import PIL.Image
from absl import logging

from tml_jax import errors, files
from tml_jax.config import StreamsConfig
from tml_jax.data import audio
from tml_jax.live.server import formats
from tml_jax.live.server.line import Line, Taken
from tml_jax.logs import observe, ticks
from tml_jax.streams import clock
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.frame import Frame
from tml_jax.streams.timeline import Role, Timeline, Track
from tml_jax.streams.tokenizer import Tokenizer
from tml_jax.vocoder import stream

SOUND, INPUTS, VIDEO = "conversation.wav", "inputs.jsonl", "video"
TICKS, CALLS = "ticks.jsonl", "calls.jsonl"
SCHEMA, VERSION = "tml_jax.inputs", 1
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_CHANNELS, _WIDTH = 2, 2
_HEARD = np.zeros((0, clock.MEL_CHANNELS), np.uint8)  # stands for sound
_BLOCK = 1 << 20  # samples that are read at a time
_UNWRITTEN = 50  # windows that may wait for the disk


@dataclasses.dataclass(frozen=True)
class About:
  """Of the run, for the header of a folder.

  Attributes:
    name: of its config.
    step: of its checkpoint.
    fingerprint: of the model, its voice and the options of sampling.
  """

  name: str
  step: int
  fingerprint: str


class Recorder:
  """Writes sessions below a directory."""

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    about: About,
    tokenizer: Tokenizer,
    config: StreamsConfig,
  ):
    """`directory` is there, or is made for the first session."""
    self._directory = directory
    self._about = about
    self._tokenizer = tokenizer
    self._config = config
    self._open: dict[Line, _Folder] = {}
    self._hand = concurrent.futures.ThreadPoolExecutor(
      1, thread_name_prefix="record"
    )
    # One that ends is read once more, for which nobody else is to wait.
    self._finishing = concurrent.futures.ThreadPoolExecutor(
      1, thread_name_prefix="finish"
    )

  def begin(self, line: Line) -> None:
    """From the next window on; on the pool's thread.

    Raises:
      errors.UserError: a folder cannot be made.
    """
    if line in self._open:
      return
    path, count = self._directory / line.session_id, 1
    while path.exists():  # allowed, taken back and allowed
      count += 1
      path = self._directory / f"{line.session_id}-{count}"
    files.make(path, what=f"--record={path}")
    folder = _Folder(
      path,
      line=line,
      about=self._about,
      tokenizer=self._tokenizer,
      config=self._config,
    )
    self._open[line] = folder
    waiting: list[concurrent.futures.Future[None]] = []

    def keep(taken: Taken) -> None:
      waiting[:] = [future for future in waiting if not future.done()]
      if len(waiting) > _UNWRITTEN or folder.has_failed:
        self.end(line)
        logging.warning("%s ends: the disk is full or too slow", path)
        return
      waiting.append(self._hand.submit(folder.add, slim(taken)))

    line.keep = keep

  def end(self, line: Line) -> None:
    """No more of this session; what there is is finished."""
    line.keep = None
    folder = self._open.pop(line, None)
    if folder is None:
      return

    def finish() -> None:
      self._finishing.submit(lambda: folder.close(line.attached.to_json()))

    self._hand.submit(finish)  # behind its last window

  def close(self) -> None:
    """Waits until all is written; nobody is recorded any more."""
    for line in list(self._open):
      self.end(line)
    self._hand.shutdown()
    self._finishing.shutdown()


def slim(taken: Taken) -> Taken:
  """Without what is large and not written."""
  frame = taken.passed.answer.frame
  answer = dataclasses.replace(
    taken.passed.answer,
    frame=dataclasses.replace(
      frame,
      own_dmel=None if frame.own_dmel is None else _HEARD,
      user_dmel=None if frame.user_dmel is None else _HEARD,
      patches=np.zeros((len(frame.patches), 0), np.uint8),
      target_mel=None,
    ),
  )
  return dataclasses.replace(
    taken, passed=dataclasses.replace(taken.passed, answer=answer)
  )


class _Folder:
  """The files of one session; all calls come from one thread."""

  def __init__(
    self,
    path: pathlib.Path,
    *,
    line: Line,
    about: About,
    tokenizer: Tokenizer,
    config: StreamsConfig,
  ):
    self.has_failed = False
    self._path = path
    self._line_id, self._seed = line.session_id, line.seed
    self._about = about
    self._tokenizer = tokenizer
    self._config = config
    self._grid = grid = clock.of(config)
    self._inputs: IO[str] | None = None
    self._sound: IO[bytes] | None = None
    # The agent's side: nothing sounds in the first window, and the vocoder's
    # delay is taken out.
    self._agent = np.zeros(grid.samples, np.int16)
    self._skip = stream.DELAY
    self._samples = 0  # written
    # Frames and seconds of ticks wait on disk: there may be hours of them.
    self._ticks: IO[bytes] | None = None
    self._first = 0

  def add(self, taken: Taken) -> None:
    """One window; a full disk ends the recording, not the session."""
    try:
      self._add(taken)
    except Exception:
      self.has_failed = True
      logging.exception("%s is not recorded any more", self._path)

  def _add(self, taken: Taken) -> None:
    passed, arrived = taken.passed, taken.arrived
    frame = passed.answer.frame
    if self._inputs is None:
      self._first = frame.window
      self._inputs = open(self._path / INPUTS, "w", encoding="utf-8")
      # No buffer: what is written is there if the process ends.
      self._sound = open(self._path / SOUND, "wb", buffering=0)  # noqa: SIM115
      self._ticks = tempfile.TemporaryFile(dir=self._path)  # noqa: SIM115
      self._line(
        {
          "schema": SCHEMA,
          "version": VERSION,
          "id": self._line_id,
          "seed": self._seed,
          "first_window": self._first,
          "window_ms": self._grid.ms,
          "session_clock": "seconds since the session began, windows only",
          "wall_clock": "seconds since 1970",
          **dataclasses.asdict(self._about),
        }
      )
    self._write_sound(user=arrived.samples, agent=passed.answer.sound)
    images = []
    for number, image in enumerate(arrived.images):
      (self._path / VIDEO).mkdir(exist_ok=True)
      name = f"{VIDEO}/{frame.window:07d}-{number}.png"
      PIL.Image.fromarray(image).save(self._path / name)
      images.append(name)
    timing = passed.timing
    self._line(
      {
        "window": frame.window,
        "session_s": round(timing.ended, 3),
        "wall_s": round(timing.wall, 4),
        "is_absent": arrived.samples is None,
        "is_asked": arrived.is_asked,
        "results": [list(map(int, tokens)) for tokens in taken.results],
        "typed": [list(map(int, tokens)) for _, tokens in arrived.typed],
        "images": images,
        "outputs": outputs(frame, config=self._config),
        "waited_s": round(timing.waited, 5),
        "ticked_s": round(timing.ticked, 5),
        "late_s": round(timing.late, 5),
      }
    )
    assert self._ticks is not None
    pickle.dump((frame, timing.ticked), self._ticks)

  def _line(self, record: dict[str, Any]) -> None:
    assert self._inputs is not None
    self._inputs.write(json.dumps(record) + "\n")
    self._inputs.flush()

  def _write_sound(
    self, *, user: np.ndarray | None, agent: np.ndarray | None
  ) -> None:
    """One window of both sides, after which the header is right."""
    size = self._grid.samples
    left = np.zeros(size, np.int16) if user is None else formats.to_pcm(user)
    sound = np.zeros(size, np.float32) if agent is None else agent
    skip = min(self._skip, len(sound))
    self._skip -= skip
    self._agent = np.concatenate([self._agent, formats.to_pcm(sound[skip:])])
    right, self._agent = self._agent[:size], self._agent[size:]
    data = np.stack([left, right], axis=1).astype("<i2").tobytes()
    assert self._sound is not None
    frame = _CHANNELS * _WIDTH
    self._sound.seek(_HEADER.size + frame * self._samples)
    self._sound.write(data)
    self._samples += size
    self._sound.seek(0)
    self._sound.write(wav_header(self._samples))

  def close(self, made: list[dict[str, Any]]) -> None:
    """Ticks and calls: the session is over."""
    if self._inputs is None:
      return
    try:
      self._inputs.close()
      assert self._sound is not None
      self._sound.close()
      log = self._log()
      files.write_atomically(self._path / TICKS, content=ticks.to_text(log))
      texts = [json.dumps(call, ensure_ascii=False) for call in made]
      if texts:
        content = "".join(f"{errors.escaped(text)}\n" for text in texts)
        files.write_atomically(self._path / CALLS, content=content)
    except Exception:
      self.has_failed = True
      logging.exception("%s is not finished", self._path)
    finally:
      if self._ticks is not None:
        self._ticks.close()

  def _waiting(self) -> tuple[list[Frame], list[float]]:
    """Frames, and seconds of their ticks."""
    assert self._ticks is not None
    end = self._ticks.tell()
    self._ticks.seek(0)
    found = []
    while self._ticks.tell() < end:
      found.append(pickle.load(self._ticks))
    return [frame for frame, _ in found], [seconds for _, seconds in found]

  def _log(self) -> ticks.Log:
    frames, seconds = self._waiting()
    sound = user_side(self._path / SOUND)
    spans = audio.speech_spans(sound, name=self._line_id)
    timeline = Timeline(
      id=self._line_id,
      duration=len(frames) * self._grid.seconds,
      tracks=(Track(Role.USER, sound, (), tuple(spans), self._line_id),),
    )
    return observe.from_frames(
      frames,
      timeline=timeline,
      tokenizer=self._tokenizer,
      grid=self._grid,
      seconds=np.array(seconds),
      provenance={
        "name": self._about.name,
        "step": self._about.step,
        "seed": self._seed,
      },
    )


def outputs(frame: Frame, *, config: StreamsConfig) -> list[int]:
  """Tokens that the model decided."""
  layout = frame_lib.layout(frame, config=config)
  return layout.tokens[layout.num_inputs :]


def user_side(path: pathlib.Path) -> np.ndarray:
  """[n] float32 of the user in a conversation.wav, read in blocks."""
  frame = _CHANNELS * _WIDTH
  count = max(0, path.stat().st_size - _HEADER.size) // frame
  sound = np.zeros(count, np.float32)
  for at in range(0, count, _BLOCK):
    size = min(_BLOCK, count - at)
    data = np.fromfile(
      path, "<i2", _CHANNELS * size, offset=_HEADER.size + frame * at
    )
    sound[at : at + size] = formats.to_float(data[::_CHANNELS])
  return sound


def wav_header(samples: int) -> bytes:
  """Of a file with so many samples of both sides."""
  rate, frame = clock.SAMPLE_RATE, _CHANNELS * _WIDTH
  size = samples * frame
  return _HEADER.pack(
    *(b"RIFF", _HEADER.size - 8 + size, b"WAVE"),
    *(b"fmt ", 16, 1, _CHANNELS, rate, rate * frame, frame, 8 * _WIDTH),
    *(b"data", size),
  )
