"""Logs of models and tests of them, and clips of one who talks.

For: `forms.LAYOUTS`. Not for: collections of calls (`collected`). Start at any
of them.
"""

import math
import pathlib
from typing import Any

import numpy as np

from benchmarks.layouts import forms, pictures
from tml_jax.logs import observe
from tml_jax.logs import sound as sound_lib
from tml_jax.logs import ticks as ticks_lib
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Timeline


@forms.layout("video", said=(Role.USER,), heard=(Role.USER,), role="user")
def _video(folder: pathlib.Path, items: list[Timeline]) -> None:
  for name, item in forms.named(items):
    track = forms.track(item, Role.USER)
    pictures.clip(
      folder / f"{name}.mp4", seconds=item.duration, sound=track.audio
    )
    lines = [
      f"{number}\n{_srt(words[0].start)} --> {_srt(words[-1].end)}\n"
      f"{forms.text(words)}\n"
      for number, words in enumerate(forms.utterances(track), start=1)
    ]
    forms.put(folder / f"{name}.srt", *lines)


@forms.layout("tau2")
def _tau2(folder: pathlib.Path, items: list[Timeline]) -> None:
  simulations = []
  for name, item in forms.named(items):
    path = folder / "artifacts" / f"sim_{name}" / "audio" / "both.wav"
    forms.write(path, *forms.both(item), rate=8_000)
    ticks = [
      {
        "tick_id": number,
        "tick_duration_seconds": clock.TICKS.seconds,
        "user_chunk": {"contains_speech": t.user, "content": t.user_text},
        "agent_chunk": {"contains_speech": t.agent, "content": t.agent_text},
        "user_tool_calls": [],
        "agent_tool_calls": [],
        "agent_tool_results": [],
      }
      for number, t in enumerate(_ticks(item).ticks)
    ]
    simulations.append({"id": f"sim_{name}", "ticks": ticks})
  forms.put_json(folder / "results.json", {"simulations": simulations})


@forms.layout("sessions")
def _sessions(folder: pathlib.Path, items: list[Timeline]) -> None:
  """As `sample` leaves them, without pictures."""
  for name, item in forms.named(items):
    (folder / name).mkdir()
    user, agent = forms.both(item)
    sound_lib.write_wav(
      folder / name / "conversation.wav", channels=[user, agent]
    )
    sound_lib.write_wav(folder / name / "agent.wav", channels=[agent])
    ticks_lib.write(_ticks(item), folder / name / "ticks.jsonl")


@forms.layout("minicpm_o", said=(Role.AGENT,))
def _minicpm_o(folder: pathlib.Path, items: list[Timeline]) -> None:
  """Chunks of a second, each with a picture, and the replay of all."""
  for name, item in forms.named(items):
    session = folder / name
    user, agent = forms.both(item)
    answer = forms.at_rate(24_000, agent)
    starts = np.arange(math.ceil(item.duration))
    spoken = forms.track(item, Role.AGENT)
    chunks: list[dict[str, Any]] = []
    for second in starts.tolist():
      still = session / "user_frames" / f"{second:03d}.jpg"
      still.parent.mkdir(parents=True, exist_ok=True)
      pictures.picture(second).save(still, quality=80)
      sound = session / "user_audio" / f"{second:03d}.wav"
      forms.write(sound, user[forms.RATE * second : forms.RATE * (second + 1)])
      said = tuple(w for w in spoken.words if second <= w.start < second + 1)
      result: dict[str, Any] = {"mode": "LISTEN"}
      if said or any(
        s.start < second + 1 and s.end > second for s in spoken.spans
      ):
        voice = session / "ai_audio" / f"turn_0_chunk_{second:03d}.wav"
        part = answer[24_000 * second : 24_000 * (second + 1)]
        forms.write(voice, part, rate=24_000, of=24_000)
        result = {
          "mode": "SPEAK",
          "text": f" {forms.text(said)}" if said else "",
          "ai_audio": f"ai_audio/{voice.name}",
        }
      chunks.append(
        {
          "index": second,
          "receive_ts_ms": 1000 * second,
          "user_audio": f"user_audio/{sound.name}",
          "user_frame": f"user_frames/{still.name}",
          "result": result,
        }
      )
    forms.write(session / "merged_replay.wav", user, agent)
    forms.put_json(
      session / "recording.json",
      {
        "session_id": name,
        "mode": "duplex",
        "chunks": chunks,
        "merged_replay": "merged_replay.wav",
      },
    )


@forms.layout("full_duplex_bench", said=(Role.USER,), heard=(Role.USER,))
def _full_duplex_bench(folder: pathlib.Path, items: list[Timeline]) -> None:
  for name, item in forms.named(items):
    track = forms.track(item, Role.USER)
    forms.write(folder / name / "input.wav", track.audio)
    words = [
      {
        "speaker": 0,
        "item": [{"text": w.text, "timestamp": [w.start, w.end]}],
      }
      for w in track.words
    ]
    forms.put_json(folder / name / "transcription.json", words)


def _ticks(item: Timeline) -> ticks_lib.Log:
  return observe.from_activity(
    item, agent=observe.recorded_activity(item), says_recording=True
  )


def _srt(seconds: float) -> str:
  minutes, rest = divmod(round(1000 * seconds), 60_000)
  hours, minutes = divmod(minutes, 60)
  return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d},{rest % 1000:03d}"
