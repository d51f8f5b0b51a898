"""One session as its clients see it, over one connection or several.

For: `Talk`, what becomes of each command of a client. Not for: sockets
(`connection`), admission (`house`) or the clock (`beat`). Start at
`Talk.obey`. All of it is on the loop of asyncio.
"""

import asyncio
import concurrent.futures
import dataclasses
import secrets
from collections.abc import Callable
from typing import Any

from tml_jax import errors
from tml_jax.data import media
from tml_jax.data.source import BadRecording
from tml_jax.live.server import answers, events, formats
from tml_jax.live.server.beat import Beat, Ended
from tml_jax.live.server.line import MOST_WAITING, Line
from tml_jax.live.server.operations import Metrics
from tml_jax.live.server.recording import Recorder
from tml_jax.streams import clock
from tml_jax.streams.tokenizer import Tokenizer

_PIXELS = 1 << 23  # of one coded picture
Event = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
  """What all sessions of a server share.

  Attributes:
    beat: the pool.
    tokenizer: of the run.
    grid: of the windows.
    height: pixels of a video frame.
    width: pixels of a video frame.
    eyes: threads that decode pictures.
    recorder: writes sessions; None records nothing.
    metrics: of the server.
  """

  beat: Beat
  tokenizer: Tokenizer
  grid: clock.Grid
  height: int
  width: int
  eyes: concurrent.futures.Executor
  recorder: Recorder | None
  metrics: Metrics


class Over(Exception):
  """The client has ended the session."""


