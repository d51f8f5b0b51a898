"""What clients are sent: every window of a session as events.

For: `Teller`, which is given one window after the other and returns the JSON
objects for the client. Not for: what clients send (`events`) or sockets
(`connection`). Start at `Teller.tell`. Pure but for the ids it draws.

A response is one stretch of the model's speech: it begins with the window
that decides to speak, and ends with the first that does not, or when the model
gives way to somebody who speaks. Nothing waits for turns.
"""

import base64
import os
import secrets
from typing import Any

from tml_jax.live.server import attached
from tml_jax.live.server.ear import Heard
from tml_jax.live.server.formats import PCM_24, Encoder, Format
from tml_jax.live.server.line import Passed
from tml_jax.streams import clock
from tml_jax.streams.frame import Control, Frame
from tml_jax.streams.tokenizer import Tokenizer
from tml_jax.vocoder import stream

Event = dict[str, Any]
_CONTEXT = 32  # tokens before new text that may change how it is spelled
_MOST_TEXT = 1 << 16  # characters of a transcript that are told once more


class _Text:
  """Text that grows, token by token."""

  def __init__(self, tokenizer: Tokenizer):
    self._tokenizer = tokenizer
    self._past: list[int] = []

  def more(self, tokens: tuple[int, ...]) -> str:
    """What the tokens add to what was there."""
    if not tokens:
      return ""
    before = self._tokenizer.decode(self._past)
    whole = [*self._past, *tokens]
    text = self._tokenizer.decode(whole)
    self._past = whole[-_CONTEXT:]
    return text[len(os.path.commonprefix([before, text])) :]


class _Response:
  """One stretch of speech, as it is told."""

  def __init__(self) -> None:
    self.id = f"resp_{secrets.token_hex(8)}"
    self.item_id = f"item_{secrets.token_hex(8)}"
    self.transcript = ""
    self.outputs: list[Event] = []  # behind the message

  @property
  def where(self) -> Event:
    return {
      "response_id": self.id,
      "item_id": self.item_id,
      "output_index": 0,
      "content_index": 0,
    }

  def item(self, status: str) -> Event:
    part = {"type": "output_audio", "transcript": self.transcript}
    return {
      "id": self.item_id,
      "object": "realtime.item",
      "type": "message",
      "role": "assistant",
      "status": status,
      "content": [part],
    }

  def to_json(self, status: str, *, reason: str = "") -> Event:
    output = []
    if status != "in_progress":
      word = "completed" if status == "completed" else "incomplete"
      output = [self.item(word), *self.outputs]
    whole: Event = {
      "object": "realtime.response",
      "id": self.id,
      "status": status,
      "output": output,
      "output_modalities": ["audio"],
    }
    if reason:
      whole["status_details"] = {"type": status, "reason": reason}
    return whole