class Talk:
  """A session and what its clients have set.

  Attributes:
    line: its other end.
    token: with which it is resumed.
    began: seconds of the loop's clock.
    rests_since: of that clock, when windows ceased to pass; None while they
      do.
    refuse: told of a frame of video that is none, once it was looked at.
  """

  def __init__(self, line: Line, *, token: str, setting: Setting, now: float):
    self.line = line
    self.token = token
    self.began = now
    self.rests_since: float | None = now
    self._setting = setting
    self._choices = line.choices
    self._decoder = formats.Decoder(line.choices.heard)
    self._looking: asyncio.Task[None] | None = None  # at a frame of video
    self.refuse: Callable[[events.Refused], None] = lambda refused: None

  async def obey(self, command: events.Command) -> list[Event]:
    """Does what a client asks; returns what it is told at once.

    Raises:
      events.Refused: it changes nothing.
      Over: the client has had enough.
    """
    match command:
      case events.Sound():
        return await self._hear(command.data)
      case events.Picture():
        self._watch(command.data)
      case events.Update():
        return self._update(command)
      case events.Message():
        return await self._read(command)
      case events.Result():
        return self._result(command)
      case events.Truncate():
        return [
          {"type": "conversation.item.truncated"} | dataclasses.asdict(command)
        ]
      case events.Clear():
        self.line.clear()
        return [{"type": "input_audio_buffer.cleared"}]
      case events.Commit():
        item_id = f"item_{secrets.token_hex(8)}"
        return [{"type": "input_audio_buffer.committed", "item_id": item_id}]
      case events.Begin():
        await self.go_on()
      case events.Cancel():
        self.line.cancel()
      case events.Mute():
        self.line.mute(command.muted)
      case events.Pause():
        self._choices.is_paused = command.paused
        if command.paused:
          await self.pause()
        else:
          await self.go_on()
      case events.Playback():
        metrics = self._setting.metrics
        metrics.jitter.observe(command.jitter_ms / 1000)
        metrics.buffered.observe(command.buffer_ms / 1000)
      case events.Ping():
        return [{"type": "tml.pong", "sent": command.sent}]
      case events.Record():
        return await self._record(command.allowed)
      case events.Close():
        raise Over
    return []

  @property
  def played(self) -> formats.Format:
    """How the agent's sound is coded."""
    return self._choices.played

  def settings(self) -> Event:
    """What session.created and session.updated say of audio and tools."""
    return {
      "audio": {
        "input": {
          "format": self._decoder.form.to_json(),
          "turn_detection": None,
        },
        "output": {"format": self._choices.played.to_json()},
      },
      "tools": [tool.to_json() for tool in self.line.attached.declared],
      "instructions": self._choices.instructions,
    }

  async def go_on(self) -> None:
    """Windows pass, unless the client has paused them."""
    if self.rests_since is not None and not self._choices.is_paused:
      self.rests_since = None
      beat, line = self._setting.beat, self.line
      await asyncio.wrap_future(beat.call(lambda: beat.go_on(line)))

  async def pause(self) -> None:
    """No windows pass."""
    if self.rests_since is None:
      self.rests_since = asyncio.get_running_loop().time()
      beat, line = self._setting.beat, self.line
      await asyncio.wrap_future(beat.call(lambda: beat.pause(line)))

  def reconnected(self) -> None:
    """Another client, which finds formats and pause as they were."""
    self._decoder = formats.Decoder(self._choices.heard)
    self.line.mute(False)

  async def _hear(self, data: bytes) -> list[Event]:
    try:
      samples = self._decoder.push(data)
    except ValueError as error:
      raise events.Refused("invalid_audio", str(error)) from error
    if self._choices.is_paused:  # it would be heard late
      return []
    surplus = self.line.hear(samples)
    await self.go_on()
    if surplus:
      raise events.Refused(
        "too_far_ahead",
        f"{surplus / clock.SAMPLE_RATE:.2f} s of sound were more than is kept"
        " ahead of its time: send as fast as it is spoken",
      )
    return []

  def _watch(self, data: bytes) -> None:
    """Decodes a frame of video while sound comes in; skips what is too fast."""
    if self._looking is not None and not self._looking.done():
      return
    refuse = self.refuse  # of the client that sent it

    async def look() -> None:
      try:
        await self._see(data)
        await self.go_on()
      except events.Refused as refused:
        refuse(refused)
      except Ended:  # the house tells the client
        pass

    self._looking = asyncio.ensure_future(look())

  async def _see(self, data: bytes) -> None:
    """Decodes a picture beside the loop."""
    setting = self._setting

    def decode() -> Any:
      return media.picture_of_bytes(
        data,
        name="image",
        height=setting.height,
        width=setting.width,
        pixels=_PIXELS,
      )

    loop = asyncio.get_running_loop()
    try:
      image = await loop.run_in_executor(setting.eyes, decode)
    except BadRecording as error:
      raise events.Refused("invalid_image", str(error)) from error
    self.line.show(image)

  def _update(self, command: events.Update) -> list[Event]:
    if command.heard is not None and command.heard != self._decoder.form:
      self._decoder = formats.Decoder(command.heard)
      self._choices.heard = command.heard
    if command.played is not None:
      self._choices.played = command.played
    if command.tools is not None:
      self.line.attached.declare(command.tools)
    replies: list[Event] = [{"type": "session.updated"}]
    said = self._choices.instructions
    if command.instructions and command.instructions != said:
      self._choices.instructions = command.instructions
      tools = [tool.usage for tool in self.line.attached.declared]
      tokens = self._setting.tokenizer.encode(
        "\n".join([command.instructions, *tools])
      )
      room = self.line.room
      if room:
        self.line.type(tokens[:room])
      if len(tokens) > room:
        replies.append(
          answers.error(
            "instructions_cut",
            f"the model is told {room} of {len(tokens)} tokens of instructions"
            " and tools",
          )
        )
    return replies

  def _type(self, text: str) -> None:
    """Text for the model, which never becomes a control token."""
    if not self.line.type(self._setting.tokenizer.encode(text)):
      raise events.Refused(
        "too_much_text",
        f"{MOST_WAITING} tokens of text wait to be read: type less, or later",
      )

  async def _read(self, command: events.Message) -> list[Event]:
    for text in command.texts:
      if text.strip():
        self._type(text)
    for image in command.images:
      await self._see(image)
    await self.go_on()
    content: list[Event] = [
      {"type": "input_text", "text": text} for text in command.texts
    ]
    content += [{"type": "input_image"} for _ in command.images]
    return _added(
      {
        "id": command.item_id or f"item_{secrets.token_hex(8)}",
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": content,
      }
    )

  def _result(self, command: events.Result) -> list[Event]:
    if not self.line.attached.answer(command.call_id, command.text):
      raise events.Refused(
        "unknown_call",
        f"no call {command.call_id!r:.80} waits for a result: it has one, has"
        " timed out, or never was",
      )
    return _added(
      {
        "id": command.item_id or f"item_{secrets.token_hex(8)}",
        "type": "function_call_output",
        "status": "completed",
        "call_id": command.call_id,
        "output": command.text,
      }
    )

  async def _record(self, allowed: bool) -> list[Event]:
    """Takes what the person says of being recorded."""
    recorder = self._setting.recorder
    if recorder is None:
      raise events.Refused(
        "not_offered", "this server records nothing: it has no --record"
      )
    change = recorder.begin if allowed else recorder.end
    try:
      await asyncio.to_thread(change, self.line)  # a disk keeps no tick
    except errors.UserError as error:
      raise events.Refused("not_recorded", str(error)) from error
    return []


def _added(item: Event) -> list[Event]:
  whole = {"object": "realtime.item"} | item
  return [
    {
      "type": "conversation.item.added",
      "previous_item_id": None,
      "item": whole,
    },
    {"type": "conversation.item.done", "previous_item_id": None, "item": whole},
  ]


def teller(talk: Talk, *, setting: Setting) -> answers.Teller:
  """Tells one client of its session's windows."""
  made = answers.Teller(setting.tokenizer, grid=setting.grid)
  made.played = talk.played
  return made