class Teller:
  """Windows to events, for one connection."""

  def __init__(self, tokenizer: Tokenizer, *, grid: clock.Grid):
    self._tokenizer = tokenizer
    self._grid = grid
    self._encoder = Encoder(PCM_24)
    self._said = _Text(tokenizer)
    self._pending = ""  # words before the sound they belong to
    self._shown: tuple[str, _Text] | None = None
    self._response: _Response | None = None
    self._user_item = ""  # of who speaks, as far as the client was told

  @property
  def played(self) -> Format:
    """How the agent's sound is coded."""
    return self._encoder.form

  @played.setter
  def played(self, form: Format) -> None:
    if form != self._encoder.form:
      self._encoder = Encoder(form)

  def tell(self, passed: Passed) -> list[Event]:
    """The events of a window, in order."""
    frame = passed.answer.frame
    events = self._speech(passed)
    events += self._texts(frame)
    for made in passed.made:
      events += self._made(made)
    events.append(tick(passed))
    if passed.answer.refused is not None:
      events.append(error("invalid_input", str(passed.answer.refused)))
    return events

  def _speech(self, passed: Passed) -> list[Event]:
    frame, sound = passed.answer.frame, passed.answer.sound
    events: list[Event] = []
    words = self._said.more(frame.say)
    gives_way = (
      self._response is not None
      and not frame.speak
      and passed.heard.heard is Heard.SOUND
    )
    if gives_way:  # what the client still has is not to be heard
      self._user_item = self._user_item or f"item_{secrets.token_hex(8)}"
      start = passed.timing.ended - self._grid.seconds
      events.append(
        {
          "type": "input_audio_buffer.speech_started",
          "audio_start_ms": round(1000 * start),
          "item_id": self._user_item,
        }
      )
    elif self._user_item and passed.heard.heard is not Heard.SOUND:
      events.append(
        {
          "type": "input_audio_buffer.speech_stopped",
          "audio_end_ms": round(1000 * passed.timing.ended),
          "item_id": self._user_item,
        }
      )
      self._user_item = ""
    if passed.is_cancelled and not frame.speak:
      events += self._done("cancelled", reason="client_cancelled")
    elif gives_way:
      events += self._done("cancelled", reason="turn_detected")
    if frame.speak and self._response is None:
      events += self._begin()
      words, self._pending = self._pending + words, ""
    if self._response is None:
      self._pending = (self._pending + words)[-_MOST_TEXT:]
      return events
    if words:
      self._response.transcript += words[
        : max(0, _MOST_TEXT - len(self._response.transcript))
      ]
      events.append(
        self._response.where
        | {"type": "response.output_audio_transcript.delta", "delta": words}
      )
    if sound is not None:
      if frame.speak:
        data = self._encoder.push(sound)
      else:  # the vocoder lags: the end of what was decided before
        data = self._encoder.push(sound[: stream.DELAY])
        data += self._encoder.flush()
      if data:
        events.append(
          self._response.where
          | {"type": "response.output_audio.delta", "delta": _coded(data)}
        )
    if not frame.speak:
      events += self._done("completed")
    return events

  def _begin(self) -> list[Event]:
    self._response = made = _Response()
    self._encoder.flush()
    return [
      {"type": "response.created", "response": made.to_json("in_progress")},
      {
        "type": "response.output_item.added",
        "response_id": made.id,
        "output_index": 0,
        "item": made.item("in_progress") | {"content": []},
      },
      made.where
      | {
        "type": "response.content_part.added",
        "part": {"type": "audio", "transcript": ""},
      },
    ]

  def _done(self, status: str, *, reason: str = "") -> list[Event]:
    made, self._response = self._response, None
    if made is None:
      return []
    transcript = {"transcript": made.transcript}
    word = "completed" if status == "completed" else "incomplete"
    return [
      made.where | {"type": "response.output_audio.done"},
      made.where
      | {"type": "response.output_audio_transcript.done"}
      | transcript,
      made.where
      | {
        "type": "response.content_part.done",
        "part": {"type": "audio"} | transcript,
      },
      {
        "type": "response.output_item.done",
        "response_id": made.id,
        "output_index": 0,
        "item": made.item(word),
      },
      {
        "type": "response.done",
        "response": made.to_json(status, reason=reason),
      },
    ]

  def _texts(self, frame: Frame) -> list[Event]:
    """What is shown of texts that grow."""
    events: list[Event] = []
    for burst in frame.text_out:
      if burst.channel != Control.SHOW:
        continue
      if self._shown is None:
        item_id = f"show_{secrets.token_hex(8)}"
        self._shown = item_id, _Text(self._tokenizer)
      item_id, text = self._shown
      events.append(
        {
          "type": "tml.show",
          "item_id": item_id,
          "delta": text.more(burst.tokens),
          "done": burst.complete,
        }
      )
      if burst.complete:
        self._shown = None
    return events

  def _made(self, made: attached.Made) -> list[Event]:
    if isinstance(made, attached.Came):
      return [
        {"type": "tml.result", "call_id": made.call_id, "output": made.text}
      ]
    if isinstance(made, attached.Drawn):
      return [
        {
          "type": "tml.draw",
          "drawing_id": made.drawing_id,
          "path": made.path,
          "done": made.is_done,
          "size": list(made.box[2:]),
          "box": list(made.box),
        }
      ]
    told = {
      "type": "tml.call",
      "call_id": made.call_id,
      "name": made.name,
      "arguments": made.arguments,
      "where": made.where,
    }
    if made.where == attached.SERVER:
      return [told]
    return [told, *self._function_call(made)]

  def _function_call(self, made: attached.Called) -> list[Event]:
    """A call of the client's, in the response that is told or its own."""
    response = self._response or _Response()
    item = {
      "id": f"item_{secrets.token_hex(8)}",
      "object": "realtime.item",
      "type": "function_call",
      "status": "completed",
      "name": made.name,
      "call_id": made.call_id,
      "arguments": made.arguments,
    }
    if self._response:
      response.outputs.append(item)
    index = len(response.outputs)
    where = {"response_id": response.id, "output_index": index}
    events: list[Event] = [
      where
      | {
        "type": "response.output_item.added",
        "item": item | {"status": "in_progress", "arguments": ""},
      },
      where
      | {
        "type": "response.function_call_arguments.done",
        "item_id": item["id"],
        "call_id": made.call_id,
        "name": made.name,
        "arguments": made.arguments,
      },
      where | {"type": "response.output_item.done", "item": item},
    ]
    if self._response:
      return events
    whole = response.to_json("completed") | {"output": [item]}
    begun = response.to_json("in_progress")
    return [
      {"type": "response.created", "response": begun},
      *events,
      {"type": "response.done", "response": whole},
    ]


def tick(passed: Passed) -> Event:
  """The window's own event."""
  frame, timing = passed.answer.frame, passed.timing
  decision = "speak" if frame.speak else "quiet"
  if frame.text_out:
    decision = frame.text_out[-1].channel.name.lower()
  return {
    "type": "tml.tick",
    "window": frame.window,
    "time": round(timing.ended, 3),
    "user": str(passed.heard.heard),
    "decision": decision,
    "is_speaking": frame.speak,
    "tick_ms": round(1000 * timing.ticked, 1),
    "waited_ms": round(1000 * timing.waited, 1),
    "late_ms": round(1000 * timing.late, 1),
    "deadline_missed": timing.late > 0,
    "input_level_db": round(passed.heard.level_db, 1),
    "lost_inputs": passed.lost,
  }


def error(
  code: str,
  message: str,
  *,
  event_id: str = "",
  kind: str = "invalid_request_error",
) -> Event:
  """An error event; `event_id` is that of the client's event."""
  return {
    "type": "error",
    "error": {
      "type": kind,
      "code": code,
      "message": message,
      "param": None,
      "event_id": event_id or None,
    },
  }


def _coded(data: bytes) -> str:
  return base64.b64encode(data).decode("ascii")
